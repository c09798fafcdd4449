"""The preprocess stage: validated tables to a dataset folder with its card."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import DataError
from mtrec.stages import preprocess
from tests.unit.tiny_shop import shop_scenario


def run(tables: Path, dataset: Path, scenario: Scenario) -> dict[str, Any]:
    return preprocess.run(preprocess.Inputs(tables=tables), preprocess.Outputs(dataset=dataset), scenario)


def test_the_card_counts_what_is_there(shop_run: Path) -> None:
    card = json.loads((shop_run / "dataset" / "card.json").read_text())
    assert card == json.loads((shop_run / "said.json").read_text())["preprocess"]
    dataset = Dataset.read(shop_run / "dataset")
    assert card["num_users"] == dataset.users.height == 60
    assert card["num_items"] == dataset.items.height == 50
    parts = [card[f"num_{part}"] for part in ("train", "valid", "test")]
    assert parts == dataset.interactions["part"].value_counts(sort=False).sort("part")["count"].to_list()
    assert sum(parts) == card["num_interactions"] == dataset.interactions.height
    times = dataset.interactions["timestamp"]
    assert (card["first"], card["last"]) == (str(times.min())[:10], str(times.max())[:10])
    assert card["duplicate_interactions"] == card["added_users"] == 0


def test_running_twice_gives_the_same_bytes(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    run(shop_run / "tables", tmp_path / "dataset", shop)
    names = {path.name for path in (shop_run / "dataset").iterdir()}
    assert names == {"users.parquet", "items.parquet", "interactions.parquet", "encoding.json", "card.json"}
    for name in names:
        assert (tmp_path / "dataset" / name).read_bytes() == (shop_run / "dataset" / name).read_bytes(), name


def test_dirt_that_validation_lets_pass_is_cleaned_and_counted(
    shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    tables = Tables.read(shop_run / "tables")
    twice = pl.concat([tables.interactions, tables.interactions.head(7)])
    fewer = tables.users.tail(-2)
    Tables(users=fewer, items=tables.items, interactions=twice).write(tmp_path / "tables")
    card = run(tmp_path / "tables", tmp_path / "dataset", shop)
    assert card["duplicate_interactions"] == 7
    assert card["added_users"] == 2
    assert card["num_users"] == 60
    again = Dataset.read(tmp_path / "dataset").interactions
    assert again.height == Dataset.read(shop_run / "dataset").interactions.height


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": {"by": "time"}, "head": 1}, "split by time: the train part is empty (1 interactions)"),
        ({"tasks": {"x": {"type": "regression", "on": "item", "label": "items.weight"}}}, "items.weight"),
        ({"users": {"numeric": ["height"]}}, "users.numeric: column 'height' is not in the users table"),
        ({"items": {"text": "{title}", "categorical": ["colour"]}}, "items.categorical: column 'colour' is not"),
        ({"items": {"text": "{title}", "categorical": ["tags"]}}, "holds lists; name it under items.multi"),
        ({"items": {"text": "{plot}"}}, "column 'plot' is not in the items table"),
    ],
)
def test_a_scenario_that_does_not_fit_the_data_is_refused_and_nothing_is_left(
    change: dict[str, Any], said: str, shop_run: Path, tmp_path: Path
) -> None:
    tables = Tables.read(shop_run / "tables")
    rows = tables.interactions.head(change.pop("head", tables.interactions.height))
    Tables(users=tables.users, items=tables.items, interactions=rows).write(tmp_path / "tables")
    with pytest.raises(Exception) as caught:
        run(tmp_path / "tables", tmp_path / "dataset", shop_scenario("unused", **change))
    assert type(caught.value).__module__ == "mtrec.errors", repr(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_missing_tables_are_named(tmp_path: Path, shop: Scenario) -> None:
    with pytest.raises(DataError, match=r"users\.parquet: no such file"):
        run(tmp_path / "nothing", tmp_path / "dataset", shop)


def test_the_encoding_is_that_of_the_training_rows(shop_run: Path) -> None:
    dataset, encoding = Dataset.read(shop_run / "dataset"), Encoding.read(shop_run / "dataset" / "encoding.json")
    train = dataset.interactions.filter(pl.col("part") == 0)
    assert set(encoding.items.ids) == set(train["item_id"])
    assert set(encoding.users.ids) == set(train["user_id"])
    assert encoding.rating[0] == pytest.approx(train["rating"].mean())
