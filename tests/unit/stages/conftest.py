"""A champion, data drops that come after it, and the two stages that look at them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Retraining, Scenario
from mtrec.data.contract import Tables
from mtrec.stages import decide, monitor
from tests.unit.champions import register_champion

DAYS = 60


@pytest.fixture(scope="module")
def champion(
    tmp_path_factory: pytest.TempPathFactory, prepared_store: Path, shop: Scenario, shop_run: Path
) -> Path:
    """A folder with an MLflow store that has a champion, and a DVC repository with its data. Shared: read only."""
    folder = tmp_path_factory.mktemp("champion")
    shutil.copy(prepared_store, folder / "mlflow.db")
    register_champion(
        shop,
        shop_run / "model",
        shop_run / "tables",
        uri=f"sqlite:///{folder}/mlflow.db",
        dvc=folder / "dvc",
        evaluation=shop_run / "evaluation.json",
    )
    return folder


@pytest.fixture(scope="module")
def known(shop_run: Path) -> Tables:
    return Tables.read(shop_run / "tables")


@pytest.fixture(scope="module")
def watched(shop: Scenario) -> Scenario:
    settings = Retraining(window_days=DAYS, min_rows=100, drifted_windows=2, cool_down_hours=48)
    return shop.model_copy(update={"retraining": settings})


@pytest.fixture
def check(champion: Path, watched: Scenario, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Monitor a drop and decide; keywords replace inputs of the monitor."""

    def run(drop: Tables | Path, scenario: Scenario = watched, **given: Any) -> dict[str, Any]:
        if isinstance(drop, Tables):
            drop.write(tmp_path / "drop")
            drop = tmp_path / "drop"
        inputs: dict[str, Any] = {
            "drop": drop,
            "tracking_uri": f"sqlite:///{champion}/mlflow.db",
            "dvc_root": champion / "dvc",
            "now": "2025-11-01T00:00:00",
        }
        out = tmp_path / "out"
        told = monitor.run(
            monitor.Inputs(**inputs | given),
            monitor.Outputs(observed=out / "observed", tables=out / "tables", validation=out / "validation"),
            scenario,
        )
        assert told == json.loads((out / "observed").read_text())
        return decide.run(
            decide.Inputs(observed=out / "observed", tracking_uri=inputs["tracking_uri"]),
            decide.Outputs(decision=out / "decision", report=out / "report"),
            scenario,
        )

    return run


def later(known: Tables, *, drifted: bool = False) -> Tables:
    """What happened in the last window, twice more afterwards; drifted: half of it with one category only."""
    last = known.interactions["timestamp"].max()
    assert isinstance(last, datetime)
    rows = known.interactions.filter(pl.col("timestamp") > last - timedelta(days=DAYS))
    rows = pl.concat([rows.with_columns(pl.col("timestamp") + timedelta(days=n * DAYS)) for n in (1, 2)])
    if drifted:
        one = known.items.filter(category=known.items["category"].drop_nulls()[0])["item_id"].to_list()
        turn = pl.Series([one[i % len(one)] for i in range(rows.height)])
        every_second = pl.int_range(pl.len()) % 2 == 0
        rows = rows.with_columns(item_id=pl.when(every_second).then(turn).otherwise("item_id"))
    return replace(known, interactions=rows)
