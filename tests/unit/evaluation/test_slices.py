"""Slices: every item and user where its training counts put it."""

import numpy as np
import pytest

from mtrec.data.dataset import Dataset, Encoding, prepare
from mtrec.data.splits import TRAIN
from mtrec.evaluation.slices import HEAD_SHARE, LIGHT_USER, Slices, make_slices
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables


@pytest.fixture(scope="module")
def cold() -> tuple[Dataset, Encoding]:
    """A shop in which many items and some users are new at the end."""
    dials = {**DIALS, "cold_items": 0.4, "num_items": 80, "num_users": 200}
    return prepare(shop_tables(dials)[0], shop_scenario("unused"))


@pytest.fixture(scope="module")
def slices(cold: tuple[Dataset, Encoding]) -> Slices:
    return make_slices(cold[0])


def test_items_are_cold_tail_or_head(cold: tuple[Dataset, Encoding], slices: Slices) -> None:
    data = cold[0]
    counts = np.bincount(data.item[data.part == TRAIN], minlength=data.items.height)
    found = slices.items
    assert list(found) == ["cold items", "long tail", "head"]
    assert (np.stack(list(found.values())).sum(0) == 1).all()
    assert (found["cold items"] == (counts == 0)).all()
    assert found["cold items"].any()
    assert found["head"].sum() == round((counts > 0).sum() * HEAD_SHARE)
    assert counts[found["head"]].min() >= counts[found["long tail"]].max()


def test_users_are_cold_or_light_by_their_training_rows(cold: tuple[Dataset, Encoding], slices: Slices) -> None:
    data = cold[0]
    counts = np.bincount(data.user[data.part == TRAIN], minlength=data.users.height)
    assert (slices.users["cold users"] == (counts == 0)).all()
    assert (slices.users["light users"] == ((counts > 0) & (counts < LIGHT_USER))).all()
    assert slices.users["cold users"].any()
    assert slices.users["light users"].any()


def test_the_test_part_decides_nothing(cold: tuple[Dataset, Encoding], slices: Slices) -> None:
    data = cold[0]
    keep = data.interactions["part"] == TRAIN
    train = Dataset(data.users, data.items, data.interactions.filter(keep))
    again = make_slices(train)
    for name, members in {**slices.items, **slices.users}.items():
        assert (members == {**again.items, **again.users}[name]).all()
