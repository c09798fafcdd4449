"""Feature encodings."""

import json
import math
from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.config import Columns
from mtrec.data.features import CLIP, MAX_VALUES, TableFeatures, codes, list_codes, values_by_count
from mtrec.errors import DataError

COLUMNS = Columns(numeric=["age"], categorical=["city"], multi=["tags"])
TRAIN = pl.DataFrame(
    {
        "user_id": ["a", "b", "c", "d"],
        "age": [10, 20, 30, None],
        "city": ["Rome", "Oslo", "Oslo", None],
        "tags": [["red", "blue"], ["red"], [], None],
    }
)


@pytest.fixture(scope="module")
def fitted() -> TableFeatures:
    return TableFeatures.fit(TRAIN, "user_id", COLUMNS)


def test_the_fit_is_the_statistics_of_the_given_rows(fitted: TableFeatures) -> None:
    mean, std = fitted.numeric["age"]
    assert mean == 20
    assert std == pytest.approx(math.sqrt(200 / 3))
    assert fitted.ids == ["a", "b", "c", "d"]
    assert fitted.categorical == {"city": ["Oslo", "Rome"]}
    assert fitted.multi == {"tags": ["red", "blue"]}


def test_seen_and_unseen_rows_are_encoded(fitted: TableFeatures) -> None:
    rows = pl.DataFrame(
        {
            "user_id": ["b", "new", "d"],
            "age": [30.0, float("inf"), None],
            "city": ["Rome", "Paris", None],
            "tags": [["blue", "green", "red"], None, ["green"]],
        }
    )
    found = fitted.transform(rows)
    assert found.numeric == pytest.approx(np.array([[10 / math.sqrt(200 / 3), 0], [0, 1], [0, 1]]))
    assert found.numeric.dtype == np.float32
    assert found.categorical.tolist() == [[2], [0], [0]]
    assert found.multi[:, 0, :3].tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.multi.shape == (3, 1, MAX_VALUES)
    assert found.ids.tolist() == [2, 0, 4]


def test_text_under_numeric_is_refused_and_not_taken_for_missing() -> None:
    rows = TRAIN.with_columns(age=pl.Series(["old", "12", "young", None]))
    with pytest.raises(DataError) as caught:
        TableFeatures.fit(rows, "user_id", COLUMNS)
    assert str(caught.value) == (
        "users.numeric: column 'age': 2 of 3 values are not numbers, e.g. 'old'. Name it under users.categorical "
        "in the scenario, or map the right column in its source."
    )
    digits = TRAIN.with_columns(age=pl.Series(["10", "20", "x", None]))
    assert TableFeatures.fit(digits, "user_id", COLUMNS).numeric["age"] == (15.0, 5.0)


def test_outliers_are_clipped(fitted: TableFeatures) -> None:
    rows = TRAIN.with_columns(age=pl.Series([1e9, -1e9, 20.0, 20.0]))
    assert fitted.transform(rows).numeric[:, 0].tolist() == [CLIP, -CLIP, 0, 0]


@pytest.mark.parametrize("ages", [[5.0, 5.0], [None, None], [float("nan"), float("inf")]])
def test_columns_without_spread_or_numbers_stay_finite(ages: list[float | None]) -> None:
    rows = pl.DataFrame({"user_id": ["a", "b"], "age": ages}, schema_overrides={"age": pl.Float64})
    fitted = TableFeatures.fit(rows, "user_id", Columns(numeric=["age"]))
    found = fitted.transform(rows).numeric
    assert np.isfinite(found).all()
    assert found[:, 0].tolist() == [0, 0]
    assert fitted.numeric["age"][1] == 1.0


def test_a_table_without_features_still_has_ids() -> None:
    found = TableFeatures.fit(TRAIN, "user_id", Columns()).transform(TRAIN)
    assert found.numeric.shape == (4, 0)
    assert found.categorical.shape == (4, 0)
    assert found.multi.shape == (4, 0, MAX_VALUES)
    assert found.ids.tolist() == [1, 2, 3, 4]


def test_json_brings_back_an_equal_encoding(fitted: TableFeatures) -> None:
    assert TableFeatures.from_dict(json.loads(json.dumps(fitted.as_dict()))) == fitted


def test_values_are_ordered_by_count_then_name() -> None:
    assert values_by_count(pl.Series(["b", "a", "c", "c", None])) == ["c", "a", "b"]
    assert values_by_count(pl.Series([["b", "b"], ["a"], ["b", None]])) == ["b", "a"]
    assert values_by_count(pl.Series([["x"], ["y"], ["x"]]), min_count=2) == ["x"]
    assert values_by_count(pl.Series([], dtype=pl.String)) == []


def test_values_that_are_numbers_are_known_again() -> None:
    column = pl.Series([3, 1, 3, None])
    values = values_by_count(column)
    assert values == ["3", "1"]
    assert codes(column, values).tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([True, False, True, None]),
        pl.Series([0.5, 1e-7, 0.5, None]),
        pl.Series([date(2026, 1, 2), date(2026, 1, 3), date(2026, 1, 2), None]),
        pl.Series([datetime(2026, 1, 2, 3), datetime(2026, 1, 3), datetime(2026, 1, 2, 3), None]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_categories_of_any_type_are_known_again(column: pl.Series) -> None:
    table = pl.DataFrame({"user_id": ["a", "b", "c", "d"], "kind": column})
    found = TableFeatures.fit(table, "user_id", Columns(categorical=["kind"])).transform(table)
    assert found.categorical[:, 0].tolist() == [1, 2, 1, 0]


def test_single_values_serve_as_a_multi_valued_column() -> None:
    table = pl.DataFrame({"user_id": ["a", "b", "c"], "tag": ["red", None, "blue"]})
    found = TableFeatures.fit(table, "user_id", Columns(multi=["tag"])).transform(table)
    assert found.multi[:, 0, :2].tolist() == [[2, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            Columns(numeric=["height"]),
            "users.numeric: column 'height' is not in the users table (found: user_id, age",
        ),
        (Columns(categorical=["tags"]), "users.categorical: column 'tags' holds lists; name it under users.multi"),
    ],
)
def test_columns_that_do_not_fit_are_named(columns: Columns, said: str, fitted: TableFeatures) -> None:
    with pytest.raises(DataError) as caught:
        TableFeatures.fit(TRAIN, "user_id", columns)
    assert str(caught.value).startswith(said)
    with pytest.raises(DataError, match="'age' is not in the users table"):
        fitted.transform(TRAIN.drop("age"))


def test_long_lists_keep_the_first_known_values() -> None:
    cells = pl.Series([["?", *[f"t{n}" for n in range(30)]]])
    found = list_codes(cells, [f"t{n}" for n in range(30)], width=4)
    assert found.tolist() == [[1, 2, 3, 4]]


@given(
    known=st.lists(st.text(max_size=3), unique=True, max_size=6),
    cells=st.lists(st.none() | st.text(max_size=3), max_size=12),
)
def test_codes_are_places_in_the_vocabulary_and_zero_elsewhere(known: list[str], cells: list[str | None]) -> None:
    found = codes(pl.Series(cells, dtype=pl.String), known)
    wanted = [known.index(cell) + 1 if cell in known else 0 for cell in cells]
    assert found.tolist() == wanted
    assert found.dtype == np.int64
    assert found.flags.writeable
