"""Cleaning of validated tables: tidy text, no duplicates, one order."""

from __future__ import annotations

import polars as pl

from mtrec.data.contract import Tables


def clean(tables: Tables) -> tuple[Tables, dict[str, int]]:
    """Tidy the tables without judging them (validation has done that).

    Text cells are brought to Unicode NFC, stripped, and blank ones become missing. Interactions that repeat
    user, item, event and timestamp are one interaction (the last row counts: a corrected rating wins). Users
    that only interactions know get a row of their own with missing attributes. Interactions are sorted by
    user and time; rows of equal time keep their order in the input.

    Returns:
        The clean tables and the counts of what was changed: `duplicate_interactions`, `added_users`.
    """
    users, items = _tidy_text(tables.users), _tidy_text(tables.items)
    interactions = (
        tables.interactions.lazy()
        .with_row_index("_order")
        .unique(subset=["user_id", "item_id", "event", "timestamp"], keep="last", maintain_order=True)
        .sort("user_id", "timestamp", "_order")
        .drop("_order")
        .collect(engine="streaming")
    )
    if "rating" not in interactions.columns:
        interactions = interactions.with_columns(rating=pl.lit(None, pl.Float64))
    missing = interactions.select("user_id").unique(maintain_order=True)
    missing = missing.join(users, on="user_id", how="anti")
    counts = {
        "duplicate_interactions": tables.interactions.height - interactions.height,
        "added_users": missing.height,
    }
    users = pl.concat([users, missing], how="diagonal").sort("user_id")
    return Tables(users=users, items=items.sort("item_id"), interactions=interactions), counts


def _tidy_text(table: pl.DataFrame) -> pl.DataFrame:
    text = pl.col(pl.String).str.normalize("NFC").str.strip_chars()
    return table.with_columns(pl.when(text.str.len_chars() > 0).then(text).name.keep())
