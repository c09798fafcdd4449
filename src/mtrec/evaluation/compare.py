"""Comparison of two models on the same rows, with paired bootstrap intervals.

Examples of one user resemble each other, so whole users are drawn, not rows: a cluster bootstrap (Field & Welsh,
Bootstrapping clustered data, JRSS B 69(3), 2007, 369–390). Drawing rows would take a hundred ratings of one user
for a hundred witnesses and make the interval too narrow. Every metric takes all `RESAMPLES` draws, save that AUC
leaves out those with one class alone: they measure nothing, and counted as no difference they would hide a loss.

Shapes: X examples, G groups (users, or items where a task is about items), P and Q examples of yes and of no.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtrec.config import Binary, Classification, MultiLabel, Profile, Regression, Task
from mtrec.evaluation.metrics import cosine, higher_is_better, label_ranking_precision, measured_rows

RESAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference of a metric, candidate minus champion, with its interval."""

    metric: str
    difference: float
    low: float
    high: float
    confidence: float
    groups: int
    """How many users, items or single examples the resamples drew from."""

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

    Args:
        task: not binary and not next-item ranking.
        target: of `measured_rows` alone.
        predicted: of the same rows.

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


def compare(
    task: Task,
    metric: str,
    target: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    confidence: float,
    *,
    groups_X: np.ndarray | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare two predictions of the same examples on the task's primary metric.

    Args:
        task: not next-item ranking; compare the per-user values of that with `compare_values`.
        metric: name of the primary metric.
        target: (X,) or (X, V); at least one of `measured_rows`. Of a yes-no task with one class alone every number
            is NaN.
        candidate: predictions of the candidate, like `target`.
        champion: predictions of the champion, like `target`.
        confidence: level of the interval, e.g. 0.95.
        groups_X: whom each example belongs to; None takes every example for itself.
        seed: of the resampling.
    """
    groups_X = np.arange(len(target)) if groups_X is None else groups_X
    if isinstance(task, Binary):
        return _compare_auc(metric, target, candidate, champion, confidence, groups_X, seed)
    rows = measured_rows(task, target)
    return compare_values(
        metric,
        example_values(task, target[rows], candidate[rows]),
        example_values(task, target[rows], champion[rows]),
        confidence,
        groups_X=groups_X[rows],
        seed=seed,
        root=isinstance(task, Regression),
    )


def compare_values(
    metric: str,
    candidate_X: np.ndarray,
    champion_X: np.ndarray,
    confidence: float,
    *,
    groups_X: np.ndarray | None = None,
    seed: int = 0,
    root: bool = False,
) -> Comparison:
    """Percentile bootstrap of the difference of means (Efron & Tibshirani 1993), whole groups drawn, in pairs.

    Args:
        metric: name of the metric.
        candidate_X: one value per example.
        champion_X: one value per example, in the same order.
        confidence: level of the interval. With few groups (a dozen) it is narrower than it says.
        groups_X: whom each example belongs to; None takes every example for itself.
        seed: of the resampling.
        root: take the square root of each mean, which makes squared errors an RMSE.
    """
    groups_X = np.arange(len(candidate_X)) if groups_X is None else groups_X
    group_X, num_groups = _numbered(groups_X)
    columns = (candidate_X, champion_X, np.ones(len(group_X)))
    sums_3G = np.stack([np.bincount(group_X, values, num_groups) for values in columns])
    drawn = np.array([sums_3G @ weight_G for weight_G in _draws(num_groups, seed)]).T
    means, whole = drawn[:2] / drawn[2], np.array([candidate_X.mean(), champion_X.mean()])
    if root:
        means, whole = np.sqrt(means), np.sqrt(whole)
    return _interval(metric, float(whole[0] - whole[1]), means[0] - means[1], confidence, num_groups)


def _compare_auc(
    metric: str,
    target: np.ndarray,
    candidate: np.ndarray,
    champion: np.ndarray,
    confidence: float,
    groups_X: np.ndarray,
    seed: int,
) -> Comparison:
    group_X, num_groups = _numbered(groups_X)
    ours, theirs = (weighted_auc(target, scores, group_X) for scores in (candidate, champion))
    draws = np.array([ours(weight_G) - theirs(weight_G) for weight_G in _draws(num_groups, seed)])
    return _interval(metric, auc(target, candidate) - auc(target, champion), draws, confidence, num_groups)


def _numbered(groups_X: np.ndarray) -> tuple[np.ndarray, int]:
    """Groups as numbers from 0, and how many there are."""
    found, group_X = np.unique(groups_X, return_inverse=True)
    return group_X, len(found)


def _draws(num_groups: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is drawn when as many are drawn with replacement as there are: `RESAMPLES` × (G,)."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        drawn = rng.integers(0, num_groups, num_groups)
        yield np.bincount(drawn, minlength=num_groups).astype(float)


def auc(target_X: np.ndarray, score_X: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann & Whitney 1947); NaN when only one class occurs."""
    from scipy.stats import rankdata

    yes = target_X > 0.5
    positives, negatives = int(yes.sum()), int((~yes).sum())
    if not positives or not negatives:
        return math.nan
    ranks = rankdata(score_X)
    return float((ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def weighted_auc(target_X: np.ndarray, score_X: np.ndarray, group_X: np.ndarray) -> Callable[[np.ndarray], float]:
    """AUC as a function of the groups' weights: the share of yes-no pairs in order, each counted by both weights.

    The scores are sorted once, so that a set of weights costs one pass over the examples.

    Args:
        target_X: yes or no.
        score_X: higher means yes; equal scores count half.
        group_X: number of each example's group.

    Returns:
        A function from weights (G,) to the AUC, NaN where they leave only one class.
    """
    yes = target_X > 0.5
    order = np.argsort(score_X[~yes])
    no_Q, no_group_Q = score_X[~yes][order], group_X[~yes][order]
    order = np.argsort(score_X[yes])  # neighbours in score read neighbouring sums
    yes_P, yes_group_P = score_X[yes][order], group_X[yes][order]
    below_P = np.searchsorted(no_Q, yes_P, side="left")
    not_above_P = np.searchsorted(no_Q, yes_P, side="right")
    sums = np.zeros(len(no_Q) + 1)

    def measure(weight_G: np.ndarray) -> float:
        np.cumsum(weight_G[no_group_Q], out=sums[1:])
        weight_P = weight_G[yes_group_P]
        pairs = float(weight_P.sum() * sums[-1])
        return float(weight_P @ (sums[below_P] + sums[not_above_P])) / (2 * pairs) if pairs else math.nan

    return measure


def _interval(metric: str, difference: float, draws: np.ndarray, confidence: float, groups: int) -> Comparison:
    """The interval over the draws that measure something; NaN without any."""
    tail, known = (1 - confidence) / 2, draws[~np.isnan(draws)]
    low, high = (float(end) for end in np.quantile(known, [tail, 1 - tail])) if len(known) else (math.nan, math.nan)
    return Comparison(
        metric=metric, difference=difference, low=low, high=high, confidence=confidence, groups=groups
    )
