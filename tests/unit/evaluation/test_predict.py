"""Predictions on a part of the split, from histories that end before it."""

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mtrec.config import NextItem, Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST, TRAIN, VALID
from mtrec.errors import RunError
from mtrec.evaluation.metrics import UNSEEN
from mtrec.evaluation.predict import Predictions, Ranked, predict, user_states
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import Bundle

Start = tuple[Bundle, View, Catalogue]
Said = tuple[dict[str, Predictions], dict[str, list[Ranked]]]


@pytest.fixture(scope="module")
def model(shop_start: Start) -> Recommender:
    """Random weights everywhere, so that every task says something of its own for everybody."""
    torch.manual_seed(5)
    other = copy.deepcopy(shop_start[0].model).eval()
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return other


def ask(model: Recommender, view: View, start: Start, scenario: Scenario, part: int = TEST) -> Said:
    catalogue = replace(start[2], features=view.items)
    return predict(model, view, catalogue, scenario.tasks, part, scenario.model.history)


@pytest.fixture(scope="module")
def said(model: Recommender, shop_start: Start, shop: Scenario) -> Said:
    return ask(model, shop_start[1], shop_start, shop)


def test_pair_tasks_are_asked_on_every_labelled_row_of_the_part(
    said: Said, shop_data: tuple[Dataset, Encoding]
) -> None:
    data = shop_data[0]
    for name, labelled in {
        "rating": ~np.isnan(data.rating),
        "like": ~np.isnan(data.rating),
        "purchase": (data.interactions["event"] == "view").to_numpy(),
    }.items():
        rows = np.flatnonzero((data.part == TEST) & labelled)
        found = said[0][name]
        assert found.user.tolist() == data.user[rows].tolist()
        assert found.item.tolist() == data.item[rows].tolist()
        assert found.predicted.shape == found.target.shape == (len(rows),)
    assert said[0]["rating"].target.tolist() == data.rating[(data.part == TEST) & ~np.isnan(data.rating)].tolist()


def test_item_and_user_labels_are_asked_on_held_out_rows(said: Said, shop_data: tuple[Dataset, Encoding]) -> None:
    data, encoding = shop_data
    held = np.flatnonzero((data.items["part"] == TEST).to_numpy())
    found = said[0]["category"]
    assert set(found.item) <= set(held)
    assert (found.user == -1).all()
    labels = encoding.labels["category"].values
    assert [labels[int(t)] for t in found.target] == data.items["category"].gather(found.item).to_list()
    assert found.predicted.sum(1) == pytest.approx(1)
    users = said[0]["region"]
    assert set(users.user) <= set(np.flatnonzero((data.users["part"] == TEST).to_numpy()))
    assert (users.item == -1).all()


def test_preferences_are_those_of_the_next_events_of_the_part(
    said: Said, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    data, encoding = shop_data
    labels = encoding.labels["preferred_category"].values
    found = said[0]["preferred_category"]
    assert len(found.user) > 0
    for user, target in zip(found.user, found.target, strict=True):
        rows = np.flatnonzero((data.user == user) & (data.part == TEST))[: shop.tasks["profile"].horizon]
        categories = data.items["category"].gather(data.item[rows]).to_list()
        counts = [categories.count(label) for label in labels]
        assert int(target) == int(np.argmax(counts))


def other_values(shop_data: tuple[Dataset, Encoding]) -> Dataset:
    """Items and held-out users with classes and tags that training never saw; the encoding is the old one."""
    data = shop_data[0]
    held = pl.col("part") == TEST
    third = pl.int_range(pl.len()) % 3 == 0
    items = data.items.with_columns(
        category=pl.when(third).then(pl.lit("New shelf")).otherwise("category"),
        tags=pl.when(third).then(pl.concat_list("tags", pl.lit(["odd", "rare"]))).otherwise("tags"),
    )
    users = data.users.with_columns(
        region=pl.when(held & third).then(pl.lit("Moon")).when(held).then(None).otherwise("region")
    )
    return replace(data, items=items, users=users)


def test_classes_that_training_never_saw_are_asked_too(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    data = other_values(shop_data)
    view = View.of(data, shop_data[1], shop, shop_start[1].device)
    found = ask(model, view, shop_start, shop)[0]
    held = np.flatnonzero((data.items["part"] == TEST).to_numpy())
    assert found["category"].item.tolist() == held.tolist()
    new = (data.items["category"].gather(held) == "New shelf").to_numpy()
    assert 0 < new.sum() < len(held)
    assert ((found["category"].target == UNSEEN) == new).all()
    # A user without a region is no example, one with an unknown region is.
    users = np.flatnonzero((data.users["region"] == "Moon").fill_null(False).to_numpy())
    assert len(users) > 0
    assert found["region"].user.tolist() == users.tolist()
    assert (found["region"].target == UNSEEN).all()


def test_an_unseen_class_can_be_what_a_user_prefers(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    data, encoding = other_values(shop_data), shop_data[1]
    view = View.of(data, encoding, shop, shop_start[1].device)
    task, labels = shop.tasks["preferred_category"], encoding.labels["preferred_category"].values
    found = ask(model, view, shop_start, shop)[0]["preferred_category"]
    unseen = 0
    for user, target in zip(found.user, found.target, strict=True):
        rows = np.flatnonzero((data.user == user) & (data.part == TEST))[: task.horizon]
        categories = data.items["category"].gather(data.item[rows]).to_list()
        counts = [categories.count(label) for label in [*labels, "New shelf"]]
        best = int(np.argmax(counts))  # a tie goes to the class that training knows
        unseen += best == len(labels)
        assert int(target) == (UNSEEN if best == len(labels) else best)
    assert 0 < unseen < len(found.user)


def test_label_values_outside_the_vocabulary_are_counted(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding], said: Said
) -> None:
    data, encoding = other_values(shop_data), shop_data[1]
    view = View.of(data, encoding, shop, shop_start[1].device)
    found, before = ask(model, view, shop_start, shop)[0], said[0]
    for name in ("tags", "profile"):
        vocabulary = set(encoding.labels[name].values)
        tags = [set(cell or []) - vocabulary for cell in data.items["tags"].to_list()]
        if name == "tags":
            wanted = [len(tags[item]) for item in found[name].item]
            assert [int(n) for n in found[name].target.sum(1)] == [
                len(set(data.items["tags"][int(item)].to_list()) & vocabulary) for item in found[name].item
            ]
        else:
            events = [np.flatnonzero((data.user == u) & (data.part == TEST)) for u in found[name].user]
            wanted = [sum(len(tags[data.item[r]]) for r in e[: shop.tasks[name].horizon]) for e in events]
        outside, usual = found[name].outside, before[name].outside
        assert outside is not None
        assert usual is not None
        assert outside.tolist() == wanted
        assert outside.sum() > usual.sum()
    assert found["category"].outside is found["rating"].outside is None


@pytest.mark.parametrize("part", [VALID, TEST])
def test_nothing_of_the_part_or_after_it_reaches_a_prediction(
    part: int, model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    """Other events and ratings from the part on change targets, and no prediction of the same pairs."""
    data, encoding = shop_data
    later = pl.Series(data.part >= part)
    rows = data.interactions.with_columns(
        rating=pl.when(later & pl.col("rating").is_not_null()).then(6 - pl.col("rating")).otherwise("rating"),
        timestamp=pl.when(later).then(pl.col("timestamp") + pl.duration(days=3)).otherwise("timestamp"),
    )
    other = View.of(replace(data, interactions=rows), encoding, shop, shop_start[1].device)
    before, ranked = ask(model, shop_start[1], shop_start, shop, part)
    after, ranked_after = ask(model, other, shop_start, shop, part)
    for name, found in before.items():
        assert (found.predicted == after[name].predicted).all(), name
    assert not (before["rating"].target == after["rating"].target).all()
    for name, users in ranked.items():
        for a, b in zip(users, ranked_after[name], strict=True):
            assert (a.ranks == b.ranks).all()
            assert (a.top == b.top).all()


def test_other_items_in_the_part_change_no_state(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    data, encoding = shop_data
    view, catalogue = shop_start[1], shop_start[2]
    later = pl.Series(data.part == TEST)
    rows = data.interactions.with_columns(
        item_id=pl.when(later).then(pl.lit(data.items["item_id"][0])).otherwise("item_id")
    )
    other = View.of(replace(data, interactions=rows), encoding, shop, view.device)
    users = np.arange(data.users.height)
    with torch.no_grad():
        items = model.item_vectors(catalogue.text_NE, view.items)
        found = [user_states(model, v, items, users, TEST, 20) for v in (view, other)]
    assert found[0].equal(found[1])
    # A row of the training part does change its user's state.
    first = pl.Series(np.arange(len(data.part)) == np.flatnonzero(data.part == VALID)[-1])
    moved = data.interactions.with_columns(
        rating=pl.when(first).then(1.0).otherwise("rating"),
        event=pl.when(first).then(pl.lit("cart")).otherwise("event"),
    )
    third = View.of(replace(data, interactions=moved), encoding, shop, view.device)
    with torch.no_grad():
        states = user_states(model, third, items, users, TEST, 20)
    assert (states != found[0]).any(1).sum() == 1


def test_rankings_leave_out_what_was_seen_and_rank_all_the_rest(
    said: Said, model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    data = shop_data[0]
    view, catalogue = shop_start[1], shop_start[2]
    events = data.interactions["event"].to_numpy()
    with torch.no_grad():
        items = model.item_vectors(catalogue.text_NE, view.items)
    for name, task in shop.tasks.items():
        if not isinstance(task, NextItem):
            continue
        taken = np.isin(events, task.events) if task.events else np.ones(len(events), dtype=bool)
        expected = {}
        for user in range(data.users.height):
            seen = set(data.item[(data.user == user) & (data.part < TEST)])
            wanted = set(data.item[(data.user == user) & (data.part == TEST) & taken]) - seen
            if wanted:
                expected[user] = (seen, wanted)
        found = said[1][name]
        assert [r.user for r in found] == sorted(expected)
        for ranked in found:
            seen, wanted = expected[ranked.user]
            assert set(ranked.relevant) == wanted
            with torch.no_grad():
                state = user_states(model, view, items, np.array([ranked.user]), TEST, shop.model.history)
                past = view.history(view.recent_rows(np.array([ranked.user]), TEST, shop.model.history))
                near = model.nearby(name, items, past)
                assert (near is None) == (name == "next_sampled")
                scores = model.rank_logits(name, state, items, near)[0].numpy()
            order = [i for i in np.argsort(-scores, kind="stable") if i not in seen]
            assert not set(ranked.top) & seen
            assert ranked.ranks.tolist() == [order.index(i) + 1 for i in ranked.relevant]
            assert ranked.top.tolist() == order[:10]


def test_a_user_who_saw_nearly_everything_is_shown_only_the_rest(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    """Fewer unseen items than places: no seen item fills them."""
    data, encoding = shop_data
    user, count = 0, data.items.height - 4
    seen = data.interactions.filter((pl.col("user_id") == data.users["user_id"][user]) & (pl.col("part") == TRAIN))
    many = pl.concat([seen.head(1)] * count).with_columns(item_id=data.items["item_id"].head(count))
    wanted = seen.head(1).with_columns(
        item_id=pl.lit(data.items["item_id"][-1]), part=pl.lit(TEST, pl.Int8), event=pl.lit("view")
    )
    others = data.interactions.filter(pl.col("user_id") != data.users["user_id"][user])
    view = View.of(
        replace(data, interactions=pl.concat([many, wanted, others])), encoding, shop, torch.device("cpu")
    )
    ranked = ask(model, view, shop_start, shop)[1]["next_item"][0]
    assert ranked.user == user
    assert sorted(ranked.top.tolist()) == list(range(count, count + 4))
    assert 1 <= ranked.ranks[0] <= 4


def test_models_with_other_events_are_asked_about_the_same_users(
    model: Recommender, shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    """A champion that never saw an event is ranked on the same rows, or the comparison would not be paired."""
    data, encoding = shop_data
    older = replace(encoding, events=["view", "purchase", "rating"])  # carts came later
    with torch.no_grad():
        view = View.of(data, older, shop, shop_start[1].device)
    carts = {"next_item": shop.tasks["next_item"].model_copy(update={"events": ["cart"]})}
    ours, theirs = (
        predict(model, v, shop_start[2], carts, TEST, 20)[1]["next_item"] for v in (shop_start[1], view)
    )
    assert ours
    assert [r.user for r in ours] == [r.user for r in theirs]
    assert all((a.relevant == b.relevant).all() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["rating", "purchase", "category", "tags", "region", "profile", "next_item"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_refused_by_its_task(
    name: str, value: float, shop_start: Start, shop: Scenario
) -> None:
    """A NaN would rank first, and a mean over it would be none."""
    other = copy.deepcopy(shop_start[0].model).eval()
    ranked = isinstance(shop.tasks[name], NextItem)
    broken = other.rankers[name].query.weight if ranked else other.heads[name].linear.weight
    with torch.no_grad():
        broken.fill_(value)
    asked = {task: shop.tasks[task] for task in dict.fromkeys(["price", name, "next_sampled"])}
    with pytest.raises(RunError, match=rf"^tasks\.{name}: .* of .* NaN or infinite.*training\.lr") as caught:
        predict(other, shop_start[1], shop_start[2], asked, TEST, shop.model.history)
    assert "\n" not in str(caught.value)


def test_asking_for_some_tasks_answers_those(model: Recommender, shop_start: Start, shop: Scenario) -> None:
    some = {name: shop.tasks[name] for name in ("purchase", "tags", "profile")}
    rows, rankings = predict(model, shop_start[1], shop_start[2], some, TEST, 20)
    assert set(rows) == set(some)
    assert rankings == {}


def test_asking_twice_gives_the_same(model: Recommender, said: Said, shop_start: Start, shop: Scenario) -> None:
    again = ask(model, shop_start[1], shop_start, shop)
    for name, found in said[0].items():
        assert (again[0][name].predicted == found.predicted).all()
