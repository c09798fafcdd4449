"""Ranking items that nobody had taken when the model learned (`split.by: cold_items`).

Every row of the test part asks where its user's new item stands, in two contests:

    all items       every item competes that the user has not taken, known or new
    held-out items  only the items of the test part compete

A model that knows items by their ids alone, such as popularity, scores many new items alike. The mean of tied ranks
would then give it a flat 0, so here ties are broken at random: a row counts by what it gets on average over all
orders of the tied items, which is worked out exactly and needs no seed. Without any knowledge of n held-out items
that is NDCG@10 = 4.54 / n and HR@10 = 10 / n.

The rows of a user are alike, so standard errors are over users.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse

from benchmarks.ranking import Scorer, above_and_equal
from benchmarks.ratings import Ratings
from mtrec.data.splits import TEST
from mtrec.evaluation.predict import user_states
from mtrec.training.loop import Trainer

HELD = "among held-out"
METRICS = ("hr@10", "ndcg@10", f"hr@10 {HELD}", f"ndcg@10 {HELD}")


class Trained:
    """A trained mtrec model as a ranker: its task `next_item`, after all that a user did outside the test."""

    def __init__(self, trainer: Trainer, ratings: Ratings) -> None:
        self.model, self.view, self.catalogue = trainer.model.eval(), trainer.view, trainer.data.catalogue
        self.history = trainer.scenario.model.history
        rows = {user: row for row, user in enumerate(self.view.dataset.users["user_id"].to_list())}
        self.rows = np.array([rows[user] for user in ratings.user_ids])
        assert self.view.dataset.items["item_id"].to_list() == ratings.item_ids

    @torch.no_grad()
    def scores(self, users: np.ndarray) -> np.ndarray:
        """[B, num_items]."""
        rows, view = self.rows[users], self.view
        items = self.model.item_vectors(self.catalogue.text_NE, self.catalogue.features)
        states = user_states(self.model, view, items, rows, TEST, self.history)
        near = self.model.nearby("next_item", items, view.history(view.recent_rows(rows, TEST, self.history)))
        scores: np.ndarray = self.model.rank_logits("next_item", states, items, near).float().cpu().numpy()
        return scores


def measure(model: Scorer, before: Ratings, test: Ratings, block: int = 256) -> dict[str, float]:
    """`METRICS` of a model that has learned, each with its standard error `…_se`, and `users`.

    Args:
        model: scores items.
        before: what users did; these items do not compete.
        test: rows on items that are in none of `before`.
    """
    found = [np.concatenate(parts) for parts in zip(*_blocks(model, before, test, block), strict=True)]
    result: dict[str, float] = {"users": len(np.unique(test.users)), "rows": len(test)}
    for name, values in zip(METRICS, found, strict=True):
        error = np.bincount(test.users, values - values.mean())
        result[name] = float(values.mean())
        result[f"{name}_se"] = float(np.sqrt((error**2).sum()) / len(values))
    return result


def _blocks(model: Scorer, before: Ratings, test: Ratings, block: int) -> Iterator[list[np.ndarray]]:
    shape = (before.num_users, before.num_items)
    seen = sparse.csr_matrix((np.ones(len(before), np.float32), (before.users, before.items)), shape=shape)
    held = np.zeros(before.num_items, dtype=bool)
    held[test.items] = True
    for start in range(0, len(test), block):
        users, targets = test.users[start : start + block], test.items[start : start + block]
        distinct, place = np.unique(users, return_inverse=True)
        scores, taken = model.scores(distinct)[place], seen[users].toarray() > 0
        yield [
            value
            for allowed in (~taken, ~taken & held)
            for value in expected_gains(*above_and_equal(scores, targets, allowed))
        ]


def expected_gains(above: np.ndarray, equal: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Hit and discounted gain at k of one relevant item, on average over all orders of tied items.

    Args:
        above: [M] items with a higher score.
        equal: [M] other items of the same score.

    Returns:
        [M] and [M].
    """
    gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    first, last = np.minimum(above, k), np.minimum(above + equal + 1, k)
    return (last - first) / (equal + 1), (gain[last] - gain[first]) / (equal + 1)
