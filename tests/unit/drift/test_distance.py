"""The distance is a bounded metric; chance and multiplicity are accounted for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import jensenshannon

from mtrec.drift.distance import block_sums, chance_distances, holm, js_distance, tail_probability

histograms = st.lists(st.integers(0, 50), min_size=4, max_size=4).map(lambda x: np.array(x, dtype=float))


@given(histograms, histograms, histograms)
def test_it_is_a_bounded_metric(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> None:
    if not (p.any() and q.any() and r.any()):
        return
    pq, qp, qr, pr = js_distance(np.stack([p, q, q, p]), np.stack([q, p, r, r]))
    assert 0 <= pq <= 1
    assert pq == pytest.approx(qp)
    assert pr <= pq + qr + 1e-9
    assert pq == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-6)
    assert js_distance(p[None], 3 * p[None])[0] == pytest.approx(0, abs=1e-7)


def test_the_ends_of_the_scale() -> None:
    p, q = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 9.0], [5.0, 5.0], [1.0, 1.0]])
    assert js_distance(p, q).tolist() == [1.0, 0.0, 0.0]


def test_blocks_are_summed() -> None:
    shares = sparse.csr_matrix(np.array([[1.0, 0], [0, 1], [0.5, 0.5]]))
    assert block_sums(shares, np.array([1, 0, 1]), 2).toarray().tolist() == [[0, 1], [1.5, 0.5]]


def drawn(rng: np.random.Generator, blocks: int, rows: int, clumped: float) -> sparse.csr_matrix:
    """Blocks whose rows resemble each other: `clumped` is the share of a block that is all of one bin."""
    favourite = rng.integers(0, 5, blocks)
    counts = rng.multinomial(rows, [0.2] * 5, size=blocks) * (1 - clumped)
    counts[np.arange(blocks), favourite] += rows * clumped
    return sparse.csr_matrix(counts)


def test_chance_grows_where_the_rows_of_a_block_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    alone, clumped = (chance_distances(drawn(rng, 400, 10, share), 50).mean() for share in (0.0, 0.8))
    assert clumped > 2 * alone


def test_chance_shrinks_with_the_window() -> None:
    reference = drawn(np.random.default_rng(1), 1000, 10, 0.5)
    small, large = (chance_distances(reference, size).mean() for size in (40, 360))
    assert small / large == pytest.approx(3, rel=0.35)  # √(360 / 40), a little less for the rest that shrinks


def test_windows_without_drift_are_rarely_improbable() -> None:
    """5 % of them at a level of 5 %, and few beyond the draws' own resolution."""
    rng = np.random.default_rng(2)
    reference = drawn(rng, 1200, 8, 0.6)
    chance, total = chance_distances(reference, 100), np.asarray(reference.sum(0))
    found = []
    for _ in range(400):
        window = np.asarray(drawn(rng, 100, 8, 0.6).sum(0))
        found.append(tail_probability(float(js_distance(window, total)[0]), chance))
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert np.mean(np.array(found) < 0.001) <= 0.01


def test_a_distance_far_beyond_chance_is_improbable() -> None:
    chance = chance_distances(drawn(np.random.default_rng(3), 500, 5, 0.3), 60)
    assert tail_probability(0.0, chance) == 1.0
    assert tail_probability(4 * chance.max(), chance) < 1e-9


def test_a_reference_that_never_varies() -> None:
    chance = chance_distances(sparse.csr_matrix(np.tile([2.0, 0.0], (80, 1))), 30)
    assert not chance.any()
    assert tail_probability(0.0, chance) == 1.0
    assert tail_probability(0.2, chance) == 0.0


def test_the_same_seed_draws_the_same() -> None:
    reference = drawn(np.random.default_rng(4), 100, 5, 0.3)
    assert np.array_equal(chance_distances(reference, 40, seed=1), chance_distances(reference, 40, seed=1))
    assert not np.array_equal(chance_distances(reference, 40, seed=1), chance_distances(reference, 40, seed=2))


def test_holm_by_hand() -> None:
    assert holm({"a": 0.001, "b": 0.02, "c": 0.03}, 0.05) == {"a": True, "b": True, "c": True}
    assert holm({"a": 0.017, "b": 0.001, "c": 0.03}, 0.04) == {"a": True, "b": True, "c": True}
    assert holm({"a": 0.03, "b": 0.001, "c": 0.9}, 0.05) == {"a": False, "b": True, "c": False}
    assert holm({"a": 0.02, "b": 0.021, "c": 0.022}, 0.05) == {"a": False, "b": False, "c": False}
    assert holm({}, 0.05) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.4))
def test_holm_lies_between_bonferroni_and_no_correction(given_: dict[str, float], alpha: float) -> None:
    for name, found in holm(given_, alpha).items():
        if given_[name] <= alpha / len(given_):
            assert found
        if found:
            assert given_[name] <= alpha


def test_holm_keeps_false_alarms_at_their_share() -> None:
    rng = np.random.default_rng(5)
    alarms = [any(holm(dict(enumerate(rng.random(12))), 0.05).values()) for _ in range(2000)]  # type: ignore[arg-type]
    assert 0.03 <= np.mean(alarms) <= 0.065
