"""Labels: what each task predicts, fitted on training rows and stored beside the model.

A label is a number (regression), yes or no (binary), or a vocabulary of values (classification, multi-label,
profile). `Label` keeps what a head needs to start from the training prior, and turns a column into an array.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from mtrec.config import Binary, Classification, MultiLabel, NextItem, Profile, Regression, Scenario, Task
from mtrec.data.features import values_by_count
from mtrec.errors import DataError

MAX_CLASSES = 1_000


@dataclass(frozen=True, kw_only=True)
class Label:
    """One task's fitted label."""

    values: list[str]
    """Vocabulary, most frequent first; empty for numbers, yes/no and next item."""
    prior: list[float]
    """Regression: [mean]. Binary: [share of yes]. Otherwise the share of rows that carry each value."""
    scale: float = 1.0
    """Regression: standard deviation over training rows."""
    limits: list[float] | None = None
    """Regression: smallest and largest training value; predictions are clipped to them."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def label_array(task: Task, label: Label, column: pl.Series) -> np.ndarray:
    """Turn a label column of R rows into an array; NaN marks a missing label.

    Returns:
        (R,) float32 for regression, binary and classification (the class number);
        (R, V) float32 of zeros and ones for multi-label and profile.
    """
    if isinstance(task, Regression):
        return column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float32)
    if isinstance(task, Binary):
        return _yes_no(task, column)
    index = {value: i for i, value in enumerate(label.values)}
    if isinstance(task, Classification):
        numbers = [index.get(str(v), np.nan) if v is not None else np.nan for v in column]
        return np.array(numbers, dtype=np.float32)
    many = np.zeros((len(column), len(index)), dtype=np.float32)
    for row, cell in enumerate(column):
        if cell is None:
            many[row] = np.nan
            continue
        for value in cell if isinstance(cell, (list, pl.Series)) else [cell]:
            if str(value) in index:
                many[row, index[str(value)]] = 1
    return many


def _yes_no(task: Binary, column: pl.Series) -> np.ndarray:
    if column.dtype == pl.String:
        raise DataError(f"label '{task.label}' of a binary task must be a number or true/false, found text")
    values = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    threshold = 0.5 if task.threshold is None else task.threshold
    return np.where(np.isnan(values), np.nan, values >= threshold).astype(np.float32)


def event_label(task: Binary, interactions: pl.DataFrame) -> np.ndarray:
    """Yes or no per exposure row: did the same user later take a positive event on it, in the same part?

    An outcome beyond the end of the part counts as no: at training time it was not there to be seen, and a label
    that knew it would carry a later part into training. Exposures near the end of a part have little time to lead
    to something, so the share of yes is a little low, and lower in a short part.

    Args:
        task: a binary task with `exposure` and `positive` events.
        interactions: R rows with `user_id`, `item_id`, `event`, `part`, sorted by user and time.

    Returns:
        (R,) float32; NaN on rows that are no exposure.
    """
    positive_row = pl.when(pl.col("event").is_in(task.positive)).then(pl.col("_row"))
    positive = (positive_row.max().over("user_id", "item_id", "part") > pl.col("_row")).fill_null(False)
    exposed = pl.col("event").is_in(task.exposure)
    label = pl.when(exposed).then(positive.cast(pl.Float32)).otherwise(float("nan"))
    return interactions.with_row_index("_row").select(label.cast(pl.Float32).alias("label"))["label"].to_numpy()


def fit_labels(scenario: Scenario, rows: dict[str, pl.DataFrame]) -> dict[str, Label]:
    """Fit every task's label on training rows.

    Args:
        scenario: declares the tasks.
        rows: training rows of `users`, `items` and `interactions`; the last with a column `label_<task>` for
            every binary task over events.

    Raises:
        DataError: a label column is absent or holds no usable value.
    """
    return {name: _fit(name, task, rows) for name, task in scenario.tasks.items()}


def _fit(name: str, task: Task, rows: dict[str, pl.DataFrame]) -> Label:
    if isinstance(task, NextItem):
        return Label(values=[], prior=[])
    column = label_column(name, task, rows)
    values: list[str] = []
    if isinstance(task, (Classification, MultiLabel, Profile)):
        values = values_by_count(column, task.min_count if isinstance(task, MultiLabel) else 1)
        if len(values) < 2 or len(values) > MAX_CLASSES:
            raise DataError(
                f"tasks.{name}: label '{task.label}' has {len(values)} distinct values in the training rows; "
                f"a {task.type} task needs 2 to {MAX_CLASSES}"
            )
    array = label_array(task, Label(values=values, prior=[]), column)
    known = array[~np.isnan(array).reshape(len(array), -1).any(axis=1)]
    if len(known) == 0:
        raise DataError(f"tasks.{name}: no training row has a usable label ('{task.label or 'events'}')")
    if isinstance(task, Binary):
        return Label(values=[], prior=[float(known.mean())])
    if isinstance(task, Regression):
        limits = [float(known.min()), float(known.max())]
        return Label(values=[], prior=[float(known.mean())], scale=max(float(known.std()), 1e-6), limits=limits)
    if isinstance(task, Classification):
        shares = np.bincount(known.astype(int), minlength=len(values)) / len(known)
        return Label(values=values, prior=shares.tolist())
    return Label(values=values, prior=known.mean(axis=0).tolist())


def label_column(name: str, task: Task, rows: dict[str, pl.DataFrame]) -> pl.Series:
    """The raw label column of a task.

    Raises:
        DataError: the table has no such column.
    """
    if isinstance(task, Binary) and task.positive:
        return rows["interactions"][f"label_{name}"]
    table = rows[task.label_table]
    if task.label_column not in table.columns:
        raise DataError(
            f"tasks.{name}: label column '{task.label}' is missing (found: {', '.join(table.columns)}). "
            "Correct tasks in the scenario or map the column in its source."
        )
    return table[task.label_column]
