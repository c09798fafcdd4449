"""Learning finds the truth of the simulated shop, and the test part reaches no weight."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset, Encoding, prepare
from mtrec.data.sources.simulated import Truth
from mtrec.data.splits import TEST, TRAIN
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, new_model
from mtrec.serving.predictor import Predictor
from mtrec.stages import fine_tune, preprocess
from mtrec.stages.fine_tune import validation
from mtrec.training.loop import Progress, Trainer
from tests.unit.tiny_shop import DIALS, TASKS, shop_scenario, shop_tables

SHOP: dict[str, Any] = {
    **DIALS,
    "num_users": 150,
    "num_items": 200,
    "num_interactions": 8000,
    "missing": 0.0,
    "cold_items": 0.0,
    "drift": 0.0,
}


@dataclass(frozen=True)
class Found:
    """What a model knows of the truth."""

    rating: float
    """Correlation of predicted with expected ratings over all pairs."""
    category: float
    """Accuracy on items whose label training has not seen."""
    taste: float
    """Mean utility of the ten items shown to each user, in standard deviations over all pairs."""


def examine(bundle: Bundle, catalogue: Catalogue, data: tuple[Dataset, Encoding], truth: Truth) -> Found:
    dataset, encoding = data
    predictor = Predictor(bundle, dataset, catalogue)
    user = np.array([truth.user_ids.index(u) for u in dataset.users["user_id"]])
    item_row = {item: row for row, item in enumerate(truth.item_ids)}
    item = np.array([item_row[i] for i in predictor.item_ids])
    users = dataset.users["user_id"].to_list()
    said = np.array([predictor.score(predictor.item_ids, user_id=u)["rating"] for u in users])
    expected = truth.expected_rating(user[:, None], item[None, :], 1.0)
    shown = [[item_row[i] for i, _ in predictor.recommend(user_id=u)] for u in users]
    with torch.no_grad():
        classes = bundle.model.item_outputs(predictor.items, torch.arange(len(item)))["category"].argmax(1).numpy()
    right = np.array(encoding.labels["category"].values)[classes] == dataset.items["category"].to_numpy()
    held = (dataset.items["part"] != TRAIN).to_numpy()
    return Found(
        rating=float(np.corrcoef(said.ravel(), expected.ravel())[0, 1]),
        category=float(right[held].mean()),
        taste=float(np.mean([truth.utility(u, np.array(s), 1.0).mean() for u, s in zip(user, shown, strict=True)])),
    )


@pytest.fixture(scope="module")
def learned() -> tuple[Found, Found, Progress]:
    """Before and after training on the bundled MiniLM's vectors, which stay as they are."""
    scenario = shop_scenario(
        "minilm",
        tasks={name: TASKS[name] for name in ("rating", "category", "next_item")},
        model={
            "encoder": {"name": "minilm", "max_length": 16, "train_layers": 0},
            "width": 16,
            "history": 20,
            "neighbours": 0,
        },
        training={"epochs": 4, "batch_size": 16, "texts_per_step": 0, "lr": 0.01, "device": "cpu"},
    )
    tables, truth = shop_tables(SHOP)
    data = prepare(tables, scenario)
    bundle, view, catalogue = new_model(*data, scenario)
    bundle.model.eval()
    before = examine(bundle, catalogue, data, truth)
    trainer = Trainer(bundle, view, catalogue, validate=validation(scenario, data[1]))
    end = trainer.fit()
    bundle.model.eval()
    return before, examine(bundle, trainer.data.catalogue, data, truth), end


def test_the_loss_falls(learned: tuple[Found, Found, Progress]) -> None:
    train = [line for line in learned[2].lines if line["kind"] == "train"]
    first, last = train[:3], train[-3:]
    for name in ("category", "next_item"):
        early, late = (np.mean([line["losses"][name] for line in lines]) for lines in (first, last))
        assert late < 0.95 * early, name
    assert np.mean([line["loss"] for line in last]) < 0.8 * np.mean([line["loss"] for line in first])


def test_learning_finds_the_truth(learned: tuple[Found, Found, Progress]) -> None:
    before, after, _ = learned
    print(before, after)
    # Before training, ratings are the closed-form biases of users and items; learning finds more than those.
    assert after.rating > before.rating + 0.01 > 0.2
    assert after.category > 0.6 > 0.3 > before.category  # twelve categories: chance is 8 %
    assert after.taste > before.taste + 0.1


def test_the_test_part_reaches_no_weight(shop: Scenario, shop_run: Path, tmp_path: Path) -> None:
    """Other items, events and ratings in every test row: preprocessing and training end with the same bytes."""
    tables = Tables.read(shop_run / "tables")
    dataset = Dataset.read(shop_run / "dataset")
    test = pl.Series(dataset.part == TEST)
    rows = dataset.interactions
    other_items = pl.Series(np.random.default_rng(0).permutation(rows["item_id"].to_numpy()))
    changed = rows.with_columns(
        item_id=pl.when(test).then(other_items).otherwise("item_id"),
        event=pl.when(test).then(pl.lit("rating")).otherwise("event"),
        rating=pl.when(test).then(1.0).otherwise("rating"),
    ).select(tables.interactions.columns)
    Tables(users=tables.users, items=tables.items, interactions=changed).write(tmp_path / "tables")
    preprocess.run(
        preprocess.Inputs(tables=tmp_path / "tables"), preprocess.Outputs(dataset=tmp_path / "dataset"), shop
    )
    assert not Dataset.read(tmp_path / "dataset").interactions.equals(rows)
    fine_tune.run(
        fine_tune.Inputs(dataset=tmp_path / "dataset"),
        fine_tune.Outputs(model=tmp_path / "model", losses=tmp_path / "losses.jsonl"),
        shop,
    )
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (shop_run, tmp_path)]
    assert [name for name in weights[0] if not weights[0][name].equal(weights[1][name])] == []
    for line, other in zip(
        (shop_run / "losses.jsonl").read_text().splitlines(),
        (tmp_path / "losses.jsonl").read_text().splitlines(),
        strict=True,
    ):
        assert json.loads(line) | {"seconds": 0} == json.loads(other) | {"seconds": 0}
