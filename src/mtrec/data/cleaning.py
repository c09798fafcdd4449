"""Cleaning of validated tables: tidy text, no duplicates, one order."""

from __future__ import annotations

import polars as pl

from mtrec.data.contract import Tables

ORDER = "_order"
"""The column with a row's number in the input, while interactions are cleaned."""


def clean(tables: Tables) -> tuple[Tables, dict[str, int]]:
    """Tidy the tables without judging them (validation has done that).

    Text cells are brought to Unicode NFC, stripped, and blank ones become missing. Interactions that repeat
    user, item, event and timestamp are one interaction (the last row counts: a corrected rating wins). Users
    that only interactions know get a row of their own with missing attributes. Interactions are sorted by
    user and time; rows of equal time keep their order in the input.

    Returns:
        The clean tables and the counts of what was changed: `duplicate_interactions`, `added_users`.
    """
    interactions = clean_interactions(tables.interactions.lazy().with_row_index(ORDER))
    users, added = clean_users(tables.users, interactions)
    counts = {
        "duplicate_interactions": tables.interactions.height - interactions.height,
        "added_users": added,
    }
    return Tables(users=users, items=clean_items(tables.items), interactions=interactions), counts


def clean_interactions(interactions: pl.LazyFrame) -> pl.DataFrame:
    """The interactions of some users, all rows of each, as `clean` leaves them.

    Args:
        interactions: rows in the order of the input, with their numbers in it as column `ORDER`.
    """
    cleaned = (
        interactions.unique(subset=["user_id", "item_id", "event", "timestamp"], keep="last", maintain_order=True)
        .sort("user_id", "timestamp", ORDER)
        .drop(ORDER)
        .collect(engine="streaming")
    )
    if "rating" not in cleaned.columns:
        cleaned = cleaned.with_columns(rating=pl.lit(None, pl.Float64))
    return cleaned


def clean_users(users: pl.DataFrame, interactions: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Tidy users, with a row for each that only interactions know, sorted; and how many those are."""
    users = users.with_columns(tidy_text(pl.col(pl.String)))
    missing = interactions.select("user_id").unique(maintain_order=True)
    missing = missing.join(users, on="user_id", how="anti")
    return pl.concat([users, missing], how="diagonal").sort("user_id"), missing.height


def clean_items(items: pl.DataFrame) -> pl.DataFrame:
    """Tidy items, sorted."""
    return items.with_columns(tidy_text(pl.col(pl.String))).sort("item_id")


def tidy_text(columns: pl.Expr) -> pl.Expr:
    """Text in Unicode NFC without space around it; blank becomes missing."""
    text = columns.str.normalize("NFC").str.strip_chars()
    return pl.when(text.str.len_chars() > 0).then(text).name.keep()
