"""Cells of every shape become the contract's types, or are named as faults."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from mtrec.data.parsing import Parsed, find_long, parse_flag, parse_key, parse_list, parse_number, parse_text
from mtrec.data.parsing import parse_timestamp as parse_timestamp_at

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def parse_timestamp(column: pl.Series) -> Parsed:
    return parse_timestamp_at(column.alias("timestamp"), NOW)


def faults_of(parsed: Parsed, row: int) -> list[str]:
    return [reason for reason, rows in parsed.faults.items() if rows[row]]


@pytest.mark.parametrize(
    "cell",
    [
        "2013-04-05 10:00:00",
        "2013-04-05T10:00:00",
        "2013-04-05T10:00:00Z",
        "2013-04-05 10:00:00 UTC",
        "2013-04-05T12:00:00+02:00",
        "2013-04-05T12:00:00+0200",
        "2013-04-05T12:00:00+02",
        "2013-04-05 04:30:00-05:30",
        "2013-04-05T10:00:00.000",
        "2013-04-05 10:00",
        "2013/04/05 10:00:00",
        " 2013-04-05 10:00:00 ",
        "20130405100000",
        "1365156000",
        "1365156000.0",
        "1365156000000",
        "1365156000000000",
        "1365156000000000000",
        1365156000,
        1365156000.0,
        1365156000000,
        1365156000000000,
        1365156000000000000,
        20130405100000,
        datetime(2013, 4, 5, 10),
        datetime(2013, 4, 5, 10, tzinfo=UTC),
    ],
)
def test_one_moment_in_many_forms(cell: object) -> None:
    parsed = parse_timestamp(pl.Series([cell]))
    assert parsed.values.dtype == pl.Datetime("us", "UTC")
    assert parsed.values[0] == datetime(2013, 4, 5, 10, tzinfo=UTC)
    assert faults_of(parsed, 0) == []


@pytest.mark.parametrize("cell", ["2013-04-05", "2013/4/5", "20130405", 20130405, date(2013, 4, 5)])
def test_a_date_is_its_midnight(cell: object) -> None:
    assert parse_timestamp(pl.Series([cell])).values[0] == datetime(2013, 4, 5, tzinfo=UTC)


def test_forms_may_be_mixed_in_one_column() -> None:
    cells = ["2013-04-05", "1365156000", "2013-04-05T12:00:00.25+02:00", None, "gestern"]
    parsed = parse_timestamp(pl.Series(cells))
    assert parsed.values.to_list() == [
        datetime(2013, 4, 5, tzinfo=UTC),
        datetime(2013, 4, 5, 10, tzinfo=UTC),
        datetime(2013, 4, 5, 10, 0, 0, 250_000, tzinfo=UTC),
        None,
        None,
    ]
    assert faults_of(parsed, 3) == ["missing timestamp"]
    assert faults_of(parsed, 4) == ["timestamp is not readable"]


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        (None, "missing timestamp"),
        ("  ", "missing timestamp"),
        ("NULL", "missing timestamp"),
        ("NaT", "missing timestamp"),
        ("nan", "timestamp is NaN or infinite"),
        (float("nan"), "timestamp is NaN or infinite"),
        (float("inf"), "timestamp is NaN or infinite"),
        ("05/04/2013", "timestamp is not readable"),
        ("2013-02-30", "timestamp is not readable"),
        ("2013-04-05T25:00:00", "timestamp is not readable"),
        (20130230, "timestamp is not readable"),
        ("1e300", "timestamp is not readable"),
        (True, "timestamp is not readable"),
        (timedelta(days=3), "timestamp is not readable"),
        (0, "timestamp is before 1970-01-02"),
        (-5, "timestamp is before 1970-01-02"),
        ("1969-12-31", "timestamp is before 1970-01-02"),
        ("2026-06-02T00:00:01Z", "timestamp is in the future"),
        ("9999-12-31", "timestamp is in the future"),
    ],
)
def test_impossible_timestamps_are_named_and_left_out(cell: object, fault: str) -> None:
    parsed = parse_timestamp(pl.Series([cell], dtype=None if cell is not None else pl.String))
    assert faults_of(parsed, 0) == [fault]
    assert parsed.values[0] is None


def test_a_day_of_clock_difference_is_allowed() -> None:
    assert faults_of(parse_timestamp(pl.Series(["2026-06-02T00:00:00Z"])), 0) == []


def test_zoned_datetimes_are_moved_to_utc() -> None:
    paris = (
        pl.Series([datetime(2013, 7, 1, 12)])
        .dt.replace_time_zone("Europe/Paris")
        .cast(pl.Datetime("ms", "Europe/Paris"))
    )
    assert parse_timestamp(paris).values[0] == datetime(2013, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", " 2 ", "-3"], [1, 2, -3]),
        (["1.5", "1e3", None], [1.5, 1000.0, None]),
        (["", "NA", "n/a", "null", "\\N", "4"], [None, None, None, None, None, 4]),
        ([1, None, 3], [1, None, 3]),
        ([1.5, 2.0], [1.5, 2.0]),
        ([True, False], [1.0, 0.0]),
        ([Decimal("1.25")], [1.25]),
        ([None], [None]),
    ],
)
def test_numbers(cells: list[object], values: list[float | None]) -> None:
    parsed = parse_number(pl.Series("price", cells))
    assert parsed.values.to_list() == values
    assert not any(rows.any() for rows in parsed.faults.values())


def test_a_year_stays_a_whole_number_but_a_rating_is_a_float() -> None:
    assert parse_number(pl.Series("year", ["1995", "2001"])).values.dtype == pl.Int64
    assert parse_number(pl.Series("rating", ["4", "5"]), keep_integers=False).values.dtype == pl.Float64
    assert parse_number(pl.Series("rating", [4, 5], dtype=pl.Int8), keep_integers=False).values.dtype == pl.Float64


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("4,5", "price is not a number"),
        ("£3", "price is not a number"),
        ("1_000", "price is not a number"),
        ("nan", "price is NaN or infinite"),
        ("-Infinity", "price is NaN or infinite"),
        (float("inf"), "price is NaN or infinite"),
        (date(2020, 1, 1), "price is not a number"),
    ],
)
def test_what_is_no_number_is_named_and_left_out(cell: object, fault: str) -> None:
    parsed = parse_number(pl.Series("price", [cell]))
    assert faults_of(parsed, 0) == [fault]
    assert parsed.values[0] is None


@pytest.mark.parametrize("cell", [None, "", "   ", "NaN", "None", "null", "<NA>"])
def test_missing_keys(cell: str | None) -> None:
    parsed = parse_key(pl.Series("user_id", [cell], dtype=pl.String))
    assert faults_of(parsed, 0) == ["missing user_id"]


def test_keys_become_trimmed_text_and_whole_floats_lose_their_point() -> None:
    assert parse_key(pl.Series("user_id", [17850.0, 1.5, float("nan")])).values.to_list() == ["17850", "1.5", None]
    assert parse_key(pl.Series("user_id", [7, 8])).values.to_list() == ["7", "8"]
    assert parse_key(pl.Series("user_id", [" a7 ", "0012"])).values.to_list() == ["a7", "0012"]


def test_control_characters_in_keys_are_a_fault() -> None:
    parsed = parse_key(pl.Series("item_id", ["a\x00b", "a\tb", "ab"]))
    assert [faults_of(parsed, row) for row in range(3)] == [["control character in item_id"]] * 2 + [[]]


def test_flags() -> None:
    parsed = parse_flag(pl.Series("helpful", ["true", "No", "1", "0", "", "maybe", "2"]))
    assert parsed.values.to_list() == [1.0, 0.0, 1.0, 0.0, None, None, None]
    assert [bool(faults_of(parsed, row)) for row in range(7)] == [False] * 5 + [True] * 2
    assert parse_flag(pl.Series("helpful", [True, None])).values.to_list() == [1.0, None]
    assert parse_flag(pl.Series("helpful", [1.0, 0.0])).values.to_list() == [1.0, 0.0]


def test_text_and_lists() -> None:
    assert parse_text(pl.Series("region", [1.0, 2.5, None])).values.to_list() == ["1", "2.5", None]
    assert parse_list(pl.Series("tags", [[1, 2], None])).values.to_list() == [["1", "2"], None]
    assert parse_list(pl.Series("tags", [[1, 2]], dtype=pl.Array(pl.Int64, 2))).values.to_list() == [["1", "2"]]
    assert parse_list(pl.Series("tags", [None])).values.dtype == pl.List(pl.String)


def test_long_text_is_counted_in_characters() -> None:
    rows = find_long(pl.Series(["é" * 10, "é" * 11, None]), limit=10)
    assert rows.to_list() == [False, True, False]


DTYPES = [pl.Duration("us"), pl.Time, pl.Boolean, pl.Null, pl.Int8, pl.Categorical, pl.Decimal(9, 2)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_and_all_missing_columns_of_any_type_are_read(dtype: pl.DataType) -> None:
    for cells in ([], [None, None]):
        column = pl.Series("timestamp", cells, dtype=dtype)
        assert parse_timestamp(column).values.dtype == pl.Datetime("us", "UTC")
        assert parse_number(column).values.null_count() == len(cells)
        assert parse_flag(column).values.dtype == pl.Float64
        assert parse_key(column).values.dtype == pl.String
