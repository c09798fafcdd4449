"""Ranking baselines and their measure: popularity and item-kNN under full ranking.

Both stay hard to beat when they are tuned (Ferrari Dacrema et al. 2019, arXiv:1907.06902). Ranking is full:
every item of the catalogue that the user has not seen competes, and tied items share the mean of their ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from benchmarks.ratings import Ratings
from mtrec.models.neighbours import top_similar


class Scorer(Protocol):
    """Scores the whole catalogue for users."""

    def scores(self, users: np.ndarray) -> np.ndarray:
        """Score all items for B users: [B] codes to [B, num_items]."""


class RankingModel(Scorer, Protocol):
    """Learns to."""

    def fit(self, train: Ratings) -> Any:
        """Learn from N rows; each user's rows are in order of time. The rating values are not used."""


class Popularity:
    """The number of users who took an item: the same list for everybody."""

    def fit(self, train: Ratings) -> Popularity:
        """Count the rows of each item."""
        self._counts = np.bincount(train.items, minlength=train.num_items).astype(np.float32)
        return self

    def scores(self, users: np.ndarray) -> np.ndarray:
        """[B, num_items] counts."""
        return np.broadcast_to(self._counts, (len(users), len(self._counts)))


class ItemKnn:
    """Item-based nearest neighbours over users' co-occurrence.

    Sarwar et al. 2001, doi:10.1145/371920.372071, with the shrunk cosine of Ferrari Dacrema et al. 2019:
    s(i, j) = c(i, j) / (√(n(i) · n(j)) + shrink), where c counts the users of both items and n the users of
    one. Of each item only the `neighbours` most similar others are kept (ties: lower code first). A user's
    score for item j is the sum of s(i, j) over the items i of the history.

    Departure: with `half_life` h the i-th most recent history item counts 2^(−i/h), as in the sequence-aware
    neighbours of Ludewig and Jannach 2018, arXiv:1803.09587; None counts all alike, which is the classic.
    """

    def __init__(self, *, neighbours: int = 100, shrink: float = 0.0, half_life: float | None = None) -> None:
        self.neighbours, self.shrink, self.half_life = neighbours, shrink, half_life

    def fit(self, train: Ratings) -> ItemKnn:
        """Compute the similarities of the items in N rows."""
        shape = (train.num_users, train.num_items)
        seen = sparse.csr_matrix((np.ones(len(train), np.float32), (train.users, train.items)), shape=shape)
        seen.data[:] = 1.0
        self._history = self._weighted(train, shape)
        index, similarity = top_similar(seen, self.neighbours, self.shrink)
        items = np.repeat(np.arange(train.num_items), index.shape[1])
        entries = (similarity.ravel(), (index.ravel(), items))
        self._similar = sparse.csr_matrix(entries, shape=(train.num_items, train.num_items))
        self._similar.eliminate_zeros()
        return self

    def _weighted(self, train: Ratings, shape: tuple[int, int]) -> sparse.csr_matrix:
        if self.half_life is None:
            weights = np.ones(len(train), np.float32)
        else:
            weights = np.exp2(-_age_in_rows(train.users) / self.half_life).astype(np.float32)
        return sparse.csr_matrix((weights, (train.users, train.items)), shape=shape)

    def scores(self, users: np.ndarray) -> np.ndarray:
        """[B, num_items] sums of similarities to the users' histories."""
        return (self._history[users] @ self._similar).toarray()


def _age_in_rows(users: np.ndarray) -> np.ndarray:
    """[N] how many later rows the same user has, for rows in order of time within each user."""
    order = np.argsort(users, kind="stable")
    counts = np.bincount(users)
    ends = np.cumsum(counts)[users[order]]
    age = np.empty(len(users), dtype=np.int64)
    age[order] = ends - 1 - np.arange(len(users))
    return age


def mean_tie_ranks(scores: np.ndarray, targets: np.ndarray, seen: sparse.csr_matrix) -> np.ndarray:
    """Rank of each target among the items its user has not seen.

    Args:
        scores: [B, I]; higher is better.
        targets: [B] item codes; a target competes even if it was seen before.
        seen: [B, I], non-zero where the user has seen the item.

    Returns:
        [B] ranks from 1; tied items share the mean of their ranks.
    """
    allowed = np.ones(scores.shape, dtype=bool)
    allowed[seen.nonzero()] = False
    above, equal = above_and_equal(scores, targets, allowed)
    return 1.0 + above + equal / 2.0


def above_and_equal(scores: np.ndarray, targets: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many other items score higher than each target, and how many the same: [B] and [B].

    Args:
        scores: [B, I]; higher is better.
        targets: [B] item codes.
        allowed: [B, I] bool, which items compete.
    """
    rows = np.arange(len(targets))
    own = scores[rows, targets][:, None]
    others = allowed.copy()
    others[rows, targets] = False
    return ((scores > own) & others).sum(axis=1), ((scores == own) & others).sum(axis=1)


def gains(ranks: np.ndarray, k: int = 10) -> dict[str, np.ndarray]:
    """Hit and discounted gain at k with one relevant item per user.

    Args:
        ranks: [M] from 1.

    Returns:
        `hr@k`: [M] of [r ≤ k]; `ndcg@k`: [M] of [r ≤ k] / log2(1 + r).
    """
    hit = (ranks <= k).astype(float)
    return {f"hr@{k}": hit, f"ndcg@{k}": hit / np.log2(1.0 + ranks)}


def means_and_errors(per_user: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean over users and its standard error, s / √M with s the sample's standard deviation.

    Args:
        per_user: metric → [M] values, M of 2 or more.

    Returns:
        For each metric `name` and `name_se`, and `users`, the number M.
    """
    found: dict[str, float] = {}
    for name, values in per_user.items():
        found[name] = float(values.mean())
        found[f"{name}_se"] = float(values.std(ddof=1) / np.sqrt(len(values)))
        found["users"] = len(values)
    return found


def rank_targets(model: RankingModel, train: Ratings, test: Ratings) -> np.ndarray:
    """Fit on `train`, then rank each test row's item for its user over the full catalogue.

    Returns:
        [M] ranks, in the order of the test rows.
    """
    model.fit(train)
    return rank_fitted(model, train, test)


def rank_fitted(model: Scorer, train: Ratings, test: Ratings, block: int = 256) -> np.ndarray:
    """As `rank_targets`, of a model that was fitted on `train` before."""
    shape = (train.num_users, train.num_items)
    seen = sparse.csr_matrix((np.ones(len(train), np.float32), (train.users, train.items)), shape=shape)
    ranks = []
    for start in range(0, len(test), block):
        users, targets = test.users[start : start + block], test.items[start : start + block]
        ranks.append(mean_tie_ranks(model.scores(users), targets, seen[users]))
    return np.concatenate(ranks)
