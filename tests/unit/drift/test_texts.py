"""Texts fall to centres of the reference's texts; unlike ones are told apart; movement is found."""

import numpy as np

from mtrec.config import Retraining
from mtrec.drift.statistics import windows_of
from mtrec.drift.texts import CENTRES, UNLIKE, text_column
from tests.unit.drift.test_statistics import busy

TITLES = [f"item {n}" for n in range(60)]
AROUND = np.repeat([0, 1, 2], 20)
"""Three kinds of text."""


def vectors(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middles = np.eye(3, 16)
    found: np.ndarray = middles[AROUND] + rng.normal(0, 0.01, (60, 16))
    return found


def test_alike_texts_share_a_category_named_after_one_of_them() -> None:
    item_R = np.repeat(np.arange(60), 5)
    twins = np.round(vectors(), 1)  # so that there are three distinct texts
    column = text_column(twins, TITLES, item_R, np.ones(len(item_R), dtype=bool))
    assert column.kind == "category"
    kinds = column.values.to_numpy().reshape(60, 5)[:, 0]
    assert [len(set(kinds[kind == AROUND])) for kind in range(3)] == [1, 1, 1]
    assert len(set(kinds)) == 3
    for kind in range(3):
        title = kinds[kind == AROUND][0].split("'")[1]
        assert AROUND[TITLES.index(title)] == kind


def test_at_most_so_many_categories_and_length_does_not_matter() -> None:
    item_R = np.repeat(np.arange(60), 3)
    all_R = np.ones(len(item_R), dtype=bool)
    column = text_column(vectors(), TITLES, item_R, all_R)
    assert column.values.n_unique() <= CENTRES + 1
    longer = vectors() * np.random.default_rng(1).uniform(1, 9, (60, 1))
    assert text_column(longer, TITLES, item_R, all_R).values.equals(column.values)


def test_a_text_unlike_all_of_the_reference_is_told_apart() -> None:
    new = np.concatenate([vectors(), np.eye(16)[[9, 10]]])
    item_R = np.r_[np.repeat(np.arange(60), 5), 60, 61, 60]
    column = text_column(new, [*TITLES, "x", "y"], item_R, np.arange(len(item_R)) < 300)
    assert (column.values[:300] == UNLIKE).mean() <= 0.02
    assert column.values[300:].to_list() == [UNLIKE] * 3


def found(share_of_first: dict[int, float], text_NE: np.ndarray) -> list[list[str]]:
    """Which statistics drifted in each window, where a share of the interactions has texts of the first kind."""
    timeline, colour = busy(share_of_first)
    rng = np.random.default_rng(0)
    first = (colour == "red").to_numpy()
    item_R = np.where(first, rng.integers(0, 20, len(first)), rng.integers(20, 60, len(first)))
    column = text_column(text_NE, TITLES, item_R, timeline.slice_R < 0)
    return [window.drifted for window in windows_of(timeline, {"text": column}, {}, Retraining())]


def test_texts_that_moved_are_found() -> None:
    reference = dict.fromkeys(range(4), 0.3)
    assert found(reference | {4: 0.3, 5: 0.7}, vectors()) == [[], ["text"]]
    alike = np.tile(np.eye(16)[0], (60, 1))  # other items, but their texts are the same
    assert found(reference | {4: 0.3, 5: 0.7}, alike) == [[], []]


def test_it_is_the_same_each_time() -> None:
    item_R = np.repeat(np.arange(60), 2)
    columns = [text_column(vectors(), TITLES, item_R, item_R < 50) for _ in range(2)]
    assert columns[0].values.equals(columns[1].values)
