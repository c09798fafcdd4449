"""docs/scenario.md: complete, up to date, and its example runs."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from pydantic import BaseModel

from mtrec.config import Scenario, load_scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset
from mtrec.stages import ingest, preprocess, validate
from pipelines.scenario_reference import describe, metrics, scenario_reference, sections


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "scenario.md").read_text(encoding="utf-8")


@pytest.fixture
def my_shop(page: str, tmp_path: Path) -> Scenario:
    """The example of the page."""
    text = re.findall(r"```yaml\n(name: my-shop\n.*?)```", page, flags=re.DOTALL)[0]
    assert text.count("\n") <= 25
    (tmp_path / "my-shop.yaml").write_text(text, encoding="utf-8")
    return load_scenario(tmp_path / "my-shop.yaml")


@pytest.fixture
def shop(page: str, tmp_path: Path) -> Path:
    """The three files of the page, with more rows of the same kind."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in re.findall(r"```csv (\S+)\n(.*?)```", page, flags=re.DOTALL):
        (folder / name).write_text(text, encoding="utf-8")
    start = datetime(2026, 3, 10)
    what = ["view", "buy", "review", "test"]
    more = {
        "users.csv": [f"u{u},{['Ulm', 'Graz', 'Bern'][u % 3]}" for u in range(3, 21)],
        "items.csv": [f"p{p},Good thing {p},{['tea', 'mug'][p % 2]},{p}.50,gift" for p in range(3, 25)],
        "events.csv": [
            f"u{k % 20 + 1},p{k * 7 % 24 + 1},{what[k % 4]},{k % 5 + 1 if k % 4 == 2 else ''},"
            f"{start + timedelta(hours=k):%d.%m.%Y %H:%M}"
            for k in range(400)
        ],
    }
    for name, rows in more.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write("\n".join(rows) + "\n")
    return folder


def test_the_page_is_up_to_date(page: str) -> None:
    assert page == scenario_reference(), "the scenario's models changed: run `make docs`"


def test_every_key_is_explained() -> None:
    silent = [
        f"{paths[0]}.{key}"
        for paths, model in [*sections(), ([""], cast("type[BaseModel]", Scenario))]
        for key in model.model_fields
        if key != "type" and not describe(model, key)
    ]
    assert silent == []


def test_every_part_and_every_task_type_is_there(page: str) -> None:
    titles = re.findall(r"^##+ (.+)$", page, flags=re.MULTILINE)
    for path in ("source", "source.options", "model.encoder.lora", "validation.expectations", "gate"):
        assert f"`{path}`" in titles
    assert "`source.users`, `source.items`, `source.interactions`" in titles
    for kind in ("regression", "binary", "classification", "multilabel", "profile", "next_item"):
        assert f"`tasks.NAME`, `type: {kind}`" in titles


@pytest.mark.parametrize(
    "row",
    [
        "| `file` | text | needed | Name of the file in the data folder, with or without its `.gz`. |",
        "| `max_quarantined` | number; ≥ 0, ≤ 1 | `0.2` | Largest share of a table's rows that may be quarantined "
        "before the run stops. |",
        '| `modules` | list of text or `all-linear` | `"all-linear"` | Names of the layers that get adapters. |',
    ],
)
def test_types_ranges_and_defaults_in_plain_words(row: str, page: str) -> None:
    assert row in page


def test_metrics_are_those_that_evaluation_computes() -> None:
    names = metrics()
    assert names["regression"][0] == "rmse"
    assert {"auc", "ece"} <= set(names["binary"])
    assert names["next_item"][0] == "ndcg@10"


def test_docstrings_as_descriptions_leave_the_content_alone() -> None:
    assert Scenario.model_fields["events"].description == "Allowed values of interactions.event; empty means any."
    dumped = load_scenario("ecommerce").as_dict()
    assert "Allowed values" not in json.dumps(dumped)


def test_the_example_runs(my_shop: Scenario, shop: Path, tmp_path: Path) -> None:
    tables, validated, dataset = (tmp_path / name for name in ("tables", "validated", "dataset"))
    read = ingest.run(
        ingest.Inputs(data=str(shop), dvc_root=None),
        ingest.Outputs(tables=tables, summary=tmp_path / "ingest.json"),
        my_shop,
    )
    assert read["source"] == "tables"
    assert (read["num_users"], read["num_items"]) == (20, 24)
    assert read["events"] == {"view": 101, "buy": 101, "review": 101}  # 'test' is left out by `where`
    checked = validate.run(
        validate.Inputs(tables=tables, now="2026-12-01T00:00:00Z"),
        validate.Outputs(
            validated=validated,
            quarantine=tmp_path / "quarantine",
            data_docs=tmp_path / "data_docs",
            summary=tmp_path / "validation.json",
        ),
        my_shop,
    )
    assert checked["success"]
    assert {name: table["quarantined"] for name, table in checked["tables"].items()} == dict.fromkeys(
        ("users", "items", "interactions"), 0
    )
    typed = Tables.read(validated)
    assert typed.items["tags"].to_list()[:2] == [["organic", "loose"], ["gift"]]
    card = preprocess.run(preprocess.Inputs(tables=validated), preprocess.Outputs(dataset=dataset), my_shop)
    assert min(card["num_train"], card["num_valid"], card["num_test"]) > 0
    assert card["first"] == "2026-03-01"
    assert len(Dataset.read(dataset).items) == 24
