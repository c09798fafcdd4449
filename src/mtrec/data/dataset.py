"""The prepared dataset: what training and evaluation read.

A dataset folder holds the cleaned `users`, `items` and `interactions` with their parts, and `encoding.json`,
which was fitted on the training rows. The encoding travels with the model; a model therefore reads any later
dataset through its own encoding, which is how a champion is judged on new rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mtrec.config import Binary, Scenario, Task
from mtrec.data.contract import Tables, replacing_file, replacing_folder
from mtrec.data.features import FeatureArrays, TableFeatures, codes
from mtrec.data.labels import Label, event_label, fit_labels, label_array
from mtrec.data.splits import PARTS, TRAIN, split_by_id, split_interactions
from mtrec.data.text import fill_template
from mtrec.errors import DataError

_ROW_GROUP = 100_000
"""Rows of a row group. Where groups end would depend on how a table came to memory otherwise."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Everything fitted on training rows: features, vocabularies, labels."""

    users: TableFeatures
    items: TableFeatures
    events: list[str]
    labels: dict[str, Label]
    item_counts: list[int]
    """Training interactions of each item of `items.ids`, in that order."""
    user_counts: list[int]
    """Training interactions of each user of `users.ids`, in that order."""
    rating: tuple[float, float]
    """Mean and standard deviation of the training ratings (0 and 1 where there are none)."""

    def write(self, path: Path) -> None:
        """Write as JSON, complete or not at all."""
        raw = {
            "users": self.users.as_dict(),
            "items": self.items.as_dict(),
            "events": self.events,
            "labels": {name: label.as_dict() for name, label in self.labels.items()},
            "item_counts": self.item_counts,
            "user_counts": self.user_counts,
            "rating": list(self.rating),
        }
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(raw), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Encoding:
        """Inverse of `write`.

        Raises:
            DataError: the file is missing or broken.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                users=TableFeatures.from_dict(raw["users"]),
                items=TableFeatures.from_dict(raw["items"]),
                events=raw["events"],
                labels={name: Label(**label) for name, label in raw["labels"].items()},
                item_counts=raw["item_counts"],
                user_counts=raw["user_counts"],
                rating=(float(raw["rating"][0]), float(raw["rating"][1])),
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a readable encoding ({error})") from error


@dataclass(frozen=True)
class Dataset:
    """Cleaned tables with their parts. R interactions sorted by user and time, U users, N items."""

    users: pl.DataFrame
    items: pl.DataFrame
    interactions: pl.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Dataset:
        """Read a dataset folder.

        Raises:
            DataError: a table is missing or unreadable.
        """
        tables = Tables.read(folder)
        return cls(tables.users, tables.items, tables.interactions)

    @cached_property
    def user(self) -> np.ndarray:
        """(R,) int64 row of `users`."""
        return codes(self.interactions["user_id"], self.users["user_id"].to_list()) - 1

    @cached_property
    def item(self) -> np.ndarray:
        """(R,) int64 row of `items`."""
        return codes(self.interactions["item_id"], self.items["item_id"].to_list()) - 1

    @cached_property
    def rating(self) -> np.ndarray:
        """(R,) float32; NaN where an event carries no rating."""
        return self.interactions["rating"].fill_null(np.nan).to_numpy().astype(np.float32)

    @cached_property
    def time(self) -> np.ndarray:
        """(R,) float64 days since 1970."""
        return self.interactions["timestamp"].dt.timestamp("us").to_numpy() / 86_400e6

    @cached_property
    def part(self) -> np.ndarray:
        """(R,) int8: 0 train, 1 valid, 2 test."""
        return self.interactions["part"].to_numpy()

    def events(self, encoding: Encoding) -> np.ndarray:
        """(R,) int64 event codes, 0 unknown."""
        return codes(self.interactions["event"], encoding.events)

    def user_features(self, encoding: Encoding) -> FeatureArrays:
        """Encoded user features, U rows."""
        return encoding.users.transform(self.users)

    def item_features(self, encoding: Encoding) -> FeatureArrays:
        """Encoded item features, N rows."""
        return encoding.items.transform(self.items)

    def labels(self, name: str, task: Task, encoding: Encoding) -> np.ndarray:
        """Label array of a task over the rows of its label's table (see `labels.label_array`)."""
        if isinstance(task, Binary) and task.positive:
            return self.interactions[f"label_{name}"].to_numpy().astype(np.float32)
        return label_array(task, encoding.labels[name], self.label_column(task))

    def label_column(self, task: Task) -> pl.Series:
        """The raw label column of a task that has one."""
        tables = {"users": self.users, "items": self.items, "interactions": self.interactions}
        return tables[task.label_table][task.label_column]


def prepare(tables: Tables, scenario: Scenario) -> tuple[Dataset, Encoding]:
    """Turn clean tables into a dataset: parts, texts, event labels, and the encoding of the training rows.

    Raises:
        DataError: a part or a label is empty.
        ConfigError: the text template does not fit the items table.
    """
    interactions = tables.interactions.with_columns(split_interactions(tables.interactions, scenario.split))
    interactions = with_event_labels(interactions, scenario)
    items = prepare_items(tables.items, scenario)
    users = prepare_users(tables.users, scenario)
    return Dataset(users, items, interactions), fit_encoding(users, items, interactions.lazy(), scenario)


def prepare_users(users: pl.DataFrame, scenario: Scenario) -> pl.DataFrame:
    """Clean users with their parts."""
    return users.with_columns(split_by_id(users["user_id"], scenario.split))


def prepare_items(items: pl.DataFrame, scenario: Scenario) -> pl.DataFrame:
    """Clean items with their texts and parts.

    Raises:
        ConfigError: the text template does not fit the items table.
    """
    return items.with_columns(
        fill_template(items, scenario.items.text), split_by_id(items["item_id"], scenario.split)
    )


def with_event_labels(interactions: pl.DataFrame, scenario: Scenario) -> pl.DataFrame:
    """Interactions with a column `label_<task>` for every binary task over events.

    Args:
        interactions: all rows of some users, clean, with their parts.
        scenario: declares the tasks.
    """
    for name, task in scenario.tasks.items():
        if isinstance(task, Binary) and task.positive:
            interactions = interactions.with_columns(pl.Series(f"label_{name}", event_label(task, interactions)))
    return interactions


def fit_encoding(
    users: pl.DataFrame, items: pl.DataFrame, interactions: pl.LazyFrame, scenario: Scenario
) -> Encoding:
    """Fit what is fitted on training rows.

    Args:
        users: what `prepare_users` gave.
        items: what `prepare_items` gave.
        interactions: with parts and event labels. Only single columns of them are brought to memory, and those of
            all labels together.
        scenario: declares features and tasks.

    Raises:
        DataError: a label is empty, or a column is missing or of the wrong kind.
    """
    train = interactions.filter(pl.col("part") == TRAIN)
    train_items, item_counts = _met(items, train, "item_id")
    train_users, user_counts = _met(users, train, "user_id")
    rows = {
        "users": train_users.filter(pl.col("part") == TRAIN),
        "items": train_items.filter(pl.col("part") == TRAIN),
        "interactions": _label_rows(train, scenario),
    }
    events = train.select(pl.col("event").unique()).collect(engine="streaming")["event"]
    # How a sum of floats is rounded depends on the chunks that a column is in: make it one.
    ratings = train.select(pl.col("rating").drop_nulls()).collect(engine="streaming")["rating"].rechunk()
    return Encoding(
        users=TableFeatures.fit(train_users, "user_id", scenario.users),
        items=TableFeatures.fit(train_items, "item_id", scenario.items),
        events=scenario.events or sorted(events.to_list()),
        labels=fit_labels(scenario, rows),
        item_counts=item_counts,
        user_counts=user_counts,
        rating=(_number(ratings.mean(), 0.0), _number(ratings.std(), 0.0) or 1.0),
    )


def _met(table: pl.DataFrame, train: pl.LazyFrame, key: str) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a table that training interactions name, and how many name each."""
    counts = train.group_by(key).len("_count").collect(engine="streaming")
    met = table.join(counts, on=key, how="inner", maintain_order="left")
    return met.drop("_count"), met["_count"].to_list()


def _label_rows(train: pl.LazyFrame, scenario: Scenario) -> pl.DataFrame:
    """The columns of training interactions that labels are fitted on; all columns if one is missing."""
    named = {task.label_column for task in scenario.tasks.values() if task.label_table == "interactions"}
    named |= {f"label_{n}" for n, task in scenario.tasks.items() if isinstance(task, Binary) and task.positive}
    there = train.collect_schema().names()
    wanted = [name for name in there if name in named] if named <= set(there) else there
    return train.select(wanted).collect(engine="streaming").rechunk()


def _number(value: Any, default: float) -> float:
    return default if value is None else float(value)


def card_of(
    users: pl.DataFrame, items: pl.DataFrame, interactions: pl.LazyFrame, changed: dict[str, int]
) -> dict[str, Any]:
    """The dataset card: counts of users, items, interactions and of each part, first and last day, and `changed`.

    Args:
        users: of the dataset.
        items: of the dataset.
        interactions: of the dataset.
        changed: counts of what cleaning changed.
    """
    part = interactions.select("part").collect(engine="streaming")["part"]
    counts = np.bincount(part.to_numpy(), minlength=3)
    time = pl.col("timestamp")
    times = interactions.select(first=time.min(), last=time.max()).collect(engine="streaming").row(0, named=True)
    return {
        "num_users": users.height,
        "num_items": items.height,
        "num_interactions": len(part),
        **{f"num_{part}": int(count) for part, count in zip(PARTS, counts, strict=True)},
        **{name: str(value)[:10] for name, value in times.items()},
        **changed,
    }


def write_dataset(folder: Path, dataset: Dataset, encoding: Encoding, card: dict[str, Any]) -> None:
    """Write a dataset folder, complete or not at all."""
    with replacing_folder(folder) as temporary:
        write_interactions(temporary, dataset.interactions.lazy())
        write_others(temporary, dataset.users, dataset.items, encoding, card)


def write_interactions(folder: Path, interactions: pl.LazyFrame) -> None:
    """Write the interactions of a dataset; the same rows give the same bytes."""
    interactions.sink_parquet(folder / "interactions.parquet", row_group_size=_ROW_GROUP)


def write_others(
    folder: Path, users: pl.DataFrame, items: pl.DataFrame, encoding: Encoding, card: dict[str, Any]
) -> None:
    """Write all of a dataset but its interactions."""
    users.write_parquet(folder / "users.parquet", row_group_size=_ROW_GROUP)
    items.write_parquet(folder / "items.parquet", row_group_size=_ROW_GROUP)
    encoding.write(folder / "encoding.json")
    (folder / "card.json").write_text(json.dumps(card, indent=2), encoding="utf-8")
