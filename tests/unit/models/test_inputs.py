"""A dataset as a model sees it: histories that hold nothing of the part to be predicted."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from mtrec.config import NextItem, Scenario
from mtrec.data.dataset import Dataset, Encoding, prepare
from mtrec.data.splits import TEST, VALID
from mtrec.models.inputs import View
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables, tasks_under

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def view(shop: Scenario, shop_data: tuple[Dataset, Encoding]) -> View:
    return View.of(*shop_data, shop, CPU)


@pytest.mark.parametrize("by", ["time", "random", "leave_last_out", "cold_items"])
@pytest.mark.parametrize("before", [VALID, TEST])
def test_a_history_for_a_part_holds_no_row_of_it(by: str, before: int) -> None:
    scenario = shop_scenario("unused", split={"by": by}, tasks=tasks_under(by))
    data, encoding = prepare(shop_tables(DIALS)[0], scenario)
    found = View.of(data, encoding, scenario, CPU)
    users = np.arange(data.users.height)
    rows = found.recent_rows(users, before, 10)
    assert (data.part[rows[rows >= 0]] < before).all()
    for user, row in zip(users, rows, strict=True):
        past = np.flatnonzero((data.user == user) & (data.part < before))
        kept = row[row >= 0]
        assert kept.tolist() == past[-10:].tolist()
        assert (row[len(kept) :] == -1).all()
    if by in ("time", "leave_last_out"):
        # No later instant either: the last known row is no later than the first row to be predicted.
        for user, row in zip(users, rows, strict=True):
            wanted = data.time[(data.user == user) & (data.part == before)]
            kept = row[row >= 0]
            if len(wanted) and len(kept):
                assert data.time[kept].max() <= wanted.min()


@pytest.mark.parametrize("users", [[], [0], [59, 0, 3]])
def test_any_users_in_any_order(users: list[int], view: View) -> None:
    rows = view.recent_rows(np.array(users, dtype=int), TEST, 5)
    assert rows.shape[0] == len(users)
    for user, row in zip(users, rows, strict=True):
        assert (view.dataset.user[row[row >= 0]] == user).all()


def test_a_user_who_is_not_there_has_no_history(view: View) -> None:
    rows = view.recent_rows(np.array([-1]), TEST, 5)
    assert (rows == -1).all()
    assert rows.shape == (1, 1)


def test_without_earlier_rows_every_history_is_empty(view: View) -> None:
    rows = view.recent_rows(np.array([0, 1]), 0, 5)
    assert rows.tolist() == [[-1], [-1]]


def test_what_the_test_part_holds_changes_no_history(
    shop: Scenario, shop_data: tuple[Dataset, Encoding], view: View
) -> None:
    data, encoding = shop_data
    test = pl.Series(data.part == TEST)
    other_rows = data.interactions.with_columns(
        item_id=pl.when(test).then(pl.lit(data.items["item_id"][0])).otherwise("item_id"),
        event=pl.when(test).then(pl.lit("cart")).otherwise("event"),
        rating=pl.when(test).then(1.0).otherwise("rating"),
    )
    other = View.of(replace(data, interactions=other_rows), encoding, shop, CPU)
    users = np.arange(data.users.height)
    rows = view.recent_rows(users, TEST, 20)
    assert (rows == other.recent_rows(users, TEST, 20)).all()
    for name, tensor in vars(view.history(rows)).items():
        torch.testing.assert_close(tensor, getattr(other.history(rows), name), equal_nan=True, rtol=0, atol=0)


def test_histories_hold_items_events_ratings_and_gaps(view: View) -> None:
    data = view.dataset
    user = int(np.argmax(np.bincount(data.user)))
    rows = view.recent_rows(np.array([user, 0]), TEST, 6)
    rows[1, 2:] = -1
    history = view.history(rows)
    assert history.mask_BT.tolist() == [[True] * 6, [True] * 2 + [False] * 4]
    assert history.item_BT[0].tolist() == data.item[rows[0]].tolist()
    assert history.event_BT[1, 2:].tolist() == [0] * 4
    events = data.interactions["event"].gather(rows[0]).to_list()
    assert [view.events[code - 1] for code in history.event_BT[0]] == events
    gaps = np.diff(data.time[rows[0]], prepend=data.time[rows[0, 0]])
    assert history.gap_BT[0].tolist() == pytest.approx(gaps.tolist(), abs=1e-4)
    assert history.gap_BT[1, 2:].tolist() == [0] * 4
    assert history.rating_BT[1, 2:].isnan().all()
    raw = data.rating[rows[0]]
    assert history.rating_BT[0].isnan().tolist() == np.isnan(raw).tolist()


def test_ratings_are_standardised_by_the_encoding(view: View, shop_data: tuple[Dataset, Encoding]) -> None:
    data, encoding = shop_data
    mean, std = encoding.rating
    there = ~np.isnan(data.rating)
    assert view.rating_R[there] == pytest.approx((data.rating[there] - mean) / std, abs=1e-5)
    assert there.any()


def test_events_that_training_never_saw_have_no_code(view: View) -> None:
    assert view.event_codes(["cart", "return", "view"]).tolist() == [2, 1]
    assert view.event_codes(["return"]).tolist() == []


def test_every_task_but_ranking_has_labels(view: View, shop: Scenario) -> None:
    wanted = {name for name, task in shop.tasks.items() if not isinstance(task, NextItem)}
    assert set(view.labels) == wanted
    sizes = {"items": view.dataset.items.height, "users": view.dataset.users.height}
    for name, labels in view.labels.items():
        table = shop.tasks[name].label_table or "interactions"
        assert len(labels) == sizes.get(table, view.dataset.interactions.height)
        assert not labels.isnan().all()
