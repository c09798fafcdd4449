"""Attempts are the pipeline runs of a scenario, in order of time, however they ended."""

from datetime import UTC, datetime, timedelta

import pytest

from mtrec.config import Scenario
from mtrec.tracking import (
    attempts,
    begin_training,
    child_run,
    finish_run,
    pipeline_run,
    retraining,
    running,
    trained_in,
)
from mtrec.tracking.connection import connected


def test_every_pipeline_run_counts_once(uri: str, scenario: Scenario) -> None:
    assert attempts(scenario, uri) == []
    before = datetime.now(UTC) - timedelta(seconds=1)
    first = pipeline_run(scenario, "one", tracking_uri=uri)
    with child_run(first, "fine_tune"):
        pass
    finish_run(first, "FAILED")
    second = pipeline_run(scenario, "two", tracking_uri=uri)
    pipeline_run(scenario, "two", tracking_uri=uri)  # resumed
    with connected(uri) as client:
        client.create_run(second.experiment_id)  # somebody's own run
    found = attempts(scenario, uri)
    assert len(found) == 2
    assert before <= found[0] <= found[1] <= datetime.now(UTC)
    assert attempts(scenario, uri, besides="one") == found[1:]


def test_the_runs_of_other_scenarios_do_not_count(uri: str, scenario: Scenario) -> None:
    pipeline_run(scenario, "one", tracking_uri=uri)
    assert attempts(scenario.model_copy(update={"name": "other"}), uri) == []


def test_a_run_that_mlflow_calls_running_counts_for_a_while(
    uri: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert running(scenario, uri) is None
    pipeline_run(scenario, "one", tracking_uri=uri)
    assert running(scenario, uri) == "one"
    assert running(scenario, uri, besides="one") is None
    with monkeypatch.context() as patched:
        patched.setattr(retraining, "DEAD_AFTER", timedelta(0))
        assert running(scenario, uri) is None
    finish_run(pipeline_run(scenario, "one", tracking_uri=uri), "FAILED")
    assert running(scenario, uri) is None
    begin_training(scenario, "one", key="k" * 64, why="taken up again", tracking_uri=uri)
    assert running(scenario, uri) == "one"


def test_a_retraining_is_found_by_its_key_once_it_came_to_its_end(uri: str, scenario: Scenario) -> None:
    begin_training(scenario, "one", key="k" * 64, why="drift", tracking_uri=uri)
    assert trained_in(scenario, "k" * 64, uri) is None
    finish_run(pipeline_run(scenario, "one", tracking_uri=uri))
    assert trained_in(scenario, "k" * 64, uri) == "one"
    assert trained_in(scenario, "l" * 64, uri) is None
