"""Fine-tuning on nodes trains what one process trains, tells what made it fail, and leaves nothing behind."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtrec.config import Scenario, parse_scenario
from mtrec.errors import ConfigError, DataError, InputError, RunError
from mtrec.progress import listening
from mtrec.stages import fine_tune, preprocess
from mtrec.stages.execution import ERROR_MARK, run_component
from mtrec.stages.launching import _Ears, launch
from mtrec.training.nodes import End, Lost, Place, run_label
from tests import kube_server
from tests.kube_server import KubeServer
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables
from tests.unit.training.test_distributed import check_equal, without_dropout

RUNTIME = Path(__file__).parents[3] / "k8s/base/runs/trainingruntime.yaml"
RUN = "shop-20261123"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A dataset, and in `one` what one process trains."""
    folder = tmp_path_factory.mktemp("launching")
    scenario = without_dropout(shop_scenario(tiny_bert), folder)
    scenario = parse_scenario(scenario.as_dict() | {"training": {**scenario.as_dict()["training"], "epochs": 1}})
    (folder / "scenario.json").write_text(json.dumps(scenario.as_dict()))
    shop_tables(DIALS)[0].write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    train(folder, "one", None)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def scenario_of(folder: Path) -> Scenario:
    return parse_scenario(json.loads((folder / "scenario.json").read_text()))


def train(folder: Path, name: str, place: Place | None, **inputs: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"dataset": folder / "dataset", "code_revision": "a-revision", **inputs}
    return fine_tune.run(
        fine_tune.Inputs(trainer=place and place.as_text(), **given),
        fine_tune.Outputs(model=folder / name / "model", losses=folder / name / "losses.jsonl"),
        scenario_of(folder),
    )


def local(work: Path, **settings: Any) -> Place:
    return Place(runtime="local", work=work, deadline_seconds=120, **settings)


# The same training


def test_two_processes_train_what_one_trains(folder: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    with listening(told.append):
        summary = train(
            folder,
            "two",
            local(tmp_path / "work", processes_per_node=2),
            checkpoints=tmp_path / "checkpoints",
        )
    check_equal(folder, "one", "two")
    assert summary["epochs"] == 1
    assert json.loads((folder / "two/model/training.json").read_text())["steps"] == summary["steps"]
    assert (tmp_path / "checkpoints/state.json").is_file()
    assert {progress.stage for progress in told} == {"fine_tune"}
    fractions = [progress.fraction for progress in told if progress.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list((tmp_path / "work").iterdir()) == [], "what went to the nodes is removed"


class Kubelet:
    """Runs the nodes of a TrainJob as it was sent, each with the variables that Trainer gives its pods."""

    def __init__(self, server: KubeServer) -> None:
        self.server, self.job, self.threads = server, {}, []  # type: ignore[var-annotated]
        server.before("GET", "/log", lambda: None)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while not (found := [o for (kind, *_), o in list(self.server.objects.items()) if kind == "trainjobs"]):
            threading.Event().wait(0.1)
        self.job = found[0]
        trainer, name = self.job["spec"]["trainer"], self.job["metadata"]["name"]
        agents = [self._start(node, trainer, name) for node in range(trainer["numNodes"])]
        how = "Failed" if any([agent.wait() for agent in agents]) else "Complete"
        for thread in self.threads:
            thread.join()
        told = {"type": how, "status": "True", "lastTransitionTime": "2026-11-23T00:00:00Z"}
        self.server.change("trainjobs", name, "mtrec", status={"conditions": [told]})

    def _start(self, node: int, trainer: dict[str, Any], name: str) -> "subprocess.Popen[str]":
        labels = {
            "jobset.sigs.k8s.io/jobset-name": name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(node),
        }
        pod = f"{name}-node-0-{node}"
        spec = {"containers": [{"name": "node", "image": "x"}]}
        self.server.add("pods", pod, "mtrec", metadata={"labels": labels}, spec=spec, status={"phase": "Running"})
        told = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": "auto",
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": "29641",
            **{variable["name"]: variable["value"] for variable in trainer.get("env", [])},
        }
        agent = subprocess.Popen(
            [*trainer["command"], *trainer["args"]],
            env=os.environ | told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.threads.append(threading.Thread(target=self._read, args=(pod, agent)))
        self.threads[-1].start()
        return agent

    def _read(self, pod: str, agent: "subprocess.Popen[str]") -> None:
        assert agent.stdout is not None
        for line in agent.stdout:
            self.server.logs["mtrec", pod] = self.server.logs.get(("mtrec", pod), "") + line


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    with kube_server.cluster(tmp_path, monkeypatch, namespace="mtrec") as server:
        for resource in ("trainjobs", "trainingruntimes", "clustertrainingruntimes"):
            server.add("customresourcedefinitions", f"{resource}.trainer.kubeflow.org")
        runtime = yaml.safe_load(RUNTIME.read_text())
        server.add("trainingruntimes", "mtrec-torch", "mtrec", metadata=runtime["metadata"], spec=runtime["spec"])
        yield server


def test_two_nodes_of_a_trainjob_train_what_one_process_trains(
    folder: Path, tmp_path: Path, server: KubeServer
) -> None:
    kubelet = Kubelet(server)
    train(folder, "nodes", Place(num_nodes=2, work=tmp_path / "work"))
    check_equal(folder, "one", "nodes")
    assert kubelet.job["spec"]["trainer"]["numNodes"] == 2
    assert [name for kind, _, name in server.objects if kind == "trainjobs"] == []
    assert list((tmp_path / "work").iterdir()) == []
