"""The search pipeline: its loops, and a search of two workers on a real PostgreSQL."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import components, local
from kfp.local import config as local_config

from mtrec.config import Scenario
from mtrec.tracking.connection import connected
from pipelines.compiling import compile_search
from pipelines.placing import Placing
from tests.unit.postgres import postgres  # noqa: F401 (a fixture)
from tests.unit.tiny_shop import TASKS, save_bert, shop_scenario, shop_tables, words

DIALS = {"num_users": 40, "num_items": 30, "num_interactions": 800, "seed": 3}
SPACE = {
    "training.lr": {"low": 0.0005, "high": 0.05, "log": True},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True},
}
TRIALS = 5


def compiled(path: Path, **settings: Any) -> dict[str, Any]:
    spec: dict[str, Any] = next(yaml.safe_load_all(compile_search(path, Placing(**settings)).read_text()))
    return spec


def test_workers_shards_and_gpus_are_as_told(tmp_path: Path) -> None:
    spec = compiled(tmp_path / "search.yaml", workers=3, shards=4, gpus=1)
    loops = {
        name: json.loads(task["parameterIterator"]["items"]["raw"])
        for graph in spec["components"].values()
        for name, task in graph.get("dag", {}).get("tasks", {}).items()
        if "parameterIterator" in task
    }
    assert sorted(loops.values()) == [["0", "1", "2"], ["0", "1", "2", "3"]]
    executors = spec["deploymentSpec"]["executors"]
    asked = {name for name, e in executors.items() if "accelerator" in e["container"].get("resources", {})}
    assert asked == {"exec-search-settings"}


@pytest.fixture
def shop(tmp_path: Path) -> Scenario:
    items = shop_tables(DIALS)[0].items
    encoder = save_bert(
        tmp_path / "bert", words([*items["title"].drop_nulls(), *items["description"].drop_nulls()])
    )
    return shop_scenario(
        encoder,
        source={"type": "simulated", "options": DIALS},
        tasks={name: TASKS[name] for name in ("rating", "category", "next_item")},
        search={"space": SPACE, "pruner": "none", "trials": 30},
        validation={"min_rows": {"users": 10, "items": 10, "interactions": 100}},
    )


@pytest.mark.slow
def test_two_workers_share_a_study_in_postgresql(
    tmp_path: Path,
    shop: Scenario,
    postgres: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builtins, "print", print)  # kfp's rounds of a loop leave another one behind
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with connected(uri) as client:
        client.search_experiments()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTREC_STUDIES", postgres.replace("postgres:@", "postgres:a-secret@"))
    compiled(tmp_path / "search.yaml", shards=2, cache_key="key")
    previous = local_config.LocalExecutionConfig.instance
    try:
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
        components.load_component_from_file(str(tmp_path / "search.yaml"))(
            scenario=json.dumps(shop.as_dict()), trials=TRIALS, tracking_uri=uri, code_revision="abc"
        )
    finally:
        local_config.LocalExecutionConfig.instance = previous
    (summary,) = (tmp_path / "root").rglob("report-search/summary")
    told = json.loads(summary.read_text())
    trials = told["trials"]
    assert [trial["number"] for trial in trials] == list(range(TRIALS)), "as many as asked, each once"
    assert {trial["state"] for trial in trials} == {"complete"}
    assert told["best"]["value"] == max(trial["value"] for trial in trials)
    # The best settings, as a command to paste.
    returned = json.loads((summary.parent / "executor_output.json").read_text())["parameterValues"]
    words_to_paste = returned["Output"].split()
    assert words_to_paste[:5] == ["mtrec", "submit", "training", "--scenario", "tiny-shop"]
    assert words_to_paste[5::2] == ["--set"] * len(SPACE)
    assert words_to_paste[6::2] == told["settings"]
    _check_mlflow(uri, told)
    assert (summary.parent / "page").read_text().startswith("<!DOCTYPE html>")
    assert (summary.parent / "picture").read_text().startswith("<svg xmlns=")
    for path in (tmp_path / "root").rglob("*"):
        assert path.is_dir() or b"a-secret" not in path.read_bytes(), path


def _check_mlflow(uri: str, told: dict[str, Any]) -> None:
    """One run of the study, with a child per trial."""
    with connected(uri) as client:
        experiment = client.get_experiment_by_name("tiny-shop")
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        files = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id} == {told["mlflow_run"]}
    assert sorted(int(run.data.tags["mtrec.trial"]) for run in children) == list(range(TRIALS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.tags["mtrec.best_trial"] == str(told["best"]["number"])
    assert parent.data.tags["mtrec.best_settings"] == " ".join(f"--set {setting}" for setting in told["settings"])
    assert files == {"trials.html", "trials.svg", "trials.json"}
