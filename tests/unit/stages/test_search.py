"""The search as a pipeline's step: two workers on one study in PostgreSQL, and the report after them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.errors import ConfigError, RunError
from mtrec.stages.execution import run_stage
from mtrec.stages.search import study_name
from mtrec.tracking.connection import connected
from mtrec.training.storage import Storage
from tests.unit.tiny_shop import TASKS, shop_scenario

SPACE = {
    "training.lr": {"low": 0.0005, "high": 0.05, "log": True},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True},
}
TRIALS = 6
RUN = "run-7"


@pytest.fixture(scope="session")
def searched(tiny_bert: Path) -> Scenario:
    tasks = {name: TASKS[name] for name in ("rating", "category")}
    scenario = shop_scenario(tiny_bert, tasks=tasks, search={"space": SPACE, "trials": 30, "pruner": "none"})
    return scenario.model_copy(update={"training": scenario.training.model_copy(update={"epochs": 1})})


def report(scenario: Scenario, folder: Path, **inputs: str) -> dict[str, Any]:
    outputs = {name: folder / name for name in ("page", "picture", "summary")}
    given = {"pipeline_run": RUN, "state": "COMPLETE", **inputs}
    return run_stage("report_search", inputs=given, outputs=outputs, scenario=scenario)


@pytest.mark.slow
def test_two_workers_share_a_study_and_one_report_tells_of_it(
    shop_run: Path,
    searched: Scenario,
    postgres: str,
    uri: str,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MTREC_STUDIES", postgres.replace("postgres:@", "postgres:a-secret@"))
    given = {"dataset": shop_run / "dataset", "data_version": "v1", "trials": str(TRIALS), "tracking_uri": uri}
    given["pipeline_run"] = RUN
    other = _worker(searched, given, tmp_path, repository)
    _wait_for_trial(postgres, study_name(searched, "v1"), other)
    mine = run_stage("search", inputs=given, outputs={}, scenario=searched)
    output, error = other.communicate(timeout=120)
    assert other.returncode == 0, error
    theirs = json.loads(output)
    assert mine["study"] == theirs["study"] == study_name(searched, "v1")
    assert mine["ended"] + theirs["ended"] == TRIALS
    assert min(mine["ended"], theirs["ended"]) > 0, "both took part"
    said = report(searched, tmp_path, tracking_uri=uri, data="dvc:1")
    assert [trial["number"] for trial in said["trials"]] == list(range(TRIALS)), "as many as asked, each once"
    assert {trial["state"] for trial in said["trials"]} == {"complete"}
    assert said == json.loads((tmp_path / "summary").read_text())
    settings = [word for setting in said["settings"] for word in ("--set", setting)]
    assert said["command"] == [
        *("mtrec", "submit", "training", "--scenario", "tiny-shop", "--data", "dvc:1"),
        *settings,
    ]
    for name in ("page", "picture", "summary"):
        assert "a-secret" not in (tmp_path / name).read_text()
    _check_mlflow(uri, said, " ".join(settings))


@pytest.mark.slow
def test_a_search_whose_worker_was_killed_is_reported_and_goes_on(
    shop_run: Path,
    searched: Scenario,
    postgres: str,
    uri: str,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else is left to end its trial's run; the trial waits for the next search of the same study."""
    monkeypatch.setenv("MTREC_STUDIES", postgres)
    assert report(searched, tmp_path, tracking_uri=uri, state="FAILED") == {}, "no worker has begun"
    assert not (tmp_path / "page").exists()
    given = {"dataset": shop_run / "dataset", "data_version": "v1", "study": "killed"}
    given |= {"tracking_uri": uri, "pipeline_run": RUN}
    worker = _worker(searched, given, tmp_path, repository)
    _wait_for_trial(postgres, "killed", worker)
    while _statuses(uri).count("RUNNING") < 2:  # the study's and the trial's
        time.sleep(0.05)
    worker.kill()
    worker.communicate()
    said = report(searched, tmp_path, tracking_uri=uri, state="RUNNING")  # a server that does not know
    assert [trial["state"] for trial in said["trials"]].count("waiting") == 1
    assert "RUNNING" not in _statuses(uri)
    with connected(uri) as client:
        study = client.get_run(said["mlflow_run"])
    assert study.info.status == "FAILED"
    assert study.data.tags["mtrec.outcome"] == "failed: a step failed"
    assert "failed" in (tmp_path / "page").read_text()
    run_stage("search", inputs={**given, "trials": "2"}, outputs={}, scenario=searched)
    said = report(searched, tmp_path, tracking_uri=uri, state="RUNNING")
    assert [trial["state"] for trial in said["trials"]].count("complete") == 2
    assert set(_statuses(uri)) == {"FINISHED", "KILLED"}


def _worker(scenario: Scenario, given: dict[str, Any], folder: Path, repository: Path) -> "subprocess.Popen[str]":
    """Another worker, in a process of its own."""
    (folder / "shop.yaml").write_text(json.dumps(scenario.as_dict()))
    command = [sys.executable, "-m", "mtrec.stages", "search", "--scenario", str(folder / "shop.yaml")]
    return subprocess.Popen(
        [*command, *(word for key, value in given.items() for word in ("--input", f"{key}={value}"))],
        env={**os.environ, "PYTHONPATH": str(repository / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _statuses(uri: str) -> list[str]:
    with connected(uri) as client:
        experiment = client.get_experiment_by_name("tiny-shop")
        return [run.info.status for run in client.search_runs([experiment.experiment_id])] if experiment else []


def _wait_for_trial(url: str, study: str, process: "subprocess.Popen[str]") -> None:
    """Until the process has taken its first trial: whoever comes later has to wait for that one."""
    import optuna

    storage = Storage(url)
    while True:
        assert process.poll() is None, process.communicate()
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage.optuna)]
        if study in names:
            trials = optuna.load_study(study_name=study, storage=storage.optuna).get_trials(deepcopy=False)
            if any(trial.state.name == "RUNNING" for trial in trials):
                return
        time.sleep(0.05)


def _check_mlflow(uri: str, said: dict[str, Any], settings: str) -> None:
    """One run of the study, with a child run per trial, the best settings and the files."""
    with connected(uri) as client:
        experiment = client.get_experiment_by_name("tiny-shop")
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        files = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.info.run_id == said["mlflow_run"]
    assert sorted(int(run.data.tags["mtrec.trial"]) for run in children) == list(range(TRIALS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.tags["mtrec.best_trial"] == str(said["best"]["number"])
    assert parent.data.tags["mtrec.best_settings"] == settings
    assert files == {"trials.html", "trials.svg", "trials.json"}


def test_wrong_input_is_one_line(
    shop_run: Path, searched: Scenario, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"dataset": shop_run / "dataset", "data_version": "v1"}
    monkeypatch.delenv("MTREC_STUDIES", raising=False)
    with pytest.raises(ConfigError, match=r"MTREC_STUDIES is not set; give it the database of studies"):
        run_stage("search", inputs=given, outputs={}, scenario=searched)
    with pytest.raises(ConfigError, match=r"MTREC_STUDIES is not set"):
        report(searched, tmp_path)
    monkeypatch.setenv("MTREC_STUDIES", "postgresql://u:a-secret@127.0.0.1:9/db")
    with pytest.raises(ConfigError, match=r"trials is 'many': write a whole number"):
        run_stage("search", inputs={**given, "trials": "many"}, outputs={}, scenario=searched)
    with pytest.raises(RunError, match=r"study storage postgresql://127\.0\.0\.1:9/db: ") as caught:
        run_stage("search", inputs=given, outputs={}, scenario=searched)
    assert "a-secret" not in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_a_study_s_name_stands_for_space_settings_and_data(searched: Scenario) -> None:
    def changed(section: str, **values: Any) -> Scenario:
        raw = searched.as_dict()
        return parse_scenario(raw | {section: raw[section] | values})

    name = study_name(searched, "v1")
    assert name.startswith("tiny-shop-")
    assert study_name(changed("search", trials=99), "v1") == name, "more trials go on with the same study"
    assert study_name(changed("training", lr=0.5), "v1") == name, "it is searched"
    others = {
        study_name(searched, "v2"),
        study_name(changed("training", epochs=7), "v1"),
        study_name(changed("search", space={"training.lr": SPACE["training.lr"]}), "v1"),
    }
    assert len(others | {name}) == 4
