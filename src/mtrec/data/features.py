"""Feature encodings, fitted on training rows only and stored as JSON beside the model.

A numeric column becomes two numbers: its standardised value (0 where missing) and a missing indicator.
A categorical column becomes an integer; 0 is the slot of everything unknown. A multi-valued column becomes a
padded list of integers; 0 pads and stands for unknown values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mtrec.config import Columns
from mtrec.data.parsing import misfit, parse_number
from mtrec.errors import DataError

MAX_VALUES = 16
"""Values kept per cell of a multi-valued column."""
CLIP = 5.0
"""Standardised numbers are clipped to ± this many standard deviations."""


@dataclass(frozen=True, kw_only=True)
class FeatureArrays:
    """Encoded features of R rows."""

    numeric: np.ndarray
    """(R, 2 · num_numeric) float32: value and missing indicator per column."""
    categorical: np.ndarray
    """(R, num_categorical) int64."""
    multi: np.ndarray
    """(R, num_multi, MAX_VALUES) int64."""
    ids: np.ndarray
    """(R,) int64: 1 + position among the training ids, 0 for an id never seen in training."""


@dataclass(frozen=True, kw_only=True)
class TableFeatures:
    """The fitted encoding of one table."""

    key: str
    ids: list[str]
    numeric: dict[str, tuple[float, float]]
    """column → mean and standard deviation over training rows."""
    categorical: dict[str, list[str]]
    multi: dict[str, list[str]]

    @classmethod
    def fit(cls, table: pl.DataFrame, key: str, columns: Columns) -> TableFeatures:
        """Fit on training rows; the caller passes no others.

        Raises:
            DataError: a column is not there, or holds lists and is no multi-valued one, or is a numeric one of
                which most values are not numbers.
        """
        _check(table, key, columns)
        numeric = {}
        for name in columns.numeric:
            wrong = misfit(table[name], parse_number(table[name]))
            if wrong:
                place = f"{key.removesuffix('_id')}s"
                raise DataError(
                    f"{place}.numeric: column '{name}': {wrong}. Name it under {place}.categorical in the "
                    "scenario, or map the right column in its source."
                )
            values = _numbers(table[name])
            values = values[np.isfinite(values)]
            spread = float(values.std()) if len(values) else 0.0
            numeric[name] = (float(values.mean()) if len(values) else 0.0, spread if spread > 1e-9 else 1.0)
        return cls(
            key=key,
            ids=table[key].to_list(),
            numeric=numeric,
            categorical={name: values_by_count(table[name]) for name in columns.categorical},
            multi={name: values_by_count(table[name]) for name in columns.multi},
        )

    def transform(self, table: pl.DataFrame) -> FeatureArrays:
        """Encode any rows; what training has not seen becomes 0.

        Raises:
            DataError: as `fit`.
        """
        numbers, classes, lists = list(self.numeric), list(self.categorical), list(self.multi)
        _check(table, self.key, Columns(numeric=numbers, categorical=classes, multi=lists))
        rows = table.height
        numeric = np.zeros((rows, 2 * len(self.numeric)), dtype=np.float32)
        for i, (name, (mean, std)) in enumerate(self.numeric.items()):
            values = _numbers(table[name])
            missing = ~np.isfinite(values)
            numeric[:, 2 * i] = np.where(missing, 0, np.clip((values - mean) / std, -CLIP, CLIP))
            numeric[:, 2 * i + 1] = missing
        categorical = np.zeros((rows, len(self.categorical)), dtype=np.int64)
        for i, (name, known) in enumerate(self.categorical.items()):
            categorical[:, i] = codes(table[name], known)
        multi = np.zeros((rows, len(self.multi), MAX_VALUES), dtype=np.int64)
        for i, (name, known) in enumerate(self.multi.items()):
            multi[:, i] = list_codes(table[name], known)
        return FeatureArrays(
            numeric=numeric, categorical=categorical, multi=multi, ids=codes(table[self.key], self.ids)
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "key": self.key,
            "ids": self.ids,
            "numeric": {name: list(pair) for name, pair in self.numeric.items()},
            "categorical": self.categorical,
            "multi": self.multi,
        }

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> TableFeatures:
        """Inverse of `as_dict`."""
        numeric = {name: (float(mean), float(std)) for name, (mean, std) in raw["numeric"].items()}
        return cls(**{**raw, "numeric": numeric})


def values_by_count(column: pl.Series, min_count: int = 1) -> list[str]:
    """Distinct values (of the lists' elements too), most frequent first, ties by name."""
    counts: Counter[str] = Counter()
    for value in column:
        if isinstance(value, (list, pl.Series)):
            counts.update({str(v) for v in value if v is not None})
        elif value is not None:
            counts[str(value)] += 1
    return sorted((v for v in counts if counts[v] >= min_count), key=lambda v: (-counts[v], v))


def codes(column: pl.Series, values: list[str]) -> np.ndarray:
    """Code of each cell: 1 + position in `values`, 0 when unknown or missing. Shape (R,)."""
    keys = pl.DataFrame({"value": values, "code": range(1, len(values) + 1)}, schema_overrides={"value": pl.String})
    if column.dtype != pl.String:  # as `values_by_count` writes them
        column = pl.Series([None if v is None else str(v) for v in column], dtype=pl.String)
    cells = pl.DataFrame({"value": column})
    joined = cells.join(keys, on="value", how="left", maintain_order="left")
    return joined["code"].fill_null(0).cast(pl.Int64).to_numpy(writable=True)


def list_codes(column: pl.Series, values: list[str], width: int = MAX_VALUES) -> np.ndarray:
    """Codes of each cell's values, padded with 0. Shape (R, width)."""
    index = {value: i + 1 for i, value in enumerate(values)}
    out = np.zeros((len(column), width), dtype=np.int64)
    for row, cell in enumerate(column):
        if cell is None:
            continue
        members = cell if isinstance(cell, (list, pl.Series)) else [cell]
        known = [index[str(v)] for v in members if str(v) in index][:width]
        out[row, : len(known)] = known
    return out


def _check(table: pl.DataFrame, key: str, columns: Columns) -> None:
    name_of_table = f"{key.removesuffix('_id')}s"
    for kind in ("numeric", "categorical", "multi"):
        for name in getattr(columns, kind):
            place = f"{name_of_table}.{kind}: column '{name}'"
            if name not in table.columns:
                raise DataError(
                    f"{place} is not in the {name_of_table} table (found: {', '.join(table.columns)}). "
                    "Take it out of the scenario, or map it in its source."
                )
            if kind != "multi" and isinstance(table[name].dtype, pl.List):
                raise DataError(f"{place} holds lists; name it under {name_of_table}.multi instead")


def _numbers(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
