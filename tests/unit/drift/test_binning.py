"""Columns of any kind become shares of bins; nothing that is empty or new falls out."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.drift.binning import MAX_CATEGORIES, QUANTILES, Binning, Kind


def shares(reference: pl.Series, kind: Kind, column: pl.Series) -> dict[str, float]:
    """Share of each bin that is not empty, by its name."""
    binning = Binning.fit(reference, kind)
    sums = np.asarray(binning.shares(column).sum(0)).ravel() / len(column)
    return {name: float(share) for name, share in zip(binning.names(), sums, strict=True) if share > 0}


def test_categories_new_values_and_empty_cells() -> None:
    reference = pl.Series("n", ["a", "a", "b", None])
    assert shares(reference, "category", pl.Series(["a", "b", "c", None, "d"])) == {
        "(empty)": 0.2, "(other)": 0.4, "a": 0.2, "b": 0.2,
    }  # fmt: skip


def test_rare_categories_share_a_bin() -> None:
    values = [f"v{i:03d}" for i in range(MAX_CATEGORIES + 9) for _ in range(1 + (i < MAX_CATEGORIES))]
    binning = Binning.fit(pl.Series(values), "category")
    assert binning.num_bins == 2 + MAX_CATEGORIES
    counts = np.asarray(binning.shares(pl.Series(values)).sum(0)).ravel()
    assert counts[1] == 9
    assert set(counts[2:]) == {2.0}


def test_the_most_frequent_come_first_and_ties_by_name() -> None:
    assert Binning.fit(pl.Series(["b", "c", "c", "a"]), "category").categories == ["c", "a", "b"]


def test_yes_and_no_are_categories_too() -> None:
    assert shares(pl.Series([True, False]), "category", pl.Series([True, None])) == {"(empty)": 0.5, "true": 0.5}


def test_few_distinct_numbers_have_a_bin_each() -> None:
    reference = pl.Series([1.0, 2, 2, 5])
    assert shares(reference, "number", pl.Series([1.0, 2, 5, 9])) == {
        "up to 1": 0.25,
        "1 to 2": 0.25,
        "over 2": 0.5,
    }
    assert shares(pl.Series([3, 3]), "number", pl.Series([3, 4, None, 4])) == {"(empty)": 0.25, "any": 0.75}


def test_many_numbers_fall_between_deciles() -> None:
    reference = pl.Series(np.arange(1000.0))
    binning = Binning.fit(reference, "number")
    counts = np.asarray(binning.shares(reference).sum(0)).ravel()
    assert counts[:2].tolist() == [0, 0]
    assert len(counts) == 2 + QUANTILES
    assert np.abs(counts[2:] - 100).max() <= 1


def test_gaps_and_nan_are_empty_and_extremes_lie_at_the_ends() -> None:
    reference = pl.Series([float(i) for i in range(100)] + [None, float("nan")])
    found = shares(reference, "number", pl.Series([None, float("nan"), -1e9, 1e9]))
    assert found.pop("(empty)") == 0.5
    assert list(found.values()) == [0.25, 0.25]
    assert next(iter(found)).startswith("up to")
    assert list(found)[-1].startswith("over")


def test_a_cell_of_several_values_is_shared_between_them() -> None:
    reference = pl.Series([["x", "y"], ["x"]])
    column = pl.Series([["x", "y"], ["x", "z"], [], None])
    assert shares(reference, "values", column) == {"(empty)": 0.5, "(other)": 0.125, "x": 0.25, "y": 0.125}


@pytest.mark.parametrize("kind", ["number", "category", "values"])
def test_a_reference_without_values_still_has_bins(kind: Kind) -> None:
    types = {"number": pl.Float64(), "category": pl.String(), "values": pl.List(pl.String())}
    nothing = pl.Series([None, None], dtype=types[kind])
    assert shares(nothing, kind, nothing) == {"(empty)": 1.0}


numbers = st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=False)), min_size=1, max_size=60)
words = st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1, max_size=60)
sets = st.lists(st.one_of(st.none(), st.lists(st.sampled_from("abcde"), max_size=4)), min_size=1, max_size=40)


@given(numbers, numbers, words, words, sets, sets)
def test_every_row_counts_once(n1: list, n2: list, w1: list, w2: list, s1: list, s2: list) -> None:
    cases: list[tuple[Kind, list, list, pl.DataType]] = [
        ("number", n1, n2, pl.Float64()), ("category", w1, w2, pl.String()),
        ("values", s1, s2, pl.List(pl.String())),
    ]  # fmt: skip
    for kind, reference, column, dtype in cases:
        binning = Binning.fit(pl.Series(reference, dtype=dtype), kind)
        matrix = binning.shares(pl.Series(column, dtype=dtype))
        assert matrix.shape == (len(column), binning.num_bins) == (len(column), len(binning.names()))
        assert np.allclose(matrix.sum(1), 1)
        assert matrix.data.min() > 0
