"""Studies in MLflow: one run per study whoever asks, a child run per trial."""

import threading
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario
from mtrec.errors import ConfigError, RunError
from mtrec.tracking import finish_run, log_values, running_trials, study_of, study_run, tag_run, trial_run
from mtrec.tracking.connection import connected


def opened(scenario: Scenario, name: str = "monday", **settings: Any) -> Any:
    return study_run(
        scenario, name, settings=settings or {"training": {"epochs": 5}}, tags={"mtrec.sampler": "tpe"}
    )


def test_a_study_has_one_run_in_the_scenario_s_experiment(uri: str, scenario: Scenario) -> None:
    first = opened(scenario)
    finish_run(first, "KILLED")
    again = opened(scenario)
    assert again == first
    assert opened(scenario, "tuesday").run_id != first.run_id
    with connected(uri) as client:
        run = client.get_run(first.run_id)
        assert client.get_experiment(first.experiment_id).name == "ecommerce"
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "monday"
    assert run.data.tags["mtrec.study"] == "monday"
    assert run.data.tags["mtrec.sampler"] == "tpe"
    assert run.data.params == {"training.epochs": "5"}


def test_threads_that_come_at_once_share_the_run(uri: str, scenario: Scenario) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(opened(scenario).run_id)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_study_is_found_by_each_pipeline_run_that_works_on_it(uri: str, scenario: Scenario) -> None:
    assert study_of(scenario, "run-1") is None, "there is no experiment"
    tags = {"mtrec.data_version": "v1"}
    for run in ("run-1", "run-2"):
        study_run(scenario, "monday", settings={}, tags=tags, pipeline_run=run)
    study_run(scenario, "tuesday", settings={}, tags=tags | {"mtrec.data_version": "v2"}, pipeline_run="run-3")
    assert [study_of(scenario, f"run-{number}") for number in (1, 2, 3, 4)] == [
        ("monday", "v1"),
        ("monday", "v1"),
        ("tuesday", "v2"),
        None,
    ]


def test_a_study_of_other_settings_is_not_mixed_in(uri: str, scenario: Scenario) -> None:
    opened(scenario)
    with pytest.raises(RunError, match=r"started with other settings \(training\.epochs=5, now 6\)"):
        opened(scenario, training={"epochs": 6})


@pytest.mark.parametrize("name", ["", "it's"])
def test_a_name_must_be_one(uri: str, scenario: Scenario, name: str) -> None:
    with pytest.raises(ConfigError, match="a name is needed"):
        opened(scenario, name)


def test_a_trial_is_a_child_with_its_settings_until_it_ends(uri: str, scenario: Scenario) -> None:
    study = opened(scenario)
    settings = {"training.lr": 0.002, "training.balancing": "famo", "model.item_ids": True}
    first, second = (trial_run(study, number, settings, {"mtrec.study": "monday"}) for number in (0, 11))
    assert running_trials(study) == {0: first, 11: second}
    tag_run(first, trial_state="complete")
    finish_run(first)
    assert running_trials(study) == {11: second}
    assert running_trials(opened(scenario, "tuesday")) == {}
    with connected(uri) as client:
        run = client.get_run(first.run_id)
    assert run.info.run_name == "trial 0"
    assert run.data.tags["mlflow.parentRunId"] == study.run_id
    assert run.data.tags["mtrec.trial_state"] == "complete"
    assert run.data.params == {"training.lr": "0.002", "training.balancing": "famo", "model.item_ids": "true"}


def test_a_study_s_run_has_the_value_of_every_trial_once_and_the_best_so_far(uri: str, scenario: Scenario) -> None:
    study = opened(scenario)
    states = [("complete", 1.0), ("pruned", 3.0), ("complete", 0.5), ("complete", 1.5), ("running", None)]
    trials = [{"number": n, "state": state, "value": value} for n, (state, value) in enumerate(states)]
    for told in (trials[:1], trials[:3], trials, trials):
        log_values(study, told)
    with connected(uri) as client:
        curves = {
            name: sorted((point.step, point.value) for point in client.get_metric_history(study.run_id, name))
            for name in ("value", "best_value")
        }
    assert curves["value"] == [(0, 1.0), (2, 0.5), (3, 1.5)]
    assert curves["best_value"] == [(0, 1.0), (2, 1.0), (3, 1.5)]


def test_a_server_that_is_not_there_is_named(scenario: Scenario, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"MLflow at http://127\.0\.0\.1:9: no answer"):
        study_run(scenario, "monday", settings={}, tags={}, tracking_uri="http://127.0.0.1:9")
