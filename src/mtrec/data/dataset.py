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
from mtrec.data.splits import TRAIN, split_by_id, split_interactions
from mtrec.data.text import fill_template
from mtrec.errors import DataError


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
    part = split_interactions(tables.interactions, scenario.split)
    interactions = tables.interactions.with_columns(part)
    for name, task in scenario.tasks.items():
        if isinstance(task, Binary) and task.positive:
            interactions = interactions.with_columns(pl.Series(f"label_{name}", event_label(task, interactions)))
    items = tables.items.with_columns(
        fill_template(tables.items, scenario.items.text), split_by_id(tables.items["item_id"], scenario.split)
    )
    users = tables.users.with_columns(split_by_id(tables.users["user_id"], scenario.split))
    train = interactions.filter(pl.col("part") == TRAIN)
    train_items, item_counts = _met(items, train, "item_id")
    train_users, user_counts = _met(users, train, "user_id")
    rows = {
        "users": train_users.filter(pl.col("part") == TRAIN),
        "items": train_items.filter(pl.col("part") == TRAIN),
        "interactions": train,
    }
    ratings = train["rating"].drop_nulls()
    encoding = Encoding(
        users=TableFeatures.fit(train_users, "user_id", scenario.users),
        items=TableFeatures.fit(train_items, "item_id", scenario.items),
        events=scenario.events or sorted(train["event"].unique().to_list()),
        labels=fit_labels(scenario, rows),
        item_counts=item_counts,
        user_counts=user_counts,
        rating=(_number(ratings.mean(), 0.0), _number(ratings.std(), 0.0) or 1.0),
    )
    return Dataset(users, items, interactions), encoding


def _met(table: pl.DataFrame, train: pl.DataFrame, key: str) -> tuple[pl.DataFrame, list[int]]:
    """The rows of a table that training interactions name, and how many name each."""
    counts = train.group_by(key).len("_count")
    met = table.join(counts, on=key, how="inner", maintain_order="left")
    return met.drop("_count"), met["_count"].to_list()


def _number(value: Any, default: float) -> float:
    return default if value is None else float(value)


def write_dataset(folder: Path, dataset: Dataset, encoding: Encoding, card: dict[str, Any]) -> None:
    """Write a dataset folder, complete or not at all."""
    with replacing_folder(folder) as temporary:
        dataset.users.write_parquet(temporary / "users.parquet")
        dataset.items.write_parquet(temporary / "items.parquet")
        dataset.interactions.write_parquet(temporary / "interactions.parquet")
        encoding.write(temporary / "encoding.json")
        (temporary / "card.json").write_text(json.dumps(card, indent=2), encoding="utf-8")
