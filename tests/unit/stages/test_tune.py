"""The tune stage: real trials on the tiny shop, what MLflow has of them, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario, parse_scenario
from mtrec.errors import ConfigError, DataError, RunError
from mtrec.progress import Progress, listening
from mtrec.stages import fine_tune, tune
from mtrec.tracking.connection import connected
from mtrec.training import space
from mtrec.training.search import Ended
from mtrec.training.storage import Storage
from mtrec.training.study import Attempt, Study, value_of
from mtrec.training.trials import best_of, trials_of
from tests.unit.tiny_shop import TASKS, shop_scenario

SPACE = {
    "training.lr": {"low": 0.0005, "high": 0.05, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True},
}
Tune = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def searched(tiny_bert: Path) -> Scenario:
    tasks = {name: TASKS[name] for name in ("rating", "category", "next_item")}
    return shop_scenario(tiny_bert, tasks=tasks, search={"space": SPACE, "trials": 3, "pruner": "none"})


@pytest.fixture
def tuned(shop_run: Path, searched: Scenario, tmp_path: Path, uri: str) -> Tune:
    """Work on the study `monday`; keywords change the inputs."""

    def work(
        scenario: Scenario = searched, listeners: tune.Listeners | None = None, **inputs: Any
    ) -> dict[str, Any]:
        given = {
            "dataset": shop_run / "dataset",
            "data_version": "v1",
            "storage": f"sqlite:///{tmp_path}/search.db",
            "study": "monday",
        }
        outputs = tune.Outputs(
            page=tmp_path / "trials.html", picture=tmp_path / "trials.svg", summary=tmp_path / "trials.json"
        )
        return tune.run(tune.Inputs(**{**given, **inputs}), outputs, scenario, listeners or tune.Listeners())

    return work


def mlflow_runs(uri: str) -> tuple[Any, list[Any]]:
    """The run of the study and those of its trials, by number."""
    with connected(uri) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        (parent,) = client.search_runs(experiments, "tags.`mtrec.study` = 'monday' and tags.`mtrec.sampler` != ''")
        children = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return parent, sorted(children, key=lambda run: int(run.data.tags["mtrec.trial"]))


def curve(uri: str, run: Any, name: str) -> list[tuple[int, float]]:
    with connected(uri) as client:
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_trials_are_trained_told_written_and_logged(
    tuned: Tune, searched: Scenario, shop_run: Path, tmp_path: Path, uri: str
) -> None:
    ended: list[tuple[Ended, dict[str, Any] | None]] = []
    heard: list[Progress] = []
    with listening(heard.append):
        said = tuned(listeners=tune.Listeners(ended=lambda end, best: ended.append((end, best))))
    assert said == json.loads((tmp_path / "trials.json").read_text())
    trials = said["trials"]
    assert [trial["state"] for trial in trials] == ["complete"] * 3
    assert [end.value for end, _ in ended] == [trial["value"] for trial in trials]
    assert [best for _, best in ended] == [best_of(trials[: n + 1]) for n in range(3)]
    assert trials[0]["point"] == {"training.lr": 0.002, "model.dropout": 0.2, "tasks.rating.weight": 1.0}
    assert trials[0]["value"] == 1.0
    assert said["best"] == max(trials, key=lambda trial: trial["value"])
    for trial in trials:
        assert trial["value"] == pytest.approx(value_of(trial["skills"], trials[0]["skills"]))
        assert trial["value"] == pytest.approx(trial["epochs"][trial["best_epoch"] - 1])
    assert [p.message for p in heard if p.stage != "tune"] == ["encoding the item texts"] * 3
    # A run of fine_tune with the settings of a trial learns exactly what the trial said.
    point = trials[2]["point"]
    outputs = fine_tune.Outputs(model=tmp_path / "model", losses=tmp_path / "losses.jsonl")
    fine_tune.run(fine_tune.Inputs(dataset=shop_run / "dataset"), outputs, space.at(searched, point))
    lines = [json.loads(line) for line in outputs.losses.read_text().splitlines()]
    assert trials[2]["skills"] in [line["metrics"] for line in lines if line["kind"] == "valid"]
    # The page and the picture.
    page, picture = (tmp_path / f"trials.{kind}" for kind in ("html", "svg"))
    assert f"Trial {said['best']['number']}" in page.read_text() or "own settings" in page.read_text()
    assert picture.read_text().startswith("<svg xmlns=")
    _check_mlflow(uri, said)


def _check_mlflow(uri: str, said: dict[str, Any]) -> None:
    parent, children = mlflow_runs(uri)
    trials = said["trials"]
    assert parent.info.run_id == said["mlflow_run"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mtrec.data_version"] == "v1"
    assert parent.data.params["training.epochs"] == "2"
    assert "training.lr" not in parent.data.params, "it is what the trials differ in"
    assert sorted(curve(uri, parent, "value")) == [(trial["number"], trial["value"]) for trial in trials]
    best = [max(trial["value"] for trial in trials[: n + 1]) for n in range(3)]
    assert [value for _, value in sorted(curve(uri, parent, "best_value"))] == best
    with connected(uri) as client:
        names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert names == {"trials.html", "trials.svg"}
    assert [child.info.run_id for child in children] == [trial["mlflow_run"] for trial in trials]
    for child, trial in zip(children, trials, strict=True):
        assert child.info.run_name == f"trial {trial['number']}"
        assert child.info.status == "FINISHED"
        assert child.data.tags["mtrec.trial_state"] == "complete"
        assert {key: float(value) for key, value in child.data.params.items()} == trial["point"]
        assert child.data.metrics["value"] == trial["value"]
        assert dict(curve(uri, child, "valid/value")) == pytest.approx(dict(enumerate(trial["epochs"], 1)))
        for task, skill in trial["skills"].items():
            assert (trial["best_epoch"], skill) in curve(uri, child, f"valid/{task}")


def test_a_finished_study_is_told_again_and_more_trials_go_on(tuned: Tune, uri: str) -> None:
    first = tuned(trials=1)
    assert tuned(trials=1)["trials"] == first["trials"]
    more = tuned(trials=2)
    assert more["trials"][0] == first["trials"][0]
    assert len(more["trials"]) == 2
    parent, children = mlflow_runs(uri)
    assert len(children) == 2
    assert sorted(curve(uri, parent, "value")) == [(n, more["trials"][n]["value"]) for n in range(2)], "each once"


class Stop:
    """Raises an error in the second trial's first epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.trial = error, 0

    def begun(self, attempt: Attempt, total: int) -> None:
        assert total == 2
        self.trial = attempt.number

    def __call__(self, said: Progress) -> None:
        if self.trial == 1 and said.fraction and said.fraction > 0.4:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "KILLED"), (RunError("the disk is full"), "FAILED")]
)
def test_a_search_that_was_broken_off_goes_on(tuned: Tune, uri: str, error: BaseException, status: str) -> None:
    stop = Stop(error)
    with pytest.raises(type(error)), listening(stop):
        tuned(trials=2, listeners=tune.Listeners(begun=stop.begun))
    parent, children = mlflow_runs(uri)
    assert [run.info.status for run in (parent, *children)] == [status, "FINISHED", status]
    assert children[1].data.tags["mtrec.trial_state"] == "failed"
    said = tuned(trials=2)
    assert [trial["state"] for trial in said["trials"]] == ["complete", "failed", "complete"]
    assert said["trials"][2]["point"] == said["trials"][1]["point"]
    parent, children = mlflow_runs(uri)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED", "FINISHED", status, "FINISHED"]


def test_the_run_of_a_trial_whose_process_was_killed_is_ended(
    tuned: Tune, searched: Scenario, tmp_path: Path, uri: str
) -> None:
    first = tuned(trials=1)
    study = Study(Storage(f"sqlite:///{tmp_path}/search.db"), "monday", searched, "v1")
    dead = study.claim(2)
    assert isinstance(dead, Attempt)
    parent = tracking.Run(
        tracking_uri=uri, experiment_id=mlflow_runs(uri)[0].info.experiment_id, run_id=first["mlflow_run"], name="x"
    )
    tracking.trial_run(parent, 1, dead.point, {})
    dead.note(process={**dead.trial.user_attrs["process"], "started": 5.0})
    said = tuned(trials=2)
    assert [trial["state"] for trial in said["trials"]] == ["complete", "failed", "complete"]
    assert [child.info.status for child in mlflow_runs(uri)[1]] == ["FINISHED", "KILLED", "FINISHED"]


def test_a_trial_that_diverges_is_left_aside_and_logged_as_such(tuned: Tune, searched: Scenario, uri: str) -> None:
    wild = {"training.lr": {"choices": [0.002, 1e30]}, "training.clip_norm": {"choices": [1.0, 1e30]}}
    raw = searched.as_dict() | {"search": {"space": wild, "sampler": "grid"}}
    said = tuned(parse_scenario(raw), study="monday")
    diverged = [trial for trial in said["trials"] if trial["state"] == "pruned"]
    assert diverged
    assert all(trial["point"]["training.lr"] == 1e30 for trial in diverged)
    assert all("is nan at step" in trial["why"] or "is inf at step" in trial["why"] for trial in diverged)
    child = mlflow_runs(uri)[1][diverged[0]["number"]]
    assert child.data.tags["mtrec.trial_state"] == "pruned"
    assert child.data.tags["mtrec.why"] == diverged[0]["why"]
    assert said["best"]["point"]["training.lr"] == 0.002


def test_wrong_input_is_told_before_anything_is_trained(tuned: Tune, tmp_path: Path, searched: Scenario) -> None:
    with pytest.raises(ConfigError, match="write sqlite:///path or postgresql://"):
        tuned(storage="search.db")
    with pytest.raises(DataError, match=r"users\.parquet: no such file"):
        tuned(dataset=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists with other data"):
        tuned(data_version="v2")
    with pytest.raises(ConfigError, match="a name is needed, and it may hold no quote"):
        tuned(study="it's")
    warm = searched.model_copy(update={"training": searched.training.model_copy(update={"start": "champion"})})
    with pytest.raises(ConfigError, match=r"training\.start: a search trains from the pretrained encoder; set it"):
        tuned(scenario=warm)
    study = Study(Storage(f"sqlite:///{tmp_path}/search.db"), "monday", searched, "v1")
    assert {trial["state"] for trial in trials_of(study)} == {"waiting"}
