import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Source
from mtrec.data.sources import tables
from mtrec.errors import ConfigError, DataError

LOG = (
    "Invoice;Code;Name;Qty;Day;Price;Customer;Labels\n"
    "1001;A1;Blue mug;2;01.02.2024;4,5;17.0;kitchen/gift\n"
    "1001;A2;Red mug;1;01.02.2024;5;17.0;\n"
    "C1002;A1;Blue mug, new;-2;03.02.2024;4,5;17.0;kitchen\n"
    "1003;A1;Blue cup;1;someday;4,5;18.0;kitchen\n"
    "1004;A3;;3;04.02.2024;1;;\n"
)
ITEMS: dict[str, Any] = {
    "file": "log.csv", "distinct": True, "where": ["Name IS NOT NULL"],
    "columns": {"item_id": "Code", "title": "Name", "tags": "Labels"}, "lists": {"tags": "/"},
}  # fmt: skip
EVENTS: dict[str, Any] = {
    "file": "log.csv",
    "where": ["Customer IS NOT NULL", "CAST(Invoice AS VARCHAR) NOT LIKE 'C%'", "Qty > 0"],
    "columns": {"user_id": "Customer", "item_id": "Code", "timestamp": "Day"},
    "constants": {"event": "purchase"}, "times": {"timestamp": "%d.%m.%Y"},
}  # fmt: skip


def source(items: dict[str, Any] = ITEMS, events: dict[str, Any] = EVENTS, **more: Any) -> Source:
    return Source.model_validate({"type": "tables", "items": items, "interactions": events, **more})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path


def test_one_log_becomes_three_tables(folder: Path) -> None:
    users = {
        "file": "log.csv",
        "columns": {"user_id": "Customer"},
        "where": ["Customer IS NOT NULL"],
        "distinct": True,
    }
    found = tables.read(source(users=users), folder, "shop")
    assert found.users["user_id"].to_list() == ["17", "18"]
    assert found.items.rows() == [("A1", "Blue mug", ["kitchen", "gift"]), ("A2", "Red mug", [])]
    assert found.interactions.rows() == [
        ("17", "A1", "purchase", "2024-02-01T00:00:00.000000"),
        ("17", "A2", "purchase", "2024-02-01T00:00:00.000000"),
        ("18", "A1", "purchase", "someday"),
    ]


def test_users_follow_from_the_interactions_when_not_mapped(folder: Path) -> None:
    assert tables.read(source(), folder, "shop").users["user_id"].to_list() == ["17", "18"]


def test_the_file_is_found_with_or_without_gz(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(LOG.encode()))
    assert tables.read(source(), tmp_path, "shop").items.height == 2


def test_parquet_keeps_its_types_and_lists(tmp_path: Path) -> None:
    goods = pl.DataFrame(
        {"Code": [1, 2], "Name": ["a", "b"], "Labels": [["x"], []]}, schema_overrides={"Labels": pl.List(pl.String)}
    )
    goods.write_parquet(tmp_path / "goods.parquet")
    (tmp_path / "log.csv").write_text("u,c,t,e\n5,1,2024-01-01,view\n6,2,2024-01-02,view\n")
    events = {"file": "log.csv", "columns": {"user_id": "u", "item_id": "c", "timestamp": "t", "event": "e"}}
    found = tables.read(source({**ITEMS, "file": "goods.parquet"}, events), tmp_path, "shop")
    assert found.items.rows() == [("1", "a", ["x"]), ("2", "b", [])]
    assert found.interactions["item_id"].to_list() == ["1", "2"]


def test_every_wrong_mapping_is_listed_at_once(folder: Path) -> None:
    items = {"file": "log.csv", "columns": {"item_id": "Code"}, "lists": {"tags": "/"}}
    events = {"file": "log.csv", "columns": {"user_id": "Customer", "event": "Qty"}, "constants": {"event": "buy"}}
    with pytest.raises(ConfigError) as caught:
        tables.read(source(items, events), folder, "shop")
    message = str(caught.value)
    assert message.startswith("scenario 'shop': ")
    for part in (
        "source.items.columns: 'title' is not mapped (give its column in log.csv)",
        "source.items.lists: 'tags' is not in columns",
        "source.interactions.columns: 'item_id' is not mapped",
        "source.interactions.columns: 'timestamp' is not mapped",
        "source.interactions: 'event' is both in columns and in constants",
    ):
        assert part in message


def test_a_column_that_the_file_lacks_names_the_place_to_map_it(folder: Path) -> None:
    items = {**ITEMS, "columns": {**ITEMS["columns"], "title": "Description"}}
    with pytest.raises(DataError, match=r"log\.csv: column 'Description' is missing \(found: Invoice, Code, .*"
                       r"Map it in the scenario 'shop' under source\.items\.columns\."):  # fmt: skip
        tables.read(source(items), folder, "shop")


@pytest.mark.parametrize(
    ("condition", "reason"),
    [("Amount > 0", "Amount"), ("Qty >", "unable to parse"), ("Name > 0", "cannot compare"), ("Qty", "Boolean")],
)
def test_a_condition_that_cannot_be_run_is_quoted(folder: Path, condition: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        tables.read(source({**ITEMS, "where": [condition]}), folder, "shop")
    assert f"source.items.where: {condition!r} cannot be run" in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conditions_that_leave_nothing_are_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"log\.csv: no row is left after source\.items\.where \(Qty > 99\)"):
        tables.read(source({**ITEMS, "where": ["Qty > 99"]}), folder, "shop")


def test_a_missing_file_says_what_is_there(folder: Path) -> None:
    with pytest.raises(DataError, match=r"goods\.csv: no such file \(the folder holds: log\.csv\)"):
        tables.read(source({**ITEMS, "file": "goods.csv"}), folder, "shop")
