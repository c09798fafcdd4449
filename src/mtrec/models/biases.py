"""Where a pair task starts: a bias of every user and every item, in closed form.

A model that only adds two biases to the mean is the strongest simple one for ratings (Koren 2010,
doi:10.1145/1644873.1644874, section 2.1). Gradient steps need many visits to find what a sum and a count tell at
once, so training begins there.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 10
CLIP = 0.1
"""A yes/no bias moves a probability by no more than 1 − CLIP of its way to 0 or 1, however few rows it rests on."""


def fit_biases(
    groups: tuple[np.ndarray, np.ndarray], residual_X: np.ndarray, sizes: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Fit residual ≈ b_user + b_item by alternating shrunken means.

    A group's mean over n rows is shrunk by n / (n + λ), with λ = variance within groups / variance between groups,
    estimated from the rows themselves (`shrinkage`).

    Args:
        groups: user slots and item slots of X rows; slot 0 is the unknown.
        residual_X: label minus its mean.
        sizes: number of user slots and of item slots.

    Returns:
        Biases by slot; 0 in slot 0 and wherever there is no row.
    """
    weights = [shrinkage(g, residual_X, size) for g, size in zip(groups, sizes, strict=True)]
    counts = [np.bincount(g, minlength=size) for g, size in zip(groups, sizes, strict=True)]
    biases = [np.zeros(size) for size in sizes]
    for _ in range(ROUNDS):
        for mine, other in ((1, 0), (0, 1)):
            left_X = residual_X - biases[other][groups[other]]
            total = np.bincount(groups[mine], left_X, sizes[mine])
            seen = counts[mine] > 0
            biases[mine] = np.divide(total, counts[mine] + weights[mine], where=seen, out=np.zeros(sizes[mine]))
            biases[mine][0] = 0.0
    return biases[0], biases[1]


def shrinkage(group_X: np.ndarray, value_X: np.ndarray, size: int) -> float:
    """λ = σ²_within / σ²_between by the method of moments for one random factor; ∞ where groups do not differ.

    Searle, Casella & McCulloch 1992, "Variance Components", doi:10.1002/9780470316856, section 3.6.

    Args:
        group_X: group of each row.
        value_X: value of each row.
        size: number of groups, used or not.
    """
    counts = np.bincount(group_X, minlength=size)
    used = counts > 0
    num_rows, num_groups = len(value_X), int(used.sum())
    if num_groups < 2 or num_rows <= num_groups:
        return float("inf")
    means = np.bincount(group_X, value_X, size)[used] / counts[used]
    between = (counts[used] * (means - value_X.mean()) ** 2).sum()
    within = ((value_X**2).sum() - (counts[used] * means**2).sum()) / (num_rows - num_groups)
    effective = num_rows - (counts[used] ** 2).sum() / num_rows
    variance = (between - (num_groups - 1) * within) / effective
    return float(max(within, 1e-12) / variance) if variance > 0 else float("inf")


def as_log_odds(bias: np.ndarray, share: float) -> np.ndarray:
    """A bias of a yes/no label's probability as a change of its log-odds.

    Args:
        bias: differences from the base rate.
        share: the base rate, in (0, 1).
    """
    share = min(max(share, 1e-4), 1 - 1e-4)
    probability = np.clip(share + bias, CLIP * share, 1 - CLIP * (1 - share))
    change: np.ndarray = np.log(probability / (1 - probability)) - np.log(share / (1 - share))
    return change
