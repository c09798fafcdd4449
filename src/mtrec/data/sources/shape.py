"""What all sources share: bring columns into the contract's shape without judging any value."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from mtrec.data.contract import REQUIRED, Tables
from mtrec.data.reading import narrow

_KEEP = ("user_id", "item_id", "title", "event")


def shape_tables(items: pl.DataFrame, interactions: pl.DataFrame, users: pl.DataFrame | None = None) -> Tables:
    """Order the columns, turn keys into text and every other column into the type it can hold.

    Args:
        items: columns item_id, title and attributes.
        interactions: columns user_id, item_id, event, timestamp and perhaps rating and attributes.
        users: column user_id and attributes; None takes every user_id of the interactions once.
    """
    if users is None:
        users = interactions.select(pl.col("user_id").drop_nulls().unique(maintain_order=True))
    tables = {"users": users, "items": items, "interactions": interactions}
    for key in ("user_id", "item_id"):
        tables = _keys_as_text(tables, key)
    return Tables(**{name: narrow(_ordered(frame, name), keep=_KEEP) for name, frame in tables.items()})


def _ordered(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    first = [*REQUIRED[table][:3], *(["rating"] if table == "interactions" else []), *REQUIRED[table][3:]]
    return frame.select([n for n in first if n in frame.columns] + [n for n in frame.columns if n not in first])


def _keys_as_text(tables: dict[str, pl.DataFrame], key: str) -> dict[str, pl.DataFrame]:
    """Keys become text. Where every value of a key is a whole number, `17850.0` becomes `17850`.

    Such `.0` come from tools that store whole numbers with gaps as floats; they would split one user in two
    when another table writes the number plainly.
    """
    texts = {
        name: frame.with_columns(pl.col(key).cast(pl.String))
        for name, frame in tables.items()
        if key in frame.columns
    }
    columns = [frame[key] for frame in texts.values()]
    whole = all(column.str.contains(r"^[0-9]+(\.0+)?$").all() for column in columns)
    if whole and any(column.str.contains(".", literal=True).any() for column in columns):
        texts = {name: frame.with_columns(pl.col(key).str.replace(r"\.0+$", "")) for name, frame in texts.items()}
    return tables | texts


def split_list(column: str, separator: str, empty: Sequence[str] = ()) -> pl.Expr:
    """A text column as List(String): parts stripped, empty parts gone, null and any text in `empty` as [].

    Args:
        column: name of the text column.
        separator: between the parts, taken literally.
        empty: texts that stand for "none".
    """
    part = pl.element().str.strip_chars()
    text = pl.col(column).cast(pl.String).fill_null("")
    text = pl.when(text.str.strip_chars().is_in(list(empty))).then(pl.lit("")).otherwise(text)
    return text.str.split(separator).list.eval(part.filter(part != "")).alias(column)


def split_year(column: str = "title") -> list[pl.Expr]:
    """Expressions `title` and `year` out of "Toy Story (1995)".

    A span such as (2006–2007) gives its first year; a mark such as (V) behind the year stays in the title. A
    title without a year keeps its text and gets a null year.
    """
    pattern = r"\s*\((\d{4})(?:\s*[-–]\s*(?:\d{4})?)?\)(\s*\([A-Z]{1,3}\))?\s*$"
    title = pl.col(column).str.replace(pattern, "$2").str.strip_chars()
    year = pl.col(column).str.extract(pattern, 1).cast(pl.Int64)
    return [pl.when(title != "").then(title).alias("title"), year.alias("year")]
