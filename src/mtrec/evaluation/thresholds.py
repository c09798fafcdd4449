"""From which probability each label of a multi-label task is given: the best by F1 on the validation part.

This is SCut of Yang 2001 (doi:10.1145/383952.383975) with another way out for rare labels, whose own threshold
would follow chance: a label that fewer than `MIN_CARRIERS` validation rows carry takes the threshold that is best
for the decisions of all labels together.

Shapes: X examples, V labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from mtrec.config import MultiLabel
from mtrec.evaluation.predict import Predictions
from mtrec.models.recommender import Recommender

MIN_CARRIERS = 5
"""Validation rows that a label needs for a threshold of its own."""


def choose_thresholds(model: Recommender, rows: Mapping[str, Predictions]) -> dict[str, list[float]]:
    """Choose and set the thresholds of every task in `rows` that asks for its own.

    Args:
        model: its heads get the thresholds.
        rows: what the model says on the validation part, its temperatures set.

    Returns:
        The thresholds by task, in the order of the labels.
    """
    found = {}
    for name, given in rows.items():
        head = model.head(name)
        wanted = isinstance(head.task, MultiLabel) and head.task.thresholds == "per_label"
        if wanted and head.thresholds is not None and len(given.target):
            chosen = per_label(given.target, given.predicted)
            head.thresholds.copy_(torch.from_numpy(chosen))
            found[name] = chosen.tolist()
    return found


def per_label(target_XV: np.ndarray, probability_XV: np.ndarray) -> np.ndarray:
    """The threshold of each label, (V,)."""
    common = best_threshold(target_XV.ravel(), probability_XV.ravel())
    return np.array(
        [
            best_threshold(target, probability) if (target > 0).sum() >= MIN_CARRIERS else common
            for target, probability in zip(target_XV.T, probability_XV.T, strict=True)
        ]
    )


def best_threshold(target_X: np.ndarray, probability_X: np.ndarray) -> float:
    """The threshold with the highest F1, halfway between two probabilities; one half where nothing is a yes.

    Of several the highest one is taken.
    """
    if not (target_X > 0).any():
        return 0.5
    order = np.argsort(-probability_X, kind="stable")
    sorted_X = probability_X[order].astype(np.float64)
    hits_X = np.cumsum(target_X[order] > 0)
    f1_X = 2 * hits_X / (np.arange(1, len(order) + 1) + hits_X[-1])
    last_of_ties = np.r_[sorted_X[1:] < sorted_X[:-1], True]
    best = int(np.where(last_of_ties, f1_X, -1).argmax())
    below = sorted_X[best + 1] if best + 1 < len(order) else 0.0
    return float((sorted_X[best] + below) / 2)
