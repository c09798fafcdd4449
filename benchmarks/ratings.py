"""Ratings for the quality benchmark: loaded, cleaned and split by the product's own rules.

The rows that a baseline sees are the rows that mtrec sees: the source, the types of the columns, the cleaning
and the split all come from `mtrec.data`. The rules stand in `mtrec.data.splits.split_interactions`. In short:
`random` draws each row by a hash of it and the seed, `time` cuts at two instants, `leave_last_out` takes each
user's last new item, which here is the last row, since a user's later rating of an item replaces the earlier one
(rows of equal time keep the order of the input; users with fewer than three items stay in training), `cold_items`
draws items by a hash of their id and takes all their rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from mtrec.config import Scenario, Split, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import TYPES, Tables
from mtrec.data.splits import TEST, TRAIN, VALID, split_interactions

By = Literal["time", "random", "leave_last_out", "cold_items"]


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """N ratings as arrays; users and items are codes from 0, item codes cover the whole catalogue."""

    users: np.ndarray
    """[N] int64, in [0, num_users)."""
    items: np.ndarray
    """[N] int64, in [0, num_items)."""
    values: np.ndarray
    """[N] float64, in [low, high]."""
    user_ids: list[str]
    item_ids: list[str]
    low: float
    high: float

    @property
    def num_users(self) -> int:
        """Users, with and without a row here."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Items of the catalogue, with and without a row here."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: np.ndarray) -> Ratings:
        """Some rows (indices or a mask), with the same users and items."""
        return replace(self, users=self.users[rows], items=self.items[rows], values=self.values[rows])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The three parts of a split."""

    train: Ratings
    valid: Ratings
    test: Ratings

    @property
    def before_test(self) -> Ratings:
        """Training and validation rows together, user by user in order of time."""
        both = [np.concatenate(pair) for pair in zip(_arrays(self.train), _arrays(self.valid), strict=True)]
        order = np.argsort(both[0], kind="stable")
        users, items, values = (array[order] for array in both)
        return replace(self.train, users=users, items=items, values=values)


def _arrays(ratings: Ratings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return ratings.users, ratings.items, ratings.values


def load_tables(data: Path, scenario: str | Scenario = "video") -> Tables:
    """Read a data set's folder into typed, cleaned contract tables.

    Rows that the product's validation would quarantine are dropped here: no rating, no time, a rating outside
    the scenario's range, an item that is not in the catalogue, or a repeated item id.

    Args:
        data: the folder, e.g. `../shared/data/movielens-latest-small`.
        scenario: name, path or object.

    Raises:
        MtrecError: the scenario or the data cannot be read.
    """
    from mtrec.data.sources import read_source

    settings = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    raw = read_source(settings, data)
    items = raw.items.with_columns(pl.col("item_id").cast(pl.String)).unique(
        "item_id", keep="first", maintain_order=True
    )
    interactions = _typed(raw.interactions).drop_nulls(["rating", "timestamp"])
    interactions = interactions.filter(pl.col("rating").is_finite())
    if settings.rating_range is not None:
        interactions = interactions.filter(pl.col("rating").is_between(*settings.rating_range))
    interactions = interactions.join(items.select("item_id"), on="item_id", how="semi", maintain_order="left")
    tables, _ = clean(Tables(users=raw.users, items=items, interactions=interactions))
    return tables


def _typed(interactions: pl.DataFrame) -> pl.DataFrame:
    casts = []
    for name, dtype in TYPES["interactions"].items():
        column, found = pl.col(name), interactions.schema[name]
        if name == "timestamp" and not found.is_temporal():
            seconds = column.cast(pl.Float64, strict=False)
            column = pl.from_epoch((seconds * 1_000_000).cast(pl.Int64), time_unit="us").dt.replace_time_zone("UTC")
        casts.append(column.cast(dtype, strict=False).alias(name))
    return interactions.with_columns(casts)


def from_tables(tables: Tables) -> tuple[Ratings, pl.DataFrame]:
    """Turn contract tables into arrays.

    Args:
        tables: typed and clean, interactions sorted by user and time.

    Returns:
        The ratings, and the interactions frame whose rows they are in the same order (for `split`).

    A user's later rating of an item replaces the earlier one.
    """
    frame = tables.interactions.drop_nulls("rating").unique(
        ["user_id", "item_id"], keep="last", maintain_order=True
    )
    user_ids = frame["user_id"].unique(maintain_order=True).to_list()
    item_ids = tables.items["item_id"].to_list()
    values = frame["rating"].to_numpy().astype(np.float64)
    ratings = Ratings(
        users=_codes(frame["user_id"], user_ids),
        items=_codes(frame["item_id"], item_ids),
        values=values,
        user_ids=user_ids,
        item_ids=item_ids,
        low=float(values.min()),
        high=float(values.max()),
    )
    return ratings, frame


def _codes(column: pl.Series, ids: list[str]) -> np.ndarray:
    place = {name: code for code, name in enumerate(ids)}
    return np.array([place[name] for name in column.to_list()], dtype=np.int64)


def split(
    ratings: Ratings,
    interactions: pl.DataFrame,
    by: By,
    *,
    seed: int = 0,
    valid: float = 0.1,
    test: float = 0.1,
) -> Parts:
    """Divide ratings with `mtrec.data.splits.split_interactions`.

    Args:
        ratings: N ratings.
        interactions: the N rows behind them, in the same order.
        by: the rule.
        seed: of random and cold_items; the other two have no chance in them.
        valid: share of all rows (cold_items: of items) that validates, on average where they are drawn (not used by
            leave_last_out).
        test: the share that tests, likewise.

    Raises:
        DataError: a part would be empty.
    """
    part = split_interactions(interactions, Split(by=by, valid=valid, test=test, seed=seed)).to_numpy()
    return Parts(
        train=ratings.take(part == TRAIN), valid=ratings.take(part == VALID), test=ratings.take(part == TEST)
    )
