"""Great Expectations judges tables; its answers come back as plain outcomes with row numbers."""

import json
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.expectations import Judge, Judgement, Outcome
from mtrec.errors import ConfigError

ITEMS = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Lamp", None, "Red chair", "x"],
        "price": [5.0, -1.0, None, 20.0],
        "cost": [4.0, 1.0, 2.0, 30.0],
        "tags": [["home"], [], None, ["home", "red"]],
        "seen": [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)],
    }
)
ROWS = pl.Series([10, 11, 12, 13])


def scenario_with(*expectations: dict[str, Any]) -> Scenario:
    return parse_scenario(
        {
            "name": "shop",
            "validation": {"expectations": [{"table": "items", **e} for e in expectations]},
            "tasks": {"next_item": {"type": "next_item"}},
        }
    )


def expect(type_: str, **settings: Any) -> dict[str, Any]:
    own = {key: settings.pop(key) for key in ("severity", "quarantine", "table") if key in settings}
    return {"type": type_, "arguments": settings, **own}


def judge(*expectations: dict[str, Any]) -> Judgement:
    return Judge(scenario_with(*expectations)).judge("items", ITEMS, ROWS)


def judge_one(type_: str, **settings: Any) -> Outcome:
    (outcome,) = judge(expect(type_, **settings)).outcomes
    return outcome


@pytest.mark.parametrize(
    ("type_", "arguments", "rows"),
    [
        ("expect_column_values_to_not_be_null", {"column": "title"}, (11,)),
        ("expect_column_values_to_be_between", {"column": "price", "min_value": 0, "max_value": 10}, (11, 13)),
        ("expect_column_values_to_be_in_set", {"column": "item_id", "value_set": ["a", "b"]}, (12, 13)),
        ("expect_column_values_to_match_regex", {"column": "title", "regex": "^[A-Z](.*)$"}, (13,)),
        (
            "expect_column_value_lengths_to_be_between",
            {"column": "title", "min_value": 2, "max_value": 5},
            (12, 13),
        ),
        ("expect_column_values_to_match_regex", {"column": "tags", "regex": "(^|[|])red($|[|])"}, (10,)),
        ("expect_column_values_to_not_be_null", {"column": "tags"}, (11, 12)),
        ("expect_column_values_to_be_unique", {"column": "item_id"}, ()),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "price", "column_B": "cost"},
            (11, 12, 13),
        ),
        ("expect_compound_columns_to_be_unique", {"column_list": ["item_id", "title"]}, ()),
        ("expect_column_values_to_be_between", {"column": "seen", "min_value": "2020-01-03"}, (10, 11)),
        ("expect_column_values_to_be_between", {"column": "seen", "max_value": date(2020, 1, 2)}, (12, 13)),
        ("expect_column_values_to_be_between", {"column": "seen", "min_value": "2020-01-01T00:00:00+02:00"}, ()),
    ],
)
def test_rows_that_break_an_expectation(type_: str, arguments: dict[str, Any], rows: tuple[int, ...]) -> None:
    outcome = judge_one(type_, **arguments)
    assert outcome.rows == rows
    assert (outcome.unexpected, outcome.of) == (len(rows), 4)
    assert outcome.success is (not rows)
    assert outcome.why == ""


def test_expectations_about_a_column_or_table_say_what_they_saw() -> None:
    mean, count, columns = judge(
        expect("expect_column_mean_to_be_between", column="price", min_value=10),
        expect("expect_table_row_count_to_be_between", min_value=4, max_value=4),
        expect("expect_table_column_count_to_equal", value=6),
    ).outcomes
    assert (mean.success, mean.observed, mean.rows) == (False, 8.0, ())
    assert (count.success, count.observed) == (True, 4)
    assert columns.success, "the judge must add no column of its own"
    assert mean.sentence == "items: expect_column_mean_to_be_between(price) is broken (observed: 8.0)"


def test_outcomes_keep_the_declared_order_and_severity() -> None:
    outcomes = judge(
        expect("expect_column_values_to_be_between", column="price", min_value=0, severity="warning"),
        expect("expect_column_values_to_not_be_null", column="title", quarantine=True),
    ).outcomes
    assert [(o.expectation, o.severity, o.quarantine) for o in outcomes] == [
        ("expect_column_values_to_be_between(price)", "warning", False),
        ("expect_column_values_to_not_be_null(title)", "critical", True),
    ]
    assert outcomes[0].sentence == (
        "items: expect_column_values_to_be_between(price) is broken by 1 of 4 rows (25.0%)"
    )
    assert json.loads(json.dumps(outcomes[0].as_dict())) == {
        "table": "items",
        "expectation": "expect_column_values_to_be_between(price)",
        "severity": "warning",
        "success": False,
        "unexpected": 1,
        "of": 4,
    }


def test_a_share_of_bad_rows_can_be_allowed() -> None:
    outcome = judge_one("expect_column_values_to_not_be_null", column="title", mostly=0.7)
    assert (outcome.success, outcome.unexpected) == (True, 1)


def test_two_expectations_on_one_column_have_two_names() -> None:
    outcomes = judge(
        expect("expect_column_values_to_match_regex", column="title", regex="a"),
        expect("expect_column_values_to_match_regex", column="title", regex="b"),
    ).outcomes
    assert [o.expectation for o in outcomes] == [
        "expect_column_values_to_match_regex(title, regex=a)",
        "expect_column_values_to_match_regex(title, regex=b)",
    ]


@pytest.mark.parametrize(
    ("type_", "arguments", "column"),
    [
        ("expect_column_values_to_be_between", {"column": "weight", "min_value": 0}, "weight"),
        ("expect_column_pair_values_to_be_equal", {"column_A": "price", "column_B": "weight"}, "weight"),
        ("expect_compound_columns_to_be_unique", {"column_list": ["size", "price"]}, "size"),
    ],
)
def test_a_missing_column_is_one_clear_line(type_: str, arguments: dict[str, Any], column: str) -> None:
    outcome = judge_one(type_, **arguments)
    assert not outcome.success
    assert outcome.why == f"column '{column}' is missing (found: item_id, title, price, cost, tags, seen)"
    assert outcome.sentence.startswith(f"items: {outcome.expectation}: column '{column}' is missing")


@pytest.mark.parametrize("column", ["title", "seen"])
def test_values_that_cannot_be_compared_are_a_failure_with_the_reason(column: str) -> None:
    outcome = judge_one("expect_column_values_to_be_between", column=column, min_value=3)
    assert not outcome.success
    assert outcome.why.startswith("cannot be judged (")
    assert "\n" not in outcome.why


@pytest.mark.parametrize(
    ("expectation", "fragments"),
    [
        (
            expect("expect_column_values_to_be_betwen", column="price"),
            ["unknown expectation 'expect_column_values_to_be_betwen'", "expect_column_values_to_be_between"],
        ),
        (expect("not_null", column="price"), ["unknown expectation 'not_null'"]),
        (
            expect("expect_column_values_to_be_between", column="price", minimum=1),
            ["wrong arguments", "minimum: extra fields not permitted"],
        ),
        (expect("expect_column_values_to_not_be_null"), ["wrong arguments", "column: field required"]),
        (
            expect("expect_column_mean_to_be_between", column="price", min_value=1, quarantine=True),
            ["'quarantine: true' needs an expectation about rows"],
        ),
        (
            expect("expect_column_values_to_match_regex", column="title", regex="("),
            ["not a regular expression"],
        ),
    ],
)
def test_wrong_declarations_are_configuration_errors(expectation: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Judge(scenario_with(expectation))
    text = str(caught.value)
    assert text.startswith("scenario 'shop': validation.expectations.0: ")
    assert "\n" not in text
    for fragment in fragments:
        assert fragment in text


def test_all_wrong_declarations_are_listed_at_once() -> None:
    with pytest.raises(ConfigError, match=r"expectations\.0: .*; validation\.expectations\.2: "):
        Judge(
            scenario_with(
                expect("nonsense"),
                expect("expect_column_to_exist", column="price"),
                expect("expect_column_to_exist", colum="price"),
            )
        )


def test_the_suite_is_reviewable_json_and_the_same_every_time() -> None:
    scenario = scenario_with(
        expect("expect_column_values_to_not_be_null", column="title", quarantine=True, severity="warning")
    )
    text = Judge(scenario).suite_json("items")
    assert text == Judge(scenario).suite_json("items")
    suite = json.loads(text)
    assert suite["name"] == "items"
    assert suite["expectations"] == [
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "title"},
            "severity": "warning",
            "meta": {"quarantine": True},
        }
    ]


def test_judging_is_quiet_and_leaves_nothing_behind(
    capfd: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    numbers = {"column": "price", "min_value": 100}
    judgement = judge(
        *[expect("expect_column_values_to_match_regex", column="title", regex=f"{i}(.)") for i in range(8)],
        expect("expect_column_mean_to_be_between", **numbers),
        expect("expect_column_max_to_be_between", **numbers),
        expect("expect_column_stdev_to_be_between", **numbers),
        expect("expect_column_distinct_values_to_be_in_set", column="price", value_set=[1]),
        expect("expect_column_unique_value_count_to_be_between", **numbers),
        expect("expect_column_pair_values_to_be_equal", column_A="price", column_B="cost"),
        expect("expect_column_min_to_be_between", column="seen", max_value="2019-01-01"),
        expect("expect_column_to_exist", column="weight"),
    )
    assert len(judgement.outcomes) == 16
    assert not any(outcome.success or outcome.why for outcome in judgement.outcomes[:-1])
    json.dumps([outcome.as_dict() for outcome in judgement.outcomes])
    assert "np.float" not in judgement.page
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
