import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtrec import kube
from mtrec.config import load_scenario
from mtrec.lease import Held, Lease
from mtrec.tracking import pipeline_run, running
from mtrec.tracking.connection import connected
from mtrec.tracking.deciding import run_lease
from mtrec.training.nodes import run_label
from pipelines.kfp_server import RunView
from pipelines.stopping import close, give_back, stopped
from tests import kube_server, trainer
from tests.kube_server import KubeServer

LEASE = run_lease("shop", trainer.NAMESPACE)
RUN = RunView(
    id="r-7", name="", state="RUNNING", created=None, ended=None, error="", tasks=(), schedule="",
    parameters={"lease": LEASE},
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    with kube_server.cluster(tmp_path, monkeypatch, namespace=trainer.NAMESPACE) as server:
        trainer.install(server)
        yield server


def test_a_stopped_run_blocks_nobody_and_holds_no_machines(server: KubeServer) -> None:
    Lease.join(LEASE, "r-7").acquire("training of shop")
    server.add(
        "trainjobs", "left", trainer.NAMESPACE, metadata={"labels": {"mtrec/pipeline-run": run_label("r-7")}}
    )
    server.add(
        "trainjobs", "other", trainer.NAMESPACE, metadata={"labels": {"mtrec/pipeline-run": run_label("r-8")}}
    )
    with pytest.raises(Held):
        Lease.join(LEASE, "r-8").acquire("training of shop")
    assert list(give_back(RUN)) == ["its lease is given back", "TrainJob left is deleted"]
    Lease.join(LEASE, "r-8").acquire("training of shop")
    assert [name for kind, _, name in server.objects if kind == "trainjobs"] == ["other"]


def test_what_is_given_back_waits_for_the_steps() -> None:
    """A step that begins while the run is being stopped would take the lease again."""

    class Stopping:
        states = iter(["RUNNING", "CANCELING", "CANCELED"])

        def run(self, run: str) -> RunView:
            return replace(RUN, state=next(self.states, "CANCELED"))

    assert stopped(Stopping(), "r-7", pause_seconds=0.0)  # type: ignore[arg-type]
    Stopping.states = iter(["RUNNING"] * 1000)
    assert not stopped(Stopping(), "r-7", patience_seconds=0.05, pause_seconds=0.01)  # type: ignore[arg-type]


@pytest.mark.parametrize("drop", ["", "/mtrec/drops"])
def test_its_run_in_mlflow_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drop: str) -> None:
    shop = load_scenario("ecommerce")
    stopped_run = replace(RUN, parameters={"scenario": json.dumps(shop.as_dict()), "drop": drop})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (told,) = close(stopped_run)
    assert told.startswith("MLFLOW_TRACKING_URI is not set: its run in MLflow stays open")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    pipeline_run(shop, "r-7")
    assert running(shop) == "r-7"
    assert list(close(stopped_run)) == ["its run in MLflow is ended"]
    assert running(shop) is None
    with connected(uri) as client:
        looks = client.get_experiment_by_name("ecommerce-monitoring")
    assert (looks is not None) == bool(drop)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (told,) = close(stopped_run)
    assert told.startswith("its run in MLflow could not be ended")
    assert list(close(replace(RUN, parameters={}))) == []


def test_the_lease_of_another_run_is_left_alone(server: KubeServer) -> None:
    Lease.join(LEASE, "r-8").acquire("training of shop")
    assert list(give_back(RUN)) == ["its lease is given back"]
    with pytest.raises(Held, match="r-8"):
        Lease.join(LEASE, "r-9").acquire("training of shop")


def test_a_run_without_a_lease_needs_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    kube.api_client.cache_clear()
    assert list(give_back(replace(RUN, parameters={}))) == []


def test_what_cannot_be_given_back_is_told_in_a_line_each(server: KubeServer) -> None:
    with server.gone():
        lease, job = give_back(RUN)
    assert lease.startswith("its lease could not be given back and ends by itself: ")
    assert job.startswith("whether it left a TrainJob could not be found out; its deadline ends it: ")
