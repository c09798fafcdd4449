"""The shared rules: every bad row is kept with its reasons, nothing is lost, and what is good is really good."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtrec.config import Scenario, parse_scenario
from mtrec.data.contract import TYPES
from mtrec.data.parsing import EARLIEST
from mtrec.data.quarantine import (
    MAX_CHARACTERS,
    Checked,
    Ledger,
    check_dangling,
    count_repeats,
    find_garbled,
    read_table,
)
from mtrec.errors import RunError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SCENARIO = parse_scenario(
    {
        "name": "shop",
        "users": {"numeric": ["age"]},
        "items": {"numeric": ["price"]},
        "events": ["view", "rating"],
        "rating_range": [1, 5],
        "tasks": {
            "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
            "helpful": {"type": "binary", "on": "pair", "label": "interactions.helpful"},
        },
    }
)


@pytest.fixture
def scenario() -> Scenario:
    return SCENARIO


def interactions(**columns: list[Any]) -> pl.DataFrame:
    rows = len(next(iter(columns.values())))
    default = {
        "user_id": ["u1"] * rows,
        "item_id": ["i1"] * rows,
        "event": ["rating"] * rows,
        "rating": [3.0] * rows,
        "helpful": [None] * rows,
        "timestamp": ["2020-01-01"] * rows,
    }
    return pl.DataFrame({**default, **columns}, strict=False)


def items(**columns: list[Any]) -> pl.DataFrame:
    rows = len(next(iter(columns.values())))
    default = {"item_id": [f"i{i + 1}" for i in range(rows)], "title": ["t"] * rows, "price": [1.0] * rows}
    return pl.DataFrame({**default, **columns}, strict=False)


def check(name: str, frame: pl.DataFrame) -> Checked:
    return read_table(name, frame, SCENARIO, NOW).split()


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"user_id": [None]}, "missing user_id"),
        ({"item_id": ["  "]}, "missing item_id"),
        ({"event": [None]}, "missing event"),
        ({"event": ["buy"]}, "event is not one of view, rating"),
        ({"item_id": ["a\x00"]}, "control character in item_id"),
        ({"rating": ["good"]}, "rating is not a number"),
        ({"rating": [float("nan")]}, "rating is NaN or infinite"),
        ({"rating": [5.5]}, "rating is outside 1 to 5"),
        ({"helpful": ["perhaps"]}, "helpful is neither yes nor no"),
        ({"timestamp": [None]}, "missing timestamp"),
        ({"timestamp": [float("inf")]}, "timestamp is NaN or infinite"),
        ({"timestamp": ["soon"]}, "timestamp is not readable"),
        ({"timestamp": [0]}, "timestamp is before 1970-01-02"),
        ({"timestamp": ["2027-01-01"]}, "timestamp is in the future"),
        ({"user_id": ["x" * (MAX_CHARACTERS + 1)]}, "user_id is longer than 100000 characters"),
    ],
)
def test_each_rule_sends_the_row_to_quarantine(columns: dict[str, list[Any]], reason: str) -> None:
    frame = interactions(**columns)
    checked = check("interactions", frame)
    assert checked.good.height == 0
    assert checked.reasons == {reason: 1}
    assert checked.quarantined["reason"].to_list() == [reason]
    assert checked.quarantined["row"].to_list() == [0]
    assert checked.quarantined.select(frame.columns).equals(frame)


def test_a_row_names_all_its_reasons() -> None:
    checked = check("interactions", interactions(user_id=[""], rating=["9"], timestamp=["?"]))
    assert checked.quarantined["reason"].to_list() == [
        "missing user_id; timestamp is not readable; rating is outside 1 to 5"
    ]
    assert checked.reasons == dict.fromkeys(
        ["missing user_id", "timestamp is not readable", "rating is outside 1 to 5"], 1
    )


def test_missing_ratings_and_labels_are_no_fault() -> None:
    checked = check("interactions", interactions(rating=[None, "", "NA", "4"], helpful=[None, "", "yes", "no"]))
    assert checked.quarantined.height == 0
    assert checked.good["rating"].to_list() == [None, None, None, 4.0]
    assert checked.good["helpful"].to_list() == [None, None, 1.0, 0.0]


def test_good_rows_have_the_types_of_the_contract() -> None:
    good = check(
        "interactions", interactions(user_id=[1], item_id=[2.0], rating=["4"], timestamp=["1365156000"])
    ).good
    for name, dtype in TYPES["interactions"].items():
        assert good.schema[name] == dtype
    assert good.row(0)[:2] == ("1", "2")


def test_of_duplicate_keys_the_first_row_stays() -> None:
    checked = check("items", items(item_id=["a", "b", "a", "a"], title=["1", "2", "3", "4"]))
    assert checked.good["title"].to_list() == ["1", "2"]
    assert checked.quarantined["row"].to_list() == [2, 3]
    assert checked.reasons == {"duplicate item_id": 2}


def test_of_duplicate_keys_the_first_row_without_another_fault_stays() -> None:
    checked = check("items", items(item_id=["a", "a", "a"], title=["x" * (MAX_CHARACTERS + 1), "2", "3"]))
    assert checked.good["title"].to_list() == ["2"]
    assert checked.quarantined["reason"].to_list() == [
        "title is longer than 100000 characters; duplicate item_id",
        "duplicate item_id",
    ]


def test_missing_keys_are_not_also_duplicates() -> None:
    assert check("items", items(item_id=[None, None, "a"])).reasons == {"missing item_id": 2}


def test_a_bad_number_of_an_item_is_set_to_missing_and_kept_beside() -> None:
    checked = check("items", items(price=["1.5", "cheap", "inf", None]))
    assert checked.good["price"].to_list() == [1.5, None, None, None]
    assert checked.quarantined.height == 0
    assert checked.repairs == {"price is not a number": 1, "price is NaN or infinite": 1}
    assert checked.cells.select("price", "row", "reason").rows() == [
        ("cheap", 1, "price is not a number"),
        ("inf", 2, "price is NaN or infinite"),
    ]


def test_a_quarantined_row_is_not_also_counted_among_the_cells() -> None:
    checked = check("items", items(item_id=[None, "a"], price=["cheap", "1"]))
    assert checked.cells.height == 0
    assert checked.quarantined["price"].to_list() == ["cheap"]


def test_original_columns_named_row_and_reason_survive() -> None:
    frame = items(item_id=[None]).with_columns(row=pl.lit("r"), reason=pl.lit("why"))
    checked = check("items", frame)
    assert checked.quarantined.columns[-4:] == ["row", "reason", "row_", "reason_"]
    assert checked.quarantined["reason_"].to_list() == ["missing item_id"]


def dangling(users: pl.DataFrame, things: pl.DataFrame, frame: pl.DataFrame) -> Checked:
    ledgers = {
        name: read_table(name, table, SCENARIO, NOW)
        for name, table in (("users", users), ("items", things), ("interactions", frame))
    }
    check_dangling(ledgers["interactions"], users=ledgers["users"], items=ledgers["items"])
    return ledgers["interactions"].split()


def test_dangling_ids_and_ids_of_quarantined_rows() -> None:
    users = pl.DataFrame({"user_id": ["u1", "u\x00"], "age": [1, 2]})
    things = items(item_id=["i1", "i2"], title=["t", "x" * (MAX_CHARACTERS + 1)])
    checked = dangling(
        users, things, interactions(user_id=["u1", "u1", "u1", "u9"], item_id=["i1", "i2", "i9", "i1"])
    )
    assert checked.good["item_id"].to_list() == ["i1"]
    assert checked.quarantined["reason"].to_list() == [
        "dangling item_id (items row in quarantine)", "dangling item_id", "dangling user_id",
    ]  # fmt: skip


def test_ids_match_across_types_and_blanks() -> None:
    users = pl.DataFrame({"user_id": [1.0], "age": [1]})
    checked = dangling(users, items(item_id=[7]), interactions(user_id=[" 1"], item_id=["7 "]))
    assert checked.quarantined.height == 0


def test_with_an_empty_users_table_no_user_dangles() -> None:
    users = pl.DataFrame({"user_id": [], "age": []}, schema={"user_id": pl.String, "age": pl.Int64})
    checked = dangling(users, items(item_id=["i1"]), interactions(user_id=["anyone"]))
    assert checked.good.height == 1


def test_repeated_interactions_are_counted_and_stay() -> None:
    checked = check("interactions", interactions(rating=[3, 3, 4], timestamp=["2020-01-01"] * 3))
    assert checked.good.height == 3
    assert count_repeats(checked.good) == 2


def test_wrong_encodings_are_found() -> None:
    frame = pl.DataFrame({"title": ["FantÃ´mas", "Caf\ufffd", "Fantômas", "â€œquotedâ€", "ÄÖÜ ÀÉ"], "n": [1] * 5})
    assert find_garbled(frame) == {"title": 3}
    assert find_garbled(pl.DataFrame({"n": [1]})) == {}


def test_rows_that_do_not_add_up_are_a_defect() -> None:
    ledger = Ledger(name="items", original=items(item_id=["a", "b"]), typed=items(item_id=["a", "b"]))
    ledger.add_fault("a mask with a hole loses a row", pl.Series([True, None]))
    with pytest.raises(RunError, match="0 good and 1 quarantined rows do not add up to 2"):
        ledger.split()


# ------------------------------------------------------------------------------------------------- properties

TEXT = st.sampled_from(
    [
        "",
        " ",
        "a",
        "b",
        "1",
        "1.0",
        "nan",
        "inf",
        "NULL",
        "x\x00",
        "9",
        "2020-01-01",
        "1e400",
        "view",
        "rating",
        "é",
        "0",
    ]
)
CELLS: list[st.SearchStrategy[Any]] = [
    TEXT,
    st.text(max_size=4),
    st.integers(-(2**62), 2**62),
    st.integers(0, 3),
    st.floats(width=32),
    st.booleans(),
    st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)),
    st.dates(),
    st.none(),
]


@st.composite
def dirty_frame(draw: st.DrawFn, names: list[str]) -> pl.DataFrame:
    rows = draw(st.integers(1, 8))
    columns = {}
    for name in names:
        cell = draw(st.sampled_from(CELLS))
        columns[name] = pl.Series(
            name, draw(st.lists(cell | st.none(), min_size=rows, max_size=rows)), strict=False
        )
    return pl.DataFrame(columns)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    users=dirty_frame(["user_id", "age"]),
    things=dirty_frame(["item_id", "title", "price"]),
    frame=dirty_frame(["user_id", "item_id", "event", "rating", "helpful", "timestamp"]),
)
def test_good_and_quarantined_are_the_input_and_good_is_good(
    users: pl.DataFrame, things: pl.DataFrame, frame: pl.DataFrame
) -> None:
    tables = {"users": users, "items": things, "interactions": frame}
    ledgers = {name: read_table(name, table, SCENARIO, NOW) for name, table in tables.items()}
    check_dangling(ledgers["interactions"], users=ledgers["users"], items=ledgers["items"])
    for name, ledger in ledgers.items():
        checked = ledger.split()
        rows = checked.quarantined["row"].to_list()
        assert sorted([*rows, *ledger.good_positions]) == list(range(tables[name].height))
        assert checked.quarantined.drop("row", "reason").equals(tables[name][rows])
        assert all(checked.quarantined["reason"].str.len_chars() > 0)
        reasons = [reason for cell in checked.quarantined["reason"] for reason in cell.split("; ")]
        assert {reason: reasons.count(reason) for reason in reasons} == checked.reasons
        for column, dtype in TYPES[name].items():
            assert checked.good.schema[column] == dtype
    good = {name: ledger.split().good for name, ledger in ledgers.items()}
    assert good["users"]["user_id"].is_unique().all()
    assert good["items"]["item_id"].is_unique().all()
    kept = good["interactions"]
    assert kept["item_id"].is_in(good["items"]["item_id"].implode()).all()
    assert kept["event"].is_in(["view", "rating"]).all()
    assert kept["rating"].drop_nulls().is_between(1, 5).all()
    assert kept["helpful"].drop_nulls().is_in([0.0, 1.0]).all()
    assert kept["timestamp"].is_between(EARLIEST, NOW + timedelta(days=1)).all()
    assert kept.select("user_id", "item_id", "event", "timestamp").null_count().sum_horizontal().item() == 0
