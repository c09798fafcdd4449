"""Under a split by cold items, neither what a held-out item is nor who took it reaches a weight.

That somebody took something there does: item neighbours count how many events lie between two items of a user.
"""

from pathlib import Path

import numpy as np
import polars as pl
from torch import Tensor

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.splits import TRAIN, split_by_id
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables, tasks_under


def trained(tables: Tables, scenario: Scenario) -> dict[str, Tensor]:
    """Every weight after an epoch of all tasks."""
    dataset, encoding = prepare(tables, scenario)
    assert set(dataset.item[dataset.part == TRAIN]).isdisjoint(dataset.item[dataset.part != TRAIN])
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    Trainer(bundle, view, catalogue, validate=lambda *_: {}).fit()
    return bundle.model.state_dict()


def test_held_out_items_teach_nothing(tiny_bert: Path) -> None:
    training = {"epochs": 1, "batch_size": 16, "texts_per_step": 8, "precision": "fp32", "device": "cpu"}
    changes = {"split": {"by": "cold_items"}, "tasks": tasks_under("cold_items"), "training": training}
    scenario = shop_scenario(tiny_bert, **changes)
    tables, _ = shop_tables(DIALS)
    part = split_by_id(tables.items["item_id"], scenario.split)
    held_ids = tables.items["item_id"].filter(part != TRAIN)
    held = pl.col("item_id").is_in(held_ids.implode())
    drawn = pl.Series(np.random.default_rng(0).choice(held_ids.to_list(), tables.interactions.height))
    rows = tables.interactions.with_columns(
        rating=pl.when(held).then(6 - pl.col("rating")).otherwise("rating"),
        event=pl.when(held).then(pl.lit("purchase")).otherwise("event"),
        item_id=pl.when(held).then(drawn).otherwise("item_id"),
    )
    other = Tables(
        users=tables.users,
        items=tables.items.with_columns(
            price=pl.when(held).then(1e6).otherwise("price"),
            brand=pl.when(held).then(pl.lit("changed")).otherwise("brand"),
            category=pl.when(held).then(pl.lit("changed")).otherwise("category"),
            tags=pl.when(held).then(pl.lit(["changed"])).otherwise("tags"),
        ),
        interactions=rows,
    )
    assert (other.interactions["item_id"] != tables.interactions["item_id"]).sum() > 100
    found, again = trained(tables, scenario), trained(other, scenario)
    assert found.keys() == again.keys()
    for name, value in found.items():
        assert value.equal(again[name]), name
    first = tables.interactions.with_row_index().filter(~held & pl.col("rating").is_not_null())["index"][0]
    changed = tables.interactions.with_columns(
        rating=pl.when(pl.int_range(pl.len()) == first).then(6 - pl.col("rating")).otherwise("rating")
    )
    third = trained(Tables(users=tables.users, items=tables.items, interactions=changed), scenario)
    assert any(not value.equal(third[name]) for name, value in found.items())
