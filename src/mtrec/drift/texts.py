"""Texts as a column of categories: each item's text falls to the nearest of a few centres of the reference's texts.

The centres come from k-means over the encoder's vectors (Lloyd 1982, doi:10.1109/TIT.1982.1056489), of unit length,
so that near means alike in direction. A text that is farther from its centre than nearly every text of the
reference is unlike them all and has a category of its own. The distance, chance and limits are those of any column.

Shapes: N items, E width of a vector, R rows, C centres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from mtrec.drift.statistics import Column

CENTRES = 20
UNLIKE = "unlike the texts so far"
_FAR = 0.99
"""Share of the reference's interactions whose texts lie nearer than what counts as unlike."""


def text_column(
    text_NE: np.ndarray, titles: Sequence[str], item_R: np.ndarray, reference_R: np.ndarray, *, seed: int = 0
) -> Column:
    """Say for every interaction what kind of text its item has.

    Args:
        text_NE: vectors of all items' texts.
        titles: names of the items, for people.
        item_R: row in `text_NE` of each interaction's item.
        reference_R: which interactions are the reference; at least one.
        seed: of the centres.
    """
    from sklearn.cluster import KMeans

    unit_NE = text_NE / np.maximum(np.linalg.norm(text_NE, axis=1, keepdims=True), 1e-12)
    weight_N = np.bincount(item_R[reference_R], minlength=len(unit_NE))
    known = np.flatnonzero(weight_N)
    count = min(CENTRES, len(np.unique(unit_NE[known], axis=0)))
    found = KMeans(count, n_init=3, random_state=seed).fit(unit_NE[known], sample_weight=weight_N[known])
    away_NC = found.transform(unit_NE)
    nearest_N, away_N = away_NC.argmin(1), away_NC.min(1)
    ordered = known[np.argsort(away_N[known])]
    reached = np.cumsum(weight_N[ordered]) / weight_N.sum()
    far = away_N[ordered[min(int(np.searchsorted(reached, _FAR)), len(ordered) - 1)]]
    middle = [known[int(np.argmin(away_NC[known, c]))] for c in range(count)]
    names = [f"{c + 1}, like '{titles[n]}'" for c, n in enumerate(middle)]
    kinds_N = np.where(away_N > far + 1e-6, UNLIKE, np.array(names)[nearest_N])
    return Column(values=pl.Series("text", kinds_N[item_R]), kind="category")
