"""What Kubeflow Trainer, JobSet and the kubelet do with a TrainJob, for tests against `tests.kube_server`.

Pods and conditions look as far as the kubeflow SDK and mtrec look at them. `Kubelet` runs the nodes for real, as
processes of this machine with the command and the variables that their containers would have; it ignores image,
resources and volumes. There is no failure policy: one node that fails does not end the others.
"""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

from tests.kube_server import KubeServer

GROUP = "trainer.kubeflow.org"
NAMESPACE = "mtrec"
RUNTIME = Path(__file__).parents[1] / "k8s/base/runs/trainingruntime.yaml"


def install(server: KubeServer) -> None:
    """Trainer's definitions, and the runtime of k8s/."""
    for resource in ("trainjobs", "trainingruntimes", "clustertrainingruntimes"):
        server.add("customresourcedefinitions", f"{resource}.{GROUP}")
    runtime = yaml.safe_load(RUNTIME.read_text())
    server.add("trainingruntimes", "mtrec-torch", NAMESPACE, metadata=runtime["metadata"], spec=runtime["spec"])


def jobs(server: KubeServer) -> list[str]:
    """The names of the TrainJobs that are there."""
    return [name for resource, _, name in list(server.objects) if resource == "trainjobs"]


def pod_of(job: str, node: int) -> str:
    return f"{job}-node-0-{node}"


def set_pod(server: KubeServer, job: str, node: int = 0, phase: str = "Running", **status: Any) -> None:
    """A node's pod, made where it is not there."""
    name = pod_of(job, node)
    if ("pods", NAMESPACE, name) in server.objects:
        server.change("pods", name, NAMESPACE, status={"phase": phase, **status})
        return
    labels = {
        "jobset.sigs.k8s.io/jobset-name": job,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(node),
    }
    spec = {"containers": [{"name": "node", "image": "shop/mtrec"}]}
    server.add("pods", name, NAMESPACE, metadata={"labels": labels}, spec=spec, status={"phase": phase, **status})


def end_job(server: KubeServer, job: str, how: str, reason: str = "", message: str = "") -> None:
    """Complete or Failed."""
    told = {"type": how, "status": "True", "reason": reason, "message": message}
    told["lastTransitionTime"] = "2026-11-23T00:00:00Z"
    server.change("trainjobs", job, NAMESPACE, status={"conditions": [told]})


class Kubelet:
    """Runs the nodes of the next TrainJob."""

    def __init__(self, server: KubeServer) -> None:
        self.server = server
        self.job: dict[str, Any] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not (found := jobs(self.server)):
            threading.Event().wait(0.1)
        self.job = self.server.objects["trainjobs", NAMESPACE, found[0]]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        nodes = [
            threading.Thread(target=self._node, args=(node, port))
            for node in range(self.job["spec"]["trainer"]["numNodes"])
        ]
        for node in nodes:
            node.start()
        for node in nodes:
            node.join()
        phases = [found["status"]["phase"] for (kind, *_), found in self.server.objects.items() if kind == "pods"]
        how = "Failed" if "Failed" in phases else "Complete"
        end_job(self.server, self.job["metadata"]["name"], how, f"JobSet{how}")

    def _node(self, node: int, port: int) -> None:
        name, trainer = self.job["metadata"]["name"], self.job["spec"]["trainer"]
        set_pod(self.server, name, node)
        told = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": "auto",
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
            **{variable["name"]: variable["value"] for variable in trainer.get("env", [])},
        }
        command = [*trainer["command"], *trainer["args"]]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=os.environ | told, **streams) as agent:
            assert agent.stdout is not None
            for line in agent.stdout:
                log = self.server.logs.get((NAMESPACE, pod_of(name, node)), "")
                self.server.logs[NAMESPACE, pod_of(name, node)] = log + line
        set_pod(self.server, name, node, "Failed" if agent.returncode else "Succeeded")
