"""The start of pair tasks: shrunken biases in closed form."""

import numpy as np
import pytest

from mtrec.models.biases import as_log_odds, fit_biases, shrinkage


def simulate(
    rng: np.random.Generator, spread: float
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """20,000 rows of 400 users and 300 items; noise of variance 1."""
    users, items = rng.integers(1, 401, 20_000), rng.integers(1, 301, 20_000)
    truth = np.r_[0.0, rng.normal(0, spread, 400)]
    return (users, items), truth, truth[users] + rng.normal(0, 1.0, 20_000)


@pytest.mark.parametrize("spread", [0.3, 0.5, 1.0])
def test_the_shrinkage_is_the_ratio_of_variances(spread: float) -> None:
    (users, _), truth, value = simulate(np.random.default_rng(0), spread)
    assert shrinkage(users, value, 401) == pytest.approx(1 / truth[1:].var(), rel=0.1)


def test_groups_that_do_not_differ_are_shrunk_to_nothing() -> None:
    assert shrinkage(np.array([1, 1, 2, 2]), np.array([1.0, -1.0, 1.0, -1.0]), 3) == np.inf
    users, items = np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])
    for bias in fit_biases((users, items), np.zeros(4), (3, 3)):
        assert bias.tolist() == [0, 0, 0]


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_rows_give_no_bias(rows: int) -> None:
    one = np.ones(rows, dtype=np.int64)
    assert shrinkage(one, np.ones(rows), 3) == np.inf
    user, item = fit_biases((one, one), np.ones(rows), (3, 2))
    assert user.tolist() == [0, 0, 0]
    assert item.tolist() == [0, 0]


def test_a_group_is_its_mean_shrunk_by_its_number_of_rows() -> None:
    """One user group only, by hand: b = Σ r / (n + λ)."""
    users = np.array([1, 1, 1, 2, 2, 3])
    value = np.array([1.0, 2.0, 1.5, -1.0, -2.0, 0.5])
    ones = np.ones(6, dtype=np.int64)  # a single item: no differences between items, λ infinite
    found, item = fit_biases((users, ones), value, (4, 2))
    ratio = shrinkage(users, value, 4)
    assert found == pytest.approx([0, 4.5 / (3 + ratio), -3 / (2 + ratio), 0.5 / (1 + ratio)])
    assert item.tolist() == [0, 0]


def test_biases_of_both_sides_are_found_under_noise() -> None:
    rng = np.random.default_rng(1)
    (users, items), truth, value = simulate(rng, 0.7)
    tastes = np.r_[0.0, rng.normal(0, 0.5, 300)]
    user, item = fit_biases((users, items), value + tastes[items], (401, 301))
    assert np.corrcoef(user, truth)[0, 1] > 0.95
    assert np.corrcoef(item, tastes)[0, 1] > 0.95
    raw = np.bincount(users, value + tastes[items], 401)[1:] / np.bincount(users, minlength=401)[1:]
    assert np.square(user[1:] - truth[1:]).mean() < np.square(raw - truth[1:]).mean()


def test_slots_without_rows_and_the_unknown_stay_at_zero() -> None:
    users, items = np.array([0, 1, 1, 2, 0, 2]), np.array([1, 1, 2, 2, 2, 0])
    user, item = fit_biases((users, items), np.array([3.0, 2.0, 2.5, -2.0, 3.0, -2.5]), (5, 4))
    assert user[[0, 3, 4]].tolist() == [0, 0, 0]
    assert item[[0, 3]].tolist() == [0, 0]
    assert user[1] > 0 > user[2]


@pytest.mark.parametrize(
    ("share", "bias", "wanted"),
    [
        (0.5, 0.0, 0.0),
        (0.5, 0.25, np.log(3)),
        (0.5, -0.25, -np.log(3)),
        (0.5, 0.9, np.log(0.95 / 0.05)),  # clipped at 0.95
        (0.1, -0.5, np.log(0.01 / 0.99) - np.log(0.1 / 0.9)),
    ],
)
def test_a_bias_of_a_probability_as_log_odds(share: float, bias: float, wanted: float) -> None:
    assert as_log_odds(np.array([bias]), share) == pytest.approx([wanted])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_label_that_never_varies_has_biases_of_zero(share: float) -> None:
    assert as_log_odds(np.zeros(3), share).tolist() == [0, 0, 0]
