"""Comparison of two models on the same rows, with paired bootstrap intervals.

Shapes: X examples, S resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtrec.config import Binary, Classification, MultiLabel, Profile, Regression, Task
from mtrec.evaluation.metrics import cosine, higher_is_better

RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference of a metric, candidate minus champion, with its interval."""

    metric: str
    difference: float
    low: float
    high: float
    confidence: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` when the whole interval lies on one side of zero, else `same`; NaN is `worse`."""
        if math.isnan(self.difference):
            return "worse"
        if self.low <= 0 <= self.high:
            return "same"
        return "better" if (self.low > 0) == higher_is_better(self.metric) else "worse"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "verdict": self.verdict}


def example_values(task: Task, target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """One value per example whose mean gives the primary metric (for regression its square), (X,).

    Raises:
        TypeError: the primary metric is no mean over examples (binary: AUC).
    """
    if isinstance(task, Regression):
        return (predicted - target) ** 2
    if isinstance(task, Classification):
        return (predicted.argmax(1) == target).astype(float)
    if isinstance(task, MultiLabel):
        return label_ranking_precision(target, predicted)
    if isinstance(task, Profile):
        return cosine(target, predicted)
    raise TypeError(f"{task.type}: the primary metric is no mean over examples")


def label_ranking_precision(target_XV: np.ndarray, score_XV: np.ndarray) -> np.ndarray:
    """Label-ranking average precision of each row, as scikit-learn defines it; 1 for rows without labels."""
    return np.array([_row_precision(t > 0, s) for t, s in zip(target_XV, score_XV, strict=True)])


def _row_precision(true_V: np.ndarray, score_V: np.ndarray) -> float:
    if not true_V.any() or true_V.all():
        return 1.0
    at_least = score_V[None, :] >= score_V[true_V][:, None]
    return float((at_least[:, true_V].sum(1) / at_least.sum(1)).mean())


def compare(
    task: Task,
    metric: str,
    target: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    confidence: float,
    seed: int = 0,
) -> Comparison:
    """Compare two predictions of the same examples on the task's primary metric.

    Args:
        task: not next-item ranking; compare the per-user values of that with `compare_values`.
        metric: name of the primary metric.
        target: (X,) or (X, V).
        candidate: predictions of the candidate, like `target`.
        champion: predictions of the champion, like `target`.
        confidence: level of the interval, e.g. 0.95.
        seed: of the resampling.
    """
    if isinstance(task, Binary):
        return _compare_auc(metric, target, candidate, champion, confidence, seed)
    return compare_values(
        metric,
        example_values(task, target, candidate),
        example_values(task, target, champion),
        confidence,
        seed,
        root=isinstance(task, Regression),
    )


def compare_values(
    metric: str,
    candidate_X: np.ndarray,
    champion_X: np.ndarray,
    confidence: float,
    seed: int = 0,
    *,
    root: bool = False,
) -> Comparison:
    """Percentile bootstrap of the difference of means (Efron & Tibshirani 1993), examples drawn in pairs.

    Args:
        metric: name of the metric.
        candidate_X: one value per example.
        champion_X: one value per example, in the same order.
        confidence: level of the interval.
        seed: of the resampling.
        root: take the square root of each mean, which makes squared errors an RMSE.
    """
    rng = np.random.default_rng(seed)
    means = np.empty((2, RESAMPLES))
    pairs = np.stack([candidate_X, champion_X])
    for s in range(RESAMPLES):
        means[:, s] = pairs[:, rng.integers(0, len(candidate_X), len(candidate_X))].mean(1)
    whole = pairs.mean(1)
    if root:
        means, whole = np.sqrt(means), np.sqrt(whole)
    return _interval(metric, float(whole[0] - whole[1]), means[0] - means[1], confidence)


def _compare_auc(
    metric: str, target: np.ndarray, candidate: np.ndarray, champion: np.ndarray, confidence: float, seed: int
) -> Comparison:
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(target), len(target)) for _ in range(RESAMPLES // 5)]
    differences = np.array([auc(target[i], candidate[i]) - auc(target[i], champion[i]) for i in drawn])
    return _interval(metric, auc(target, candidate) - auc(target, champion), differences, confidence)


def auc(target_X: np.ndarray, score_X: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann & Whitney 1947); one half when only one class occurs."""
    from scipy.stats import rankdata

    yes = target_X > 0.5
    positives, negatives = int(yes.sum()), int((~yes).sum())
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(score_X)
    return float((ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _interval(metric: str, difference: float, draws: np.ndarray, confidence: float) -> Comparison:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Comparison(metric=metric, difference=difference, low=float(low), high=float(high), confidence=confidence)
