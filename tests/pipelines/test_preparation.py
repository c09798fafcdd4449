"""Preprocessing wired both ways, and the shards through kfp's own local runner."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl, local
from kfp.local import config as local_config

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.stages.execution import run_stage
from pipelines.placing import Placing
from pipelines.preparation import preprocessed
from tests.unit.tiny_shop import shop_scenario

SMALL = {"num_users": 30, "num_items": 20, "num_interactions": 400}
MADE_FROM = {"data_version": "1.dir", "code_revision": "abc"}


@pytest.fixture(scope="module")
def shop() -> Scenario:
    return shop_scenario("unused")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validated") / "tables"
    simulate(Dials.parse(SMALL))[0].write(folder)
    return folder


def wired(folder: Path, shop: Scenario, shards: int, cache_key: str | None = None, version: str = "1.dir") -> Any:
    """A pipeline of preprocessing alone, on tables that are there already."""

    placed = Placing(cache_key=cache_key, shards=shards)

    @dsl.pipeline(name="preprocessing")
    def only() -> dsl.Dataset:
        tables = dsl.importer(
            artifact_uri=str(folder), artifact_class=dsl.Dataset, metadata={"data_version": version}
        )
        made_from = {"scenario": json.dumps(shop.as_dict()), **MADE_FROM}
        dataset: dsl.Dataset = preprocessed(placed, tables.output, made_from)
        return dataset

    return only


def cached_tasks(pipeline: Any) -> set[str]:
    spec = pipeline.pipeline_spec
    graphs = [spec.root, *spec.components.values()]
    tasks = [(name, task) for graph in graphs for name, task in graph.dag.tasks.items()]
    return {name for name, task in tasks if task.caching_options.enable_cache and not name.startswith("for-loop")}


def test_one_shard_is_the_one_task(tables: Path, shop: Scenario) -> None:
    pipeline = wired(tables, shop, 1)
    assert set(pipeline.pipeline_spec.root.dag.tasks) == {"importer", "preprocess-data"}
    assert cached_tasks(pipeline) >= {"preprocess-data"}


def test_only_the_join_is_cached(tables: Path, shop: Scenario) -> None:
    assert cached_tasks(wired(tables, shop, 3)) & {"shard-tables", "preprocess-shard", "join-shards"} == {
        "join-shards"
    }


def test_shards_side_by_side_give_the_files_of_the_one_task(
    tables: Path, shop: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "print", print)  # kfp's rounds of a loop leave another one behind
    run_stage("preprocess", inputs={"tables": tables}, outputs={"dataset": tmp_path / "whole"}, scenario=shop)
    previous = local_config.LocalExecutionConfig.instance
    try:
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(tmp_path / "root"),
            enable_caching=True,
            cache_root=str(tmp_path / "cache"),
        )
        dataset = wired(tables, shop, 3, "key")().output
    finally:
        local_config.LocalExecutionConfig.instance = previous
    joined = Path(dataset.path)
    names = {path.name for path in joined.iterdir()}
    assert names == {path.name for path in (tmp_path / "whole").iterdir()}
    for name in names:
        assert (joined / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert dataset.metadata["data_version"] == "1.dir"
    assert dataset.metadata["num_train"] == json.loads((joined / "card.json").read_text())["num_train"]
    assert Tables.read(joined).interactions["user_id"].n_unique() > 3
