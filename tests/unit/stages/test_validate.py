"""The validate stage on a simulated shop: what it writes, what it says, and that it can be run again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario, load_scenario
from mtrec.data.contract import TYPES, Tables
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.errors import ConfigError, DataError
from mtrec.stages import validate

NOW = "2026-06-01T00:00:00Z"


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario("ecommerce")


@pytest.fixture(scope="module")
def shop() -> Tables:
    return simulate(Dials(num_users=40, num_items=30, num_interactions=1_500))[0]


@pytest.fixture(scope="module")
def dirty(shop: Tables) -> Tables:
    row = pl.int_range(pl.len())
    return dataclasses.replace(
        shop,
        items=shop.items.with_columns(title=pl.when(row == 0).then(None).otherwise(pl.col("title"))),
        interactions=shop.interactions.with_columns(
            rating=pl.when(row < 3).then(pl.lit("?")).otherwise(pl.col("rating").cast(pl.String)),
            event=pl.when(row == 4).then(pl.lit("gift")).otherwise(pl.col("event")),
        ),
    )


def run(folder: Path, scenario: Scenario, tables: Tables, now: str | None = NOW) -> dict[str, Any]:
    tables.write(folder / "tables")
    return validate.run(
        validate.Inputs(tables=folder / "tables", now=now),
        validate.Outputs(
            validated=folder / "validated",
            quarantine=folder / "quarantine",
            data_docs=folder / "docs",
            summary=folder / "summary.json",
        ),
        scenario,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario, dirty: Tables) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("validate")
    return folder, run(folder, scenario, dirty)


def test_clean_tables_pass_whole(tmp_path: Path, scenario: Scenario, shop: Tables) -> None:
    summary = run(tmp_path, scenario, shop)
    assert summary["success"]
    assert {name: counts["quarantined"] for name, counts in summary["tables"].items()} == dict.fromkeys(TYPES, 0)
    assert Tables.read(tmp_path / "validated").num_rows == shop.num_rows
    for name in TYPES:
        bad = pl.read_parquet(tmp_path / "quarantine" / f"{name}.parquet")
        assert bad.height == 0
        assert bad.columns == [*getattr(shop, name).columns, "row", "reason"]


def test_good_and_quarantined_are_the_input(ran: tuple[Path, dict[str, Any]], dirty: Tables) -> None:
    folder, summary = ran
    validated = Tables.read(folder / "validated")
    for name, rows in dirty.num_rows.items():
        bad = pl.read_parquet(folder / "quarantine" / f"{name}.parquet")
        assert getattr(validated, name).height + bad.height == rows
        counts = summary["tables"][name]
        assert (counts["input"], counts["good"], counts["quarantined"]) == (rows, rows - bad.height, bad.height)


def test_validated_tables_have_the_types_of_the_contract(ran: tuple[Path, dict[str, Any]]) -> None:
    validated = Tables.read(ran[0] / "validated")
    for name, columns in TYPES.items():
        for column, dtype in columns.items():
            assert getattr(validated, name).schema[column] == dtype


def test_an_item_that_an_expectation_quarantines_takes_its_interactions_along(
    ran: tuple[Path, dict[str, Any]], dirty: Tables
) -> None:
    folder, summary = ran
    lost = dirty.items["item_id"][0]
    assert summary["tables"]["items"]["reasons"] == {"expect_column_values_to_not_be_null(title)": 1}
    num_lost = dirty.interactions.filter(pl.col("item_id") == lost).height
    assert num_lost > 0
    reasons = summary["tables"]["interactions"]["reasons"]
    assert reasons["dangling item_id (items row in quarantine)"] == num_lost
    assert reasons["rating is not a number"] == 3
    assert reasons["event is not one of view, cart, purchase, rating"] == 1
    assert lost not in Tables.read(folder / "validated").interactions["item_id"]


def test_the_summary_is_the_file_and_every_expectation_is_in_it(
    ran: tuple[Path, dict[str, Any]], scenario: Scenario
) -> None:
    folder, summary = ran
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert len(summary["expectations"]) == len(scenario.validation.expectations)
    title = next(e for e in summary["expectations"] if e["expectation"].endswith("not_be_null(title)"))
    assert (title["success"], title["unexpected"], title["quarantined"]) == (True, 0, 1)
    assert summary["judged_at"] == NOW
    assert any(line.startswith("items: 1 rows in quarantine") for line in summary["warnings"])


def test_data_docs_show_both_judgements_and_the_suites(ran: tuple[Path, dict[str, Any]]) -> None:
    docs = ran[0] / "docs"
    assert "The data passed" in (docs / "index.html").read_text()
    first = (docs / "validations" / "items-first-pass.html").read_text()
    assert "values must never be null" in first
    assert "1 unexpected values found" in first
    assert "unexpected values found" not in (docs / "validations" / "items-after-quarantine.html").read_text()
    suite = json.loads((docs / "suites" / "items.json").read_text())
    assert "expect_column_values_to_not_be_null" in [e["type"] for e in suite["expectations"]]


def test_running_again_replaces_everything(tmp_path: Path, scenario: Scenario, shop: Tables, dirty: Tables) -> None:
    run(tmp_path, scenario, dirty)
    run(tmp_path, scenario, shop)
    assert pl.read_parquet(tmp_path / "quarantine" / "items.parquet").height == 0
    assert not (tmp_path / "docs" / "validations" / "items-after-quarantine.html").exists()
    assert not list(tmp_path.glob(".*"))


def test_after_a_refusal_no_tables_of_an_earlier_run_look_validated(
    tmp_path: Path, scenario: Scenario, shop: Tables
) -> None:
    run(tmp_path, scenario, shop)
    with pytest.raises(DataError, match="column 'title'"):
        run(tmp_path, scenario, dataclasses.replace(shop, items=shop.items.drop("title")))
    assert not (tmp_path / "validated").exists()
    run(tmp_path, scenario, shop)
    foreign = dataclasses.replace(shop, interactions=shop.interactions.with_columns(event=pl.lit("gift")))
    with pytest.raises(DataError, match="went to quarantine, more than"):
        run(tmp_path, scenario, foreign)
    assert not (tmp_path / "validated").exists()


def test_the_clock_is_used_when_no_time_is_given(tmp_path: Path, scenario: Scenario, shop: Tables) -> None:
    tomorrow = pl.lit("2999-01-01")
    late = dataclasses.replace(shop, interactions=shop.interactions.with_columns(timestamp=tomorrow))
    with pytest.raises(DataError, match="timestamp is in the future"):
        run(tmp_path, scenario, late, now=None)


def test_a_time_that_is_none_is_refused(tmp_path: Path, scenario: Scenario, shop: Tables) -> None:
    with pytest.raises(ConfigError, match="now 'today' is not an ISO time"):
        run(tmp_path, scenario, shop, now="today")
