"""Columns of any kind as shares of bins, so that one measure compares them all.

A number falls between the deciles of the reference, a category into a bin of its own, a cell of several values into
equal shares of theirs. Empty cells and values that the reference hardly knows have a bin each: a column that runs
empty or fills with new values has drifted, too.

Shapes: R rows, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl
from scipy import sparse

Kind = Literal["number", "category", "values"]
MAX_CATEGORIES = 50
"""Bins of a column of categories; rarer ones share a bin."""
QUANTILES = 10
"""Bins of a column of numbers; columns of few distinct numbers have one per number."""


@dataclass(frozen=True, kw_only=True)
class Binning:
    """Bins of one column, fitted to the reference. Bin 0: no value; bin 1: a value of no other bin."""

    kind: Kind
    edges: list[float]
    """Upper edges of a number's bins, the last one left out."""
    categories: list[str]

    @classmethod
    def fit(cls, reference: pl.Series, kind: Kind) -> Binning:
        """Find the bins of a column.

        Args:
            reference: values of the reference.
            kind: what they are.
        """
        if kind == "number":
            numbers = reference.cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy()
            edges = np.unique(numbers)[:-1]
            if len(edges) >= QUANTILES:
                edges = np.unique(np.quantile(numbers, np.linspace(0, 1, QUANTILES + 1)[1:-1]))
            return cls(kind=kind, edges=edges.tolist(), categories=[])
        values = (reference.explode() if kind == "values" else reference).alias("value")
        counts = values.cast(pl.String).drop_nulls().value_counts(name="n")
        names = counts.sort("n", "value", descending=[True, False])["value"].to_list()
        return cls(kind=kind, edges=[], categories=names[:MAX_CATEGORIES])

    @property
    def num_bins(self) -> int:
        """B."""
        return 2 + (len(self.edges) + 1 if self.kind == "number" else len(self.categories))

    def names(self) -> list[str]:
        """What each bin holds, for people."""
        if self.kind != "number":
            return ["(empty)", "(other)", *self.categories]
        if not self.edges:
            return ["(empty)", "(other)", "any"]
        shown = [f"{edge:.4g}" for edge in self.edges]
        between = [f"{low} to {high}" for low, high in pairwise(shown)]
        return ["(empty)", "(other)", f"up to {shown[0]}", *between, f"over {shown[-1]}"]

    def shares(self, column: pl.Series) -> sparse.csr_matrix:
        """Each row's share of each bin, (R, B); a row sums to 1."""
        if self.kind == "values":
            cells = [cell or [None] for cell in column.cast(pl.List(pl.String)).to_list()]
            num_R = np.array([len(cell) for cell in cells])
            row_V = np.repeat(np.arange(len(cells)), num_R)
            bins = self._categories(pl.Series([v for cell in cells for v in cell], dtype=pl.String))
            return _matrix(row_V, bins, 1 / num_R[row_V], (len(cells), self.num_bins))
        if self.kind == "category":
            bins = self._categories(column.cast(pl.String))
        else:
            numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            bins = np.where(np.isnan(numbers), 0, 2 + np.searchsorted(self.edges, numbers, side="left"))
        return _matrix(np.arange(len(bins)), bins, np.ones(len(bins)), (len(bins), self.num_bins))

    def _categories(self, values: pl.Series) -> np.ndarray:
        place = {name: 2 + i for i, name in enumerate(self.categories)}
        return np.array([0 if v is None else place.get(v, 1) for v in values.to_list()], dtype=np.int64)


def _matrix(rows: np.ndarray, bins: np.ndarray, weights: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((weights, (rows, bins)), shape=shape)
