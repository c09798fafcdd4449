"""The share of padding, counted by hand."""

import pytest

from benchmarks import padding
from mtrec.config import Scenario


def test_padding_is_counted_by_group_and_equal_texts_once() -> None:
    tokens = [[1], [1, 2, 3, 4], [1], [5, 6, 7]]
    assert padding.padding(tokens, [[0, 2], [1, 3]]) == (9, 10)
    found = padding.measure(tokens, [[0, 1, 2, 3], [1, 3]])
    assert found["one group"] == pytest.approx(1 - (8 + 7) / (12 + 8))
    assert found["cuda"] == found["one group"]
    assert found["refresh"] == pytest.approx(1 - 8 / 12)


def test_the_texts_of_an_epoch_are_drawn_as_training_draws_them(small: Scenario) -> None:
    tokens, drawn = padding.steps(small, None)
    chosen = list(drawn)
    assert chosen
    assert all(0 < len(set(items)) == len(items) <= small.training.texts_per_step for items in chosen)
    found = padding.measure(tokens, chosen)
    assert 0 <= found["cpu"] <= found["one group"] < 1
