"""How far a window's distribution is from the reference, and whether chance explains it.

The distance is Jensen and Shannon's (Lin 1991, doi:10.1109/18.61115; a metric by Endres & Schindelin 2003,
doi:10.1109/TIT.2003.813506), to base 2: 0 for equal distributions, 1 for those that share no bin. It needs no
overlap, treats numbers and categories alike, and does not grow with the number of rows, so that one threshold says
how much movement matters.

A small window is some distance away by chance alone. How far follows from the reference itself: windows of as many
visitors are drawn from it and compared with the rest. What one user does in one window's time is drawn together,
since interactions of a user resemble each other; drawing rows would call every window drifted. The tail of the
drawn distances is that of a gamma distribution with their moments (on the squares, which are about χ² mixtures;
Box 1954, doi:10.1214/aoms/1177728786), so that a few hundred draws give small probabilities too.

Shapes: R rows, K blocks, B bins, D draws, S statistics.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse, stats

DRAWS = 200


def js_distance(p_DB: np.ndarray, q_DB: np.ndarray) -> np.ndarray:
    """Jensen–Shannon distances of D pairs of histograms, (D,), in [0, 1]; an empty histogram is at distance 0.

    Args:
        p_DB: counts or shares, none negative.
        q_DB: the same shape.
    """
    p_DB, q_DB = (x / np.maximum(x.sum(-1, keepdims=True), 1e-300) for x in (p_DB, q_DB))
    middle = (p_DB + q_DB) / 2
    both = (p_DB.sum(-1) > 0) & (q_DB.sum(-1) > 0)
    divergence = (_relative(p_DB, middle) + _relative(q_DB, middle)) / 2
    return np.where(both, np.sqrt(np.clip(divergence, 0, 1)), 0.0)


def _relative(p_DB: np.ndarray, q_DB: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(p_DB > 0, p_DB * np.log2(p_DB / q_DB), 0.0).sum(-1)


def block_sums(shares_RB: sparse.csr_matrix, block_R: np.ndarray, num_blocks: int) -> sparse.csr_matrix:
    """Histograms of blocks of rows, (K, B)."""
    rows = np.arange(len(block_R))
    which = sparse.csr_matrix((np.ones(len(rows)), (block_R, rows)), shape=(num_blocks, len(rows)))
    return (which @ shares_RB).tocsr()


def chance_distances(
    reference_KB: sparse.csr_matrix, window_blocks: int, *, seed: int = 0, draws: int = DRAWS
) -> np.ndarray:
    """Distances of windows that are drawn from the reference, to the rest of it, (D,).

    Args:
        reference_KB: histograms of the reference's blocks.
        window_blocks: how many blocks a window has; of a short reference at most half of it is drawn.
        seed: of the draws.
        draws: D.
    """
    rng = np.random.default_rng(seed)
    num_blocks = reference_KB.shape[0]
    size = max(min(window_blocks, num_blocks // 2), 1)
    chosen = np.concatenate([rng.choice(num_blocks, size, replace=False, shuffle=False) for _ in range(draws)])
    rows = np.repeat(np.arange(draws), size)
    chosen_DK = sparse.csr_matrix((np.ones(len(rows)), (rows, chosen)), shape=(draws, num_blocks))
    windows_DB = (chosen_DK @ reference_KB).toarray()
    return js_distance(windows_DB, np.asarray(reference_KB.sum(0)) - windows_DB)


def tail_probability(distance: float, chance_D: np.ndarray) -> float:
    """How often chance gives a distance as large."""
    squares = chance_D**2
    mean, variance = float(squares.mean()), float(squares.var(ddof=1))
    if mean <= 0 or variance <= 0:
        return 1.0 if distance <= float(chance_D.max(initial=0.0)) else 0.0
    return float(stats.gamma.sf(distance**2, a=mean**2 / variance, scale=variance / mean))


def holm(probabilities: dict[str, float], alpha: float) -> dict[str, bool]:
    """Which of S statistics are beyond chance, such that one false alarm among them has at most probability α.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    found = dict.fromkeys(probabilities, False)
    for rank, name in enumerate(sorted(probabilities, key=lambda n: (probabilities[n], n))):
        if probabilities[name] > alpha / (len(probabilities) - rank):
            break
        found[name] = True
    return found
