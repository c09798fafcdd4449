"""Structure: what a scenario needs of each column, and tables that cannot be judged at all."""

import polars as pl
import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.contract import Tables
from mtrec.data.schema import check_structure, column_kinds, needed_columns
from mtrec.errors import DataError


@pytest.fixture
def scenario() -> Scenario:
    return parse_scenario(
        {
            "name": "shop",
            "users": {"numeric": ["age"], "categorical": ["region"]},
            "items": {"text": "{title} ({year})", "numeric": ["year"], "multi": ["tags"]},
            "tasks": {
                "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
                "helpful": {"type": "binary", "on": "pair", "label": "interactions.helpful"},
                "topics": {"type": "multilabel", "on": "item", "label": "items.topics"},
                "segment": {"type": "classification", "on": "user", "label": "users.segment"},
            },
            "validation": {"min_rows": {"interactions": 2}},
        }
    )


@pytest.fixture
def tables() -> Tables:
    return Tables(
        users=pl.DataFrame({"user_id": ["u1"], "age": [3], "region": ["n"], "segment": ["a"]}),
        items=pl.DataFrame({"item_id": ["i1"], "title": ["t"], "year": [1999], "tags": [["x"]], "topics": [["y"]]}),
        interactions=pl.DataFrame(
            {
                "user_id": ["u1"] * 2,
                "item_id": ["i1"] * 2,
                "event": ["view"] * 2,
                "rating": [1.0, 2.0],
                "helpful": [True, False],
                "timestamp": [1365156000] * 2,
            }
        ),
    )


def message(tables: Tables, scenario: Scenario) -> str:
    with pytest.raises(DataError) as caught:
        check_structure(tables, scenario, where="data")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(tables: Tables, table: str, frame: pl.DataFrame) -> Tables:
    return Tables(**{**vars(tables), table: frame})


def test_kinds_follow_from_contract_features_text_and_labels(scenario: Scenario) -> None:
    assert column_kinds("users", scenario) == {
        "user_id": "key",
        "age": "number",
        "region": "text",
        "segment": "text",
    }
    assert column_kinds("items", scenario) == {
        "item_id": "key", "title": "text", "year": "number", "tags": "list", "topics": "list",
    }  # fmt: skip
    assert column_kinds("interactions", scenario)["helpful"] == "flag"


@pytest.mark.parametrize(
    ("table", "column", "values", "said"),
    [
        (
            "users",
            "age",
            ["young", "old", "33", None, ""],
            "users.parquet: column 'age' (users.numeric): 2 of 3 values are not numbers, e.g. 'young'. Map the "
            "right column in scenario 'shop' under source.users.columns, or name it under users.categorical",
        ),
        (
            "items",
            "weight",
            ["heavy" * 20, "light", "mid", None, None],
            "items.parquet: column 'weight' (tasks.weight.label): 3 of 3 values are not numbers, e.g. "
            "'heavyheavyheavyheavyheavyheavyheavyheav…'. Map the right column in scenario 'shop' under "
            "source.items.columns, or take the task out",
        ),
        (
            "users",
            "active",
            ["maybe", "perhaps", "yes", None, None],
            "users.parquet: column 'active' (tasks.active.label): 2 of 3 values are not yes or no, e.g. 'maybe'.",
        ),
    ],
)
def test_a_column_of_mostly_something_else_is_refused_with_an_example(
    scenario: Scenario, tables: Tables, table: str, column: str, values: list[str], said: str
) -> None:
    raw = scenario.as_dict()
    raw["tasks"] |= {
        "weight": {"type": "regression", "on": "item", "label": "items.weight"},
        "active": {"type": "binary", "on": "user", "label": "users.active"},
    }
    asked = parse_scenario(raw)
    users = pl.concat([tables.users] * 5).with_columns(active=pl.lit("yes"))
    items = pl.concat([tables.items] * 5).with_columns(weight=pl.lit(1.5))
    wide = Tables(users=users, items=items, interactions=tables.interactions)
    check_structure(wide, asked, where="data")
    frame = getattr(wide, table)
    assert said in message(change(wide, table, frame.with_columns(pl.Series(column, values))), asked)
    # As many readable as not: the bad cells become missing and are counted, the column stands.
    half = frame.with_columns(pl.Series(column, [*values[:2], "1", "0", None]))
    check_structure(change(wide, table, half), asked, where="data")


def test_needed_columns_say_who_needs_them(scenario: Scenario) -> None:
    assert needed_columns("items", scenario) == {
        "item_id": "the data contract",
        "title": "the data contract",
        "year": "items.text",
        "tags": "items.multi",
        "topics": "tasks.topics.label",
    }


def test_good_tables_pass(tables: Tables, scenario: Scenario) -> None:
    check_structure(tables, scenario, where="data")
    assert tables.num_rows == {"users": 1, "items": 1, "interactions": 2}


def test_every_missing_column_is_listed_with_what_was_found(tables: Tables, scenario: Scenario) -> None:
    text = message(change(tables, "items", tables.items.drop("title", "topics")), scenario)
    assert text.startswith("data: items.parquet: column 'title' (needed by the data contract), 'topics'")
    assert "found: item_id, year, tags" in text
    assert "source.items.columns" in text


def test_problems_of_several_tables_come_in_one_line(tables: Tables, scenario: Scenario) -> None:
    broken = change(tables, "users", tables.users.drop("age"))
    broken = change(broken, "interactions", tables.interactions.drop("timestamp"))
    text = message(broken, scenario)
    assert "users.parquet: column 'age'" in text
    assert "interactions.parquet: column 'timestamp'" in text


def test_text_where_lists_are_needed(tables: Tables, scenario: Scenario) -> None:
    text = message(change(tables, "items", tables.items.with_columns(tags=pl.lit("x|y"))), scenario)
    assert "column 'tags' holds String, not lists of values" in text
    assert "source.items.lists" in text


def test_lists_where_one_value_is_needed(tables: Tables, scenario: Scenario) -> None:
    text = message(change(tables, "users", tables.users.with_columns(user_id=pl.lit(["a"]))), scenario)
    assert "column 'user_id' holds List(String), where one id per row is needed" in text


def test_lists_of_lists_are_refused(tables: Tables, scenario: Scenario) -> None:
    text = message(change(tables, "items", tables.items.with_columns(tags=pl.Series([[["x"]]]))), scenario)
    assert "its lists must hold single values" in text


def test_empty_and_short_tables(tables: Tables, scenario: Scenario) -> None:
    assert "items.parquet: the table is empty" in message(change(tables, "items", tables.items.clear()), scenario)
    text = message(change(tables, "interactions", tables.interactions.head(1)), scenario)
    assert "interactions.parquet: 1 rows, fewer than 2 (validation.min_rows.interactions)" in text


def test_an_empty_users_table_counts_the_users_of_the_interactions(tables: Tables, scenario: Scenario) -> None:
    check_structure(change(tables, "users", tables.users.clear()), scenario, where="data")
    nobody = change(tables, "users", tables.users.clear())
    nobody = change(nobody, "interactions", tables.interactions.with_columns(user_id=pl.lit(None, pl.String)))
    assert "users.parquet: the table is empty" in message(nobody, scenario)
