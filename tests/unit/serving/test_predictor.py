"""Answers from a model folder, for known and unknown users, histories and items."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mtrec.config import NextItem
from mtrec.data.dataset import Dataset
from mtrec.data.splits import TEST
from mtrec.errors import InputError
from mtrec.evaluation.predict import predict
from mtrec.models.store import Bundle, load_memory, load_model
from mtrec.serving.predictor import Predictor


@pytest.fixture(scope="module")
def bundle(shop_run: Path) -> Bundle:
    return load_model(shop_run / "model")


@pytest.fixture(scope="module")
def predictor(shop_run: Path) -> Predictor:
    return Predictor.load(shop_run / "model")


@pytest.fixture(scope="module")
def dataset(shop_run: Path) -> Dataset:
    return Dataset.read(shop_run / "dataset")


def ids(answer: list[tuple[str, float]]) -> list[str]:
    return [item for item, _ in answer]


def test_no_user_is_shown_what_they_took_before(predictor: Predictor, dataset: Dataset) -> None:
    """Also what lies further back than the model reads."""
    longest = 0
    for user in dataset.users["user_id"]:
        taken = dataset.interactions.filter(pl.col("user_id") == user)["item_id"].to_list()
        longest = max(longest, len(taken))
        shown = ids(predictor.recommend(user_id=user, num_items=100))
        assert set(shown) == set(predictor.item_ids) - set(taken)
        assert len(shown) == len(set(shown))
    assert longest > predictor.bundle.scenario.model.history


def test_the_best_come_first_and_as_many_as_asked(predictor: Predictor) -> None:
    everything = predictor.recommend(num_items=1000)
    assert set(ids(everything)) == set(predictor.item_ids)
    scores = [score for _, score in everything]
    assert scores == sorted(scores, reverse=True)
    assert predictor.recommend(num_items=3) == everything[:3]
    assert len(predictor.recommend()) == 10


@pytest.mark.parametrize("number", [0, -1])
def test_no_items_is_no_question(number: int, predictor: Predictor) -> None:
    with pytest.raises(InputError, match=f"num_items is {number}: ask for at least one item"):
        predictor.recommend(num_items=number)


def test_an_unknown_user_is_a_new_user(predictor: Predictor) -> None:
    new = predictor.recommend()
    assert predictor.recommend(user_id="nobody") == new
    assert predictor.recommend(history=[]) == new
    assert predictor.score(predictor.item_ids[:4], user_id="nobody") == predictor.score(predictor.item_ids[:4])


def test_a_known_user_gets_other_answers_than_a_new_one(predictor: Predictor, dataset: Dataset) -> None:
    some = predictor.item_ids[:8]
    answers = [predictor.score(some, user_id=user)["rating"] for user in dataset.users["user_id"][:3]]
    assert answers[0] != answers[1] != answers[2]
    assert answers[0] != predictor.score(some)["rating"]


def test_a_history_takes_the_place_of_the_remembered_one(predictor: Predictor, dataset: Dataset) -> None:
    user = dataset.users["user_id"][0]
    history = predictor.item_ids[5:9]
    shown = predictor.recommend(user_id=user, history=history, num_items=100)
    assert set(ids(shown)) == set(predictor.item_ids) - set(history)
    assert dict(shown) != dict(predictor.recommend(user_id=user, history=history[:1], num_items=100))
    # The user's attributes still count.
    assert predictor.score(history, user_id=user, history=history) != predictor.score(history, history=history)
    # The order matters, and repeats are no mistake.
    assert predictor.recommend(history=history) != predictor.recommend(history=history[::-1])
    assert history[0] not in ids(predictor.recommend(history=[history[0]] * 3, num_items=100))


def test_unknown_items_of_a_history_are_passed_over(predictor: Predictor) -> None:
    history = predictor.item_ids[:2]
    mixed = [history[0], "gone", history[1], "never was"]
    assert predictor.recommend(history=mixed) == predictor.recommend(history=history)
    assert predictor.recommend(history=["gone"]) == predictor.recommend()


def test_a_long_history_is_read_from_its_end_and_excluded_as_a_whole(predictor: Predictor) -> None:
    length = predictor.bundle.scenario.model.history
    history = predictor.item_ids[: length + 10]
    shown = dict(predictor.recommend(history=history, num_items=100))
    recent = dict(predictor.recommend(history=history[-length:], num_items=100))
    assert set(shown) == set(predictor.item_ids) - set(history)
    assert shown == {item: recent[item] for item in shown}


def test_scores_are_those_of_the_evaluation(bundle: Bundle, shop_run: Path, dataset: Dataset) -> None:
    """From the same state, that is, with a memory that ends where the test part begins."""
    past = replace(dataset, interactions=dataset.interactions.filter(pl.col("part") < TEST))
    _, remembered = load_memory(shop_run / "model", bundle)
    predictor = Predictor(bundle, past, remembered)
    tasks = bundle.scenario.tasks
    view = bundle.view(dataset)
    rows, rankings = predict(bundle.model, view, remembered, tasks, TEST, bundle.scenario.model.history)
    users, items = dataset.users["user_id"], dataset.items["item_id"]
    for name in ("rating", "like", "purchase"):
        found = rows[name]
        assert len(found.user) > 10
        for user in np.unique(found.user):
            mine = found.user == user
            said = predictor.score([items[int(i)] for i in found.item[mine]], user_id=users[int(user)])[name]
            assert said == pytest.approx(found.predicted[mine].tolist(), rel=1e-4, abs=1e-5)
    name = next(n for n, t in tasks.items() if isinstance(t, NextItem))
    for ranked in rankings[name][:10]:
        shown = ids(predictor.recommend(user_id=users[ranked.user]))
        assert shown == [items[int(i)] for i in ranked.top]


def test_each_pair_task_is_scored_in_its_own_units(predictor: Predictor) -> None:
    found = predictor.score(predictor.item_ids)
    assert set(found) == {"rating", "like", "purchase"}
    assert all(len(values) == len(predictor.item_ids) for values in found.values())
    assert all(0 <= p <= 1 for name in ("like", "purchase") for p in found[name])
    assert 1 <= np.mean(found["rating"]) <= 5
    assert predictor.score([]) == {"rating": [], "like": [], "purchase": []}


def test_labels_are_given_from_their_thresholds_up(bundle: Bundle, shop_run: Path) -> None:
    other = load_model(shop_run / "model")
    predictor = Predictor(other, *load_memory(shop_run / "model", other))
    head, values = other.model.head("tags"), bundle.encoding.labels["tags"].values
    with torch.no_grad():
        outputs = other.model.item_outputs(predictor.items, torch.arange(len(predictor.item_ids)))["tags"]
    probability = head.predict(outputs).numpy()
    assert head.thresholds is not None
    head.thresholds.copy_(torch.from_numpy(np.median(probability, axis=0)))
    found = predictor.labels(predictor.item_ids)
    assert set(found) == {"tags"}
    for row, given in enumerate(found["tags"]):
        assert {values[v] for v in np.flatnonzero(probability[row] >= head.thresholds.numpy())} == set(given)
        chances = [probability[row, values.index(value)] for value in given]
        assert chances == sorted(chances, reverse=True)
    assert 0 < sum(map(len, found["tags"])) < probability.size
    with pytest.raises(InputError, match="item 'gone' is not in the model's catalogue"):
        predictor.labels(["gone"])


def test_the_order_of_items_is_the_order_of_scores(predictor: Predictor) -> None:
    forward, backward = (
        predictor.score(order)["rating"] for order in (predictor.item_ids, predictor.item_ids[::-1])
    )
    assert forward == pytest.approx(backward[::-1], rel=1e-5)


def test_unknown_items_cannot_be_scored(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="item 'gone' is not in the model's catalogue of 50 items"):
        predictor.score([predictor.item_ids[0], "gone"])


def test_a_model_without_ranking_cannot_recommend(bundle: Bundle, shop_run: Path, predictor: Predictor) -> None:
    dataset, catalogue = load_memory(shop_run / "model", bundle)
    other = load_model(shop_run / "model")
    other.model.tasks = {n: t for n, t in other.model.tasks.items() if not isinstance(t, NextItem)}
    silent = Predictor(other, dataset, catalogue)
    with pytest.raises(InputError, match="model 'tiny-shop' has no next_item task, so it cannot recommend"):
        silent.recommend()
    some = predictor.item_ids[:3]
    assert silent.score(some)["rating"] == pytest.approx(predictor.score(some)["rating"])
