"""The whole loop as its users run it: champion → drift → retraining → approval → quality is back; and poison.

A garden department opens: new items whose ratings follow a rule that the champion never saw. Commands only, the
stages as they are, and a small random encoder.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.models.store import load_model
from mtrec.stages.evaluate import answers
from mtrec.tracking import download_model, history, list_models
from tests.unit.tiny_shop import save_bert, words

pytestmark = pytest.mark.slow
WINDOW = timedelta(days=20)
DIALS = {"num_users": 150, "num_items": 80, "num_interactions": 6000, "noise": 0.0, "seed": 3, "drift": 0.0}
BRANDS = {"Oakleaf": 5.0, "Mudworks": 1.0}
"""Of the garden department: loved, and hated."""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A working directory with a scenario, the data until now, and what comes later."""

    folder: Path
    scenario: Scenario
    known: Tables
    end: datetime

    def mtrec(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def monitor(self, drop: str) -> subprocess.CompletedProcess[str]:
        now = self.end + 2.05 * WINDOW
        return self.mtrec("monitor", "--scenario", "shop.yaml", "--data", drop, "--now", now.isoformat())

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/.mtrec/mlflow.db"

    def champion(self) -> str:
        (found,) = [model for model in list_models(self.uri) if "champion" in model.aliases]
        return f"{found.name}/{found.version}"

    def decision(self) -> dict[str, object]:
        path = self.folder / ".mtrec" / "drift" / self.scenario.name / "decision.json"
        return dict(json.loads(path.read_text()))


def later(known: Tables, end: datetime, windows: int, *, garden: bool) -> Tables:
    """What happens in so many windows: more of the same, and with the garden department half of it there."""
    rng = np.random.default_rng(windows)
    last = known.interactions.filter(pl.col("timestamp") > end - WINDOW)
    users = known.users["user_id"].to_list()
    copies = []
    for n in range(1, windows + 1):
        others = rng.permutation(users)  # everybody does what another one did, so that no item was seen before
        copies.append(
            last.with_columns(
                pl.col("timestamp") + n * WINDOW, user_id=pl.col("user_id").replace(users, others.tolist())
            )
        )
    rows = pl.concat(copies)
    if not garden:
        return replace(known, interactions=rows)
    names = [f"garden-{n}" for n in range(40)]
    brands = [list(BRANDS)[n % 2] for n in range(40)]
    own = known.items.head(40).with_columns(
        item_id=pl.Series(names),
        title=pl.Series([f"{brand} garden tool" for brand in brands]),
        description=pl.Series([f"For the garden, made by {brand}." for brand in brands]),
        brand=pl.Series(brands),
        category=pl.lit("Garden"),
    )
    chosen = rng.integers(0, 40, rows.height)
    moved = pl.Series(rng.random(rows.height) < 0.6)
    liking = pl.Series([BRANDS[brands[n]] for n in chosen])
    rows = rows.with_columns(
        item_id=pl.when(moved).then(pl.Series([names[n] for n in chosen])).otherwise("item_id"),
        event=pl.when(moved).then(pl.lit("rating")).otherwise("event"),
        rating=pl.when(moved).then(liking).otherwise("rating"),
    )
    return replace(known, items=own, interactions=rows)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    tables = clean(simulate(Dials.parse(DIALS))[0])[0]
    end = tables.interactions["timestamp"].max()
    assert isinstance(end, datetime)
    garden = later(tables, end, 1, garden=True).items
    texts = [*tables.items["title"], *tables.items["description"], *garden["title"], *garden["description"]]
    settings = {
        "name": "shop",
        "source": {"type": "auto"},
        "items": {"text": "{title}. {description}", "categorical": ["brand", "category"]},
        "events": ["view", "cart", "purchase", "rating"],
        "rating_range": [1, 5],
        "split": {"by": "time"},
        "tasks": {
            "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
            "next_item": {"type": "next_item", "events": ["view", "cart", "purchase"]},
        },
        "model": {
            "encoder": {"name": str(save_bert(folder / "bert", words(t for t in texts if t))), "max_length": 24},
            "width": 32,
        },
        "training": {"epochs": 6, "batch_size": 16, "texts_per_step": 16, "precision": "fp32", "device": "cpu"},
        "gate": {"must_improve": False, "floors": {"rating.rmse": 2.0}},
        "retraining": {"window_days": WINDOW.days, "min_rows": 100, "windows": 2, "drifted_windows": 2},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(settings))
    tables.write(folder / "known")
    for name, with_garden in (("quiet", False), ("garden", True)):
        later(tables, end, 2, garden=with_garden).write(folder / name)
    found = Shop(folder=folder, scenario=load_scenario(str(folder / "shop.yaml")), known=tables, end=end)
    done = found.mtrec("run", "--scenario", "shop.yaml", "--data", "known")
    assert done.returncode == 0, done.stderr
    return found


def errors(shop: Shop, reference: str, data: Tables, since: datetime) -> np.ndarray:
    """Squared errors of a registered model on the ratings after a moment, knowing all that came before."""
    rows = data.interactions
    share = rows.filter(pl.col("timestamp") > since).height / rows.height
    scenario = shop.scenario.model_copy(update={"split": shop.scenario.split.model_copy(update={"test": share})})
    dataset, encoding = prepare(clean(data)[0], scenario)
    folder = shop.folder / "fetched" / reference
    download_model(reference, folder, shop.uri)
    said = answers(load_model(folder), dataset, encoding, {"rating": scenario.tasks["rating"]}).rows["rating"]
    return np.asarray((said.predicted - said.target) ** 2)


def rmse(squares: np.ndarray) -> float:
    return float(np.sqrt(squares.mean()))


@pytest.mark.parametrize("kind", ["schema", "labels", "nothing"])
def test_a_poisoned_drop_is_skipped_with_its_reason_and_touches_nothing(shop: Shop, kind: str) -> None:
    bad = later(shop.known, shop.end, 2, garden=True)
    rows = bad.interactions
    if kind == "schema":
        rows, reason = rows.rename({"item_id": "product"}), "column 'item_id' is missing"
    elif kind == "labels":
        rows, reason = rows.with_columns(rating=pl.lit(99.0), event=pl.lit("rating")), "went to quarantine"
    else:
        rows, reason = rows.clear(), "0 new interactions"
    replace(bad, interactions=rows).write(shop.folder / kind)
    before = (shop.champion(), len(list_models(shop.uri)))
    done = shop.monitor(kind)
    assert done.returncode == (0 if kind == "nothing" else 2), done.stderr
    assert done.stdout.splitlines()[-2].startswith("skip: ")
    assert reason in str(shop.decision()["reason"])
    assert (shop.champion(), len(list_models(shop.uri))) == before


def test_more_of_the_same_is_no_reason_to_train(shop: Shop) -> None:
    done = shop.monitor("quiet")
    assert done.returncode == 0, done.stderr
    assert "skip: nothing has drifted enough" in done.stdout


def test_quality_comes_back_after_drift(shop: Shop) -> None:
    before = shop.champion()
    done = shop.monitor("garden")
    assert done.returncode == 0, done.stdout + done.stderr
    decision = shop.decision()
    assert decision["verdict"] == "retrain"
    assert "items.category" in str(decision["reason"])
    assert shop.champion() == before, "a person decides"
    approved = shop.mtrec("models", "approve", "shop", "--who", "ada", "--why", "knows the garden")
    assert approved.returncode == 0, approved.stderr
    assert shop.champion() == "shop/2"
    assert [change.action for change in history("shop", shop.uri)] == ["first", "approve"]
    assert shop.mtrec("lineage", "shop").returncode == 0

    usual = rmse(errors(shop, before, shop.known, shop.end - WINDOW))
    three = later(shop.known, shop.end, 3, garden=True)
    everything = Tables(
        users=shop.known.users,
        items=pl.concat([shop.known.items, three.items]),
        interactions=pl.concat([shop.known.interactions, three.interactions]).sort("timestamp"),
    )
    old, new = (rmse(errors(shop, name, everything, shop.end + 2 * WINDOW)) for name in (before, "shop/2"))
    lost = old - usual
    assert lost > 0.3, "the drift hurts"
    assert (old - new) / lost >= 0.8, f"usual {usual:.3f}, old {old:.3f}, new {new:.3f}"

    again = shop.monitor("garden")
    assert again.returncode == 0
    assert "skip: 0 new interactions" in again.stdout, "the new champion knows them"
