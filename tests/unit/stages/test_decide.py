"""Deciding with consequences: what is kept in MLflow, what counts as an attempt, and what never trains twice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.drops import known_tables
from mtrec.data.forgotten import remember, users_in
from mtrec.data.versioning import EMBEDDED
from mtrec.errors import RunError
from mtrec.lease import Lease, holding
from mtrec.stages import decide
from mtrec.stages.execution import run_stage
from mtrec.tracking import (
    attempts,
    finish_run,
    log_outcome,
    log_training_outcome,
    pipeline_run,
    training_lease,
    trainings,
)
from mtrec.tracking.connection import connected
from mtrec.training.nodes import Place as Nodes
from mtrec.training.nodes import run_label
from tests import kube_server
from tests.unit.stages.conftest import later


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store, a repository and what a monitor observed: each test its own."""

    folder: Path
    scenario: Scenario

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def decide(self, pipeline_run: str | None = "second", **given: Any) -> dict[str, Any]:
        inputs = {
            "observed": self.folder / "out" / "observed",
            "tables": self.folder / "out" / "tables",
            "tracking_uri": self.uri,
            "dvc_root": self.folder / "dvc",
            "image": "an-image",
            "code_revision": "abc",
            "pipeline_run": pipeline_run,
        }
        outputs = decide.Outputs(decision=self.folder / "decision", report=self.folder / "report")
        return decide.run(decide.Inputs(**inputs | given), outputs, self.scenario)


@pytest.fixture
def place(
    champion: Path, check: Callable[..., dict[str, Any]], known: Tables, watched: Scenario, tmp_path: Path
) -> Place:
    settings = watched.retraining.model_copy(update={"cool_down_hours": 0.0})
    scenario = watched.model_copy(update={"retraining": settings})
    check(later(known, drifted=True))
    for name in ("dvc", "dvc-remote"):
        shutil.copytree(champion / name, tmp_path / name)
    shutil.copy(champion / "mlflow.db", tmp_path / "mlflow.db")
    return Place(folder=tmp_path, scenario=scenario)


def test_telling_alone_changes_nothing(place: Place) -> None:
    before = len(attempts(place.scenario, place.uri))
    assert place.decide(pipeline_run=None)["verdict"] == "retrain"
    assert len(attempts(place.scenario, place.uri)) == before
    with connected(place.uri) as client:
        assert client.get_experiment_by_name(f"{place.scenario.name}-monitoring") is None


def test_a_retraining_finds_its_data_by_version_and_counts_from_the_decision_on(place: Place) -> None:
    before = len(attempts(place.scenario, place.uri))
    told = place.decide()
    assert told["verdict"] == "retrain"
    tables = known_tables(told["data"]["version"], place.folder / "dvc")
    assert tables.interactions.equals(Tables.read(place.folder / "out" / "tables").interactions)
    assert len(attempts(place.scenario, place.uri)) == before + 1
    assert len(attempts(place.scenario, place.uri, besides="second")) == before
    with connected(place.uri) as client:
        experiment = client.get_experiment_by_name(f"{place.scenario.name}-monitoring")
        (look,) = client.search_runs([experiment.experiment_id])
        files = {file.path for file in client.list_artifacts(look.info.run_id)}
    assert look.data.tags["mtrec.verdict"] == "retrain"
    assert look.data.tags["mtrec.reason"] == told["reason"]
    assert look.data.metrics["drift/items.category"] > 0.05
    assert files == {"decision.json", "drift.html"}


def test_the_data_goes_to_the_repository_here_where_none_is_given(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the monitor looked for the champion's data."""
    monkeypatch.chdir(place.folder)
    (place.folder / ".mtrec").mkdir()
    for name in ("dvc", "dvc-remote"):
        (place.folder / name).rename(place.folder / ".mtrec" / name)
    told = place.decide(dvc_root=None)
    assert told["verdict"] == "retrain"
    assert known_tables(told["data"]["version"], EMBEDDED).interactions.height > 0


def test_going_on_with_a_run_decides_as_before(place: Place) -> None:
    """Its own attempt is no reason to rest."""
    settings = place.scenario.retraining.model_copy(update={"cool_down_hours": 48.0})
    now = json.loads((place.folder / "out" / "observed").read_text())["now"]
    assert now.startswith("2025-11-01"), "long before the runs of this test"
    rested = Place(folder=place.folder, scenario=place.scenario.model_copy(update={"retraining": settings}))
    assert [rested.decide()["verdict"] for _ in range(2)] == ["retrain", "retrain"]


def test_the_same_never_trains_twice(place: Place) -> None:
    told = place.decide()
    assert place.decide("third")["verdict"] == "retrain", "the attempt did not come to its end"
    finish_run(pipeline_run(place.scenario, "second", tracking_uri=place.uri))
    again = place.decide("fourth")
    assert (again["verdict"], again["reason"]) == ("skip", "run second did just this already")
    assert again["key"] == told["key"]
    for change in ({"image": "another"}, {"code_revision": "abd"}):
        assert place.decide("fifth", **change)["verdict"] == "retrain"


def test_none_begins_while_another_is_under_way(place: Place) -> None:
    with holding(training_lease(place.scenario.name, place.uri), "training of tiny") as lease:
        assert place.decide()["reason"].startswith("training of tiny (")
        assert place.decide(lease=lease.as_text())["verdict"] == "retrain", "the run's own lease"
    assert place.decide()["verdict"] == "retrain"


def test_on_a_cluster_the_run_that_retrains_holds_the_lease_from_the_decision_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pods are given where the lease is, and join under the name of their run."""
    monkeypatch.setenv("MTREC_LEASES", "kubernetes")
    with kube_server.cluster(place.folder, monkeypatch) as server:
        where = training_lease(place.scenario.name, place.uri).as_place()
        assert place.decide(lease=where)["verdict"] == "retrain"
        (lease,) = (found for (kind, _, _), found in server.objects.items() if kind == "leases")
        assert lease["spec"]["holderIdentity"] == "second"
        assert place.decide(lease=where)["verdict"] == "retrain", "the same step of the same run, tried again"
        told = place.decide("third", lease=where)
        under_way = f"retraining of {place.scenario.name} (second) is under way already"
        assert (told["verdict"], told["reason"]) == ("skip", under_way)
        assert trainings(place.uri) == [f"retraining of {place.scenario.name} (second)"]
        with Lease.join(where, "second").guarded() as token:
            assert token == 1


def test_where_no_lease_is_shared_a_training_run_of_mlflow_is_under_way(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline_run(place.scenario, "elsewhere", tracking_uri=place.uri)
    assert place.decide()["verdict"] == "retrain", "beside the store there is a lease"
    monkeypatch.setattr(decide, "database_of", lambda uri: None)
    assert place.decide()["reason"] == "run elsewhere is under way already"
    finish_run(pipeline_run(place.scenario, "elsewhere", tracking_uri=place.uri), "FAILED")
    assert place.decide()["verdict"] == "retrain", "its own run is none"


@pytest.mark.parametrize(("start", "verdict"), [("champion", "skip"), ("pretrained", "retrain")])
def test_training_does_not_start_from_a_champion_with_forgotten_users(
    place: Place, known: Tables, start: str, verdict: str
) -> None:
    training = place.scenario.training.model_copy(update={"start": start})
    scenario = place.scenario.model_copy(update={"training": training})
    here = Place(folder=place.folder, scenario=scenario)
    assert here.decide(None)["verdict"] == "retrain", "nobody was forgotten"
    remember(place.folder / "dvc", scenario.name, [min(users_in(known))])
    told = here.decide(None)
    assert told["verdict"] == verdict
    assert ("the champion learned from 1 user who was forgotten on" in told["reason"]) == (verdict == "skip")


@pytest.mark.parametrize(
    ("minutes", "given", "reason"),
    [(-30, False, "last attempt 0.5 hours ago"), (30, False, "last attempt 0.0 hours ago"), (-30, True, "drift")],
)
def test_an_attempt_since_the_monitor_began_counts_unless_a_person_gave_the_time(
    place: Place, monkeypatch: pytest.MonkeyPatch, minutes: float, given: bool, reason: str
) -> None:
    """Also one by a clock that is ahead."""
    path = place.folder / "out" / "observed"
    observed = json.loads(path.read_text())
    began = datetime.now(UTC) - timedelta(hours=1)
    path.write_text(json.dumps(observed | {"now": began.isoformat(), "now_given": given}))
    monkeypatch.setattr(decide, "attempts", lambda *_, **__: [datetime.now(UTC) + timedelta(minutes=minutes)])
    settings = place.scenario.retraining.model_copy(update={"cool_down_hours": 48.0})
    scenario = place.scenario.model_copy(update={"retraining": settings})
    assert Place(folder=place.folder, scenario=scenario).decide(None)["reason"].startswith(reason)


def test_the_outcome_is_recorded(place: Place) -> None:
    place.decide()
    assert log_outcome(place.scenario, "second", "a step failed", place.uri) == "failed: a step failed"
    run = pipeline_run(place.scenario, "second", tracking_uri=place.uri)
    with connected(place.uri) as client:
        assert client.get_run(run.run_id).info.status == "FAILED"
        client.set_tag(run.run_id, "mtrec.gate", "fail")
    assert log_outcome(place.scenario, "second", None, place.uri) == "refused by the gate"
    assert log_outcome(place.scenario, "never heard of", None, place.uri) == "skipped: no decision was made"


@pytest.mark.parametrize(
    ("state", "tags", "outcome", "status"),
    [
        ("FAILED", {}, "failed: a step failed", "FAILED"),
        ("FAILED", {"registered": "tiny-candidate/1", "gate": "pass"}, "failed: a step failed", "FAILED"),
        ("SUCCEEDED", {"gate": "fail"}, "refused by the gate", "FINISHED"),  # kfp's local runner
        ("COMPLETE", {"gate": "fail"}, "refused by the gate", "FINISHED"),  # a server
        ("COMPLETE", {"gate": "pass"}, "registered", "FINISHED"),
        ("RUNNING", {"gate": "fail"}, "refused by the gate", "FINISHED"),  # a server that does not know
        ("RUNNING", {"gate": "pass", "registered": "tiny-candidate/1"}, "registered", "FINISHED"),
        ("RUNNING", {"gate": "pass"}, "failed: a step failed", "FAILED"),
        ("RUNNING", {}, "failed: a step failed", "FAILED"),
    ],
)
def test_the_outcome_of_a_training_that_nobody_watched(
    place: Place, state: str, tags: dict[str, str], outcome: str, status: str
) -> None:
    run = pipeline_run(place.scenario, "third", tracking_uri=place.uri)
    with connected(place.uri) as client:
        for name, value in tags.items():
            client.set_tag(run.run_id, f"mtrec.{name}", value)
    left = place.folder / "work" / run_label("third") / "some" / "dataset"
    left.mkdir(parents=True)
    trainer = Nodes(num_nodes=2, runtime="local", work=place.folder / "work").as_text()
    given = {"pipeline_run": "third", "state": state, "of": "training", "trainer": trainer}
    given["tracking_uri"] = place.uri
    told = run_stage("record", inputs=given, outputs={}, scenario=place.scenario)
    assert told == {"outcome": outcome}
    assert not left.exists()
    with connected(place.uri) as client:
        ended = client.get_run(run.run_id)
    assert (ended.info.status, ended.data.tags["mtrec.outcome"]) == (status, outcome)


def test_a_look_whose_end_the_server_does_not_know_is_judged_by_what_it_left(place: Place) -> None:
    def outcome(name: str = "second") -> str:
        given = {"pipeline_run": name, "state": "RUNNING", "tracking_uri": place.uri}
        return str(run_stage("record", inputs=given, outputs={}, scenario=place.scenario)["outcome"])

    assert outcome("never heard of") == "failed: a step failed"
    place.decide()
    assert outcome() == "failed: a step failed", "it was to train"
    run = pipeline_run(place.scenario, "second", tracking_uri=place.uri)
    with connected(place.uri) as client:
        client.set_tag(run.run_id, "mtrec.gate", "fail")
    assert outcome() == "refused by the gate"
    with holding(training_lease(place.scenario.name, place.uri), "training of tiny"):
        place.decide("third")
    assert outcome("third").startswith("skipped: training of tiny (")


def test_a_training_that_lost_its_lease_is_ended_and_one_that_never_began_has_no_run(place: Place) -> None:
    pipeline_run(place.scenario, "third", tracking_uri=place.uri)
    for name in ("third", "fourth"):
        told = log_training_outcome(place.scenario, name, "another holds its lease", place.uri, begun=False)
        assert told == "failed: another holds its lease"
    with connected(place.uri) as client:
        experiment = client.get_experiment_by_name(place.scenario.name)
        runs = client.search_runs([experiment.experiment_id])
    ended = {run.data.tags["mtrec.pipeline_run"]: run.info.status for run in runs}
    assert (ended["third"], "fourth" in ended) == ("FAILED", False)


def test_the_outcome_is_that_of_the_newest_decision(place: Place) -> None:
    """A run that was stopped while it trained, and decided otherwise when it was taken up again."""
    place.decide()
    log_outcome(place.scenario, "second", "stopped", place.uri)
    with holding(training_lease(place.scenario.name, place.uri), "training of tiny"):
        place.decide()
    assert log_outcome(place.scenario, "second", None, place.uri).startswith("skipped: training of tiny (")


def test_what_failed_after_the_gate_was_passed_is_tried_again(place: Place) -> None:
    """The register step ends the training run before it stores the model."""
    place.decide()
    run = pipeline_run(place.scenario, "second", tracking_uri=place.uri)
    with connected(place.uri) as client:
        client.set_tag(run.run_id, "mtrec.gate", "pass")
    finish_run(run)
    assert log_outcome(place.scenario, "second", "disk full", place.uri) == "failed: disk full"
    assert place.decide("third")["verdict"] == "retrain"


def test_tables_that_changed_since_they_were_monitored_are_not_trained_on(place: Place) -> None:
    users = place.folder / "out" / "tables" / "users.parquet"
    Tables.read(place.folder / "out" / "tables").users.head(3).write_parquet(users)
    with pytest.raises(RunError, match="was monitored"):
        place.decide()


def test_what_cannot_be_read_is_told(place: Place) -> None:
    (place.folder / "out" / "observed").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        place.decide()


def test_a_lease_is_looked_up_where_the_store_is(place: Place) -> None:
    lease = training_lease(place.scenario.name, place.uri)
    assert isinstance(lease, Lease)
    assert lease.path == place.folder / "locks" / f"{place.scenario.name}.training.json"
