"""Ranking of cold items: ties by expectation, the two contests, and mtrec's own scores."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import cold
from benchmarks.ranking import above_and_equal, gains
from benchmarks.ratings import from_tables, split
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.splits import TEST
from mtrec.evaluation.predict import predict
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables, tasks_under


def test_expected_gains_are_the_mean_over_all_orders_of_the_ties() -> None:
    rng = np.random.default_rng(0)
    scores = np.array([[5, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1]], dtype=float)
    for target in (0, 2, 6, 14):
        above, equal = above_and_equal(scores, np.array([target]), np.ones_like(scores, dtype=bool))
        hit, gain = cold.expected_gains(above, equal)
        broken = scores + rng.random((20_000, scores.shape[1])) / 2  # ties at random
        drawn = gains(1 + (broken > broken[:, [target]]).sum(1))
        assert hit[0] == pytest.approx(drawn["hr@10"].mean(), abs=0.015)
        assert gain[0] == pytest.approx(drawn["ndcg@10"].mean(), abs=0.015)
    hit, gain = cold.expected_gains(np.array([0]), np.array([99]))
    assert (hit[0], gain[0]) == (pytest.approx(0.1), pytest.approx(4.5436 / 100, rel=1e-4))


class Fixed:
    """The same scores for everybody."""

    def __init__(self, scores_I: np.ndarray) -> None:
        self._scores = scores_I

    def scores(self, users: np.ndarray) -> np.ndarray:
        return np.tile(self._scores, (len(users), 1))


def rated() -> Tables:
    tables, _ = shop_tables(DIALS)
    rows = tables.interactions.drop_nulls("rating").unique(["user_id", "item_id"], keep="last", maintain_order=True)
    return Tables(users=tables.users, items=tables.items, interactions=rows)


def test_both_contests_leave_out_what_a_user_has_and_errors_are_over_users() -> None:
    ratings, frame = from_tables(rated())
    parts = split(ratings, frame, "cold_items", test=0.4)
    before, test = parts.before_test, parts.test
    held = np.unique(test.items)
    assert 10 < len(held) < 40
    scores = np.full(ratings.num_items, 2.0)
    scores[held], scores[held[0]] = 1.0, 3.0
    found = cold.measure(Fixed(scores), before, test, block=7)
    first = test.items == held[0]
    among = cold.expected_gains(np.where(first, 0, 1), np.where(first, 0, len(held) - 2))
    assert found["hr@10 among held-out"] == pytest.approx(among[0].mean())
    assert found["ndcg@10 among held-out"] == pytest.approx(among[1].mean())
    others = np.setdiff1d(np.arange(ratings.num_items), held)
    untaken = np.array([len(np.setdiff1d(others, before.items[before.users == u])) for u in test.users])

    overall = cold.expected_gains(np.where(first, 0, untaken + 1), np.where(first, 0, len(held) - 2))
    assert found["hr@10"] == pytest.approx(overall[0].mean())
    assert found["ndcg@10"] == pytest.approx(overall[1].mean())
    off = among[1] - among[1].mean()
    per_user = [off[test.users == user].sum() for user in np.unique(test.users)]
    assert found["ndcg@10 among held-out_se"] == pytest.approx(np.sqrt(np.square(per_user).sum()) / len(test))
    assert (found["rows"], found["users"]) == (len(test), len(per_user))


def test_the_scores_of_a_model_are_those_that_it_is_evaluated_by(tiny_bert: Path) -> None:
    tasks = {"rating": tasks_under("cold_items")["rating"], "next_item": {"type": "next_item"}}
    scenario = shop_scenario(tiny_bert, split={"by": "cold_items", "test": 0.4}, tasks=tasks)
    tables = rated()
    ratings, frame = from_tables(tables)
    dataset, encoding = prepare(tables, scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    trainer = Trainer(bundle, view, catalogue, validate=lambda *_: {})
    parts = split(ratings, frame, "cold_items", test=0.4)
    model = cold.Trained(trainer, ratings)
    _, rankings = predict(bundle.model.eval(), view, catalogue, scenario.tasks, TEST, scenario.model.history)
    checked = 0
    for ranked in rankings["next_item"]:
        user = ratings.user_ids.index(dataset.users["user_id"][ranked.user])
        allowed = np.ones((1, ratings.num_items), dtype=bool)
        allowed[0, parts.before_test.items[parts.before_test.users == user]] = False
        for item, rank in zip(ranked.relevant, ranked.ranks, strict=True):
            above, equal = above_and_equal(model.scores(np.array([user])), np.array([item]), allowed)
            assert 1 + above[0] + equal[0] / 2 == pytest.approx(rank)
            checked += 1
    assert checked == len(parts.test) > 20
