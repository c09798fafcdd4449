"""A TrainJob from its creation to its end, by the kubeflow SDK against a Kubernetes API over real HTTP."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob

from mtrec.errors import ConfigError, MtrecError, RunError
from mtrec.progress import listening
from mtrec.training.nodes import End, Job, Lost, Place
from mtrec.training.trainjob import Kubeflow, delete_trainjobs
from tests import kube_server, trainer
from tests.kube_server import KubeServer
from tests.trainer import GROUP, jobs

PLACE = Place(
    num_nodes=2, gpus_per_node=4, memory="64Gi", image="shop/mtrec@sha256:0", work=Path("/mtrec/training")
)
JOB = Job(name="mtrec-shop-1", label="shop-1", place=PLACE, arguments=("--marked",), env={"MLFLOW_RUN_ID": "abc"})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster with Trainer and the runtime of k8s/."""
    with kube_server.cluster(tmp_path, monkeypatch, namespace="mtrec") as server:
        trainer.install(server)
        yield server


class Cluster:
    """Trainer, JobSet and the kubelet, as far as tests play them: one step before each look at the TrainJob."""

    def __init__(self, server: KubeServer, *steps: Callable[["Cluster"], Any]) -> None:
        self.server, self.steps = server, list(steps)
        server.before("POST", "/trainjobs", self._look)

    def _look(self) -> None:
        self.server.before("GET", f"/trainjobs/{JOB.name}", self._step)

    def _step(self) -> None:
        if self.steps:
            self.steps.pop(0)(self)
            self._look()

    def pod(self, node: int = 0, phase: str = "Running", **status: Any) -> None:
        trainer.set_pod(self.server, JOB.name, node, phase, **status)

    def log(self, *lines: str, node: int = 0) -> None:
        self.server.logs["mtrec", trainer.pod_of(JOB.name, node)] = "".join(f"{line}\n" for line in lines)

    def ends(self, how: str, **why: str) -> None:
        trainer.end_job(self.server, JOB.name, how, **why)


def ends(how: str = "Complete", **why: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.ends(how, **why)


def says(*lines: str, node: int = 0) -> Callable[[Cluster], None]:
    def say(cluster: Cluster) -> None:
        cluster.pod(node)
        cluster.log(*lines, node=node)

    return say


def waits(**status: Any) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.pod(phase="Pending", **status)


def nothing(cluster: Cluster) -> None:
    """Time passes."""


def run(adopt: bool = False, job: Job = JOB, **patience: Any) -> tuple[End, list[tuple[int, str]]]:
    """Like `follow`, in less time."""
    nodes = Kubeflow(job, **{"poll_seconds": 0.01, "silence_seconds": 1, "patience_seconds": 5, **patience})
    try:
        nodes.start(adopt=adopt)
        lines = list(nodes.lines())
        return nodes.end(), lines
    finally:
        nodes.delete()


def asked(server: KubeServer, method: str, resource: str) -> list[Any]:
    return [request for request in server.seen if request.method == method and request.resource == resource]


# Made, followed, removed


def test_what_is_created_is_a_trainjob_of_the_runtime_in_k8s(server: KubeServer) -> None:
    Cluster(server, says("a"), ends())
    run()
    (request,) = asked(server, "POST", "trainjobs")
    body = request.body
    read = TrainerV1alpha1TrainJob.from_dict(body)
    assert read is not None
    assert read.to_dict() == body, "nothing is lost in Trainer's own types"
    assert body["metadata"]["name"] == JOB.name
    assert body["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "mtrec",
        "mtrec/pipeline-run": "shop-1",
        "mtrec/digest": JOB.digest,
    }
    resources = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "4"}
    assert body["spec"] == {
        "runtimeRef": {"kind": "TrainingRuntime", "name": "mtrec-torch"},
        "trainer": {
            "image": "shop/mtrec@sha256:0",
            "command": ["torchrun"],
            "args": ["--nproc-per-node", "4", "-m", "mtrec.stages", "fine_tune", "--marked"],
            "env": [{"name": "MLFLOW_RUN_ID", "value": "abc"}],
            "numNodes": 2,
            "resourcesPerNode": {"limits": resources, "requests": resources},
        },
        "activeDeadlineSeconds": 86400,
    }


def test_without_wishes_the_image_and_resources_are_those_of_the_runtime(server: KubeServer) -> None:
    Cluster(server, says("a"), ends())
    run(job=Job(name=JOB.name, label="x", place=Place(num_nodes=2, work=Path("/mtrec")), arguments=()))
    (request,) = asked(server, "POST", "trainjobs")
    assert set(request.body["spec"]["trainer"]) == {"command", "args", "numNodes"}


def test_the_job_is_followed_to_its_end_and_deleted(server: KubeServer) -> None:
    Cluster(server, nothing, waits(), says("a"), nothing, says("a", "b", "c"), ends())
    end, lines = run()
    assert end == End(complete=True)
    assert lines == [(0, "a"), (0, "b"), (0, "c")]
    assert jobs(server) == []


def test_lines_after_the_last_look_are_not_lost(server: KubeServer) -> None:
    def last(cluster: Cluster) -> None:
        cluster.ends("Complete")
        cluster.log("a", "b", "the end")

    Cluster(server, says("a"), last)
    assert run()[1] == [(0, "a"), (0, "b"), (0, "the end")]


def test_what_the_pods_wait_for_is_told_once_each_time_it_changes(server: KubeServer) -> None:
    unschedulable = [{"type": "PodScheduled", "status": "False", "message": "0/4 nodes have nvidia.com/gpu"}]
    pull = [{"name": "node", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]
    told = []
    Cluster(
        server, *[nothing] * 4, *[waits(conditions=unschedulable)] * 8, *[waits(containerStatuses=pull)] * 8,
        says("a"), ends(),
    )  # fmt: skip
    with listening(lambda progress: told.append(progress.message)):
        run()
    assert told == [
        "waiting for its nodes",
        "waiting for a node: 0/4 nodes have nvidia.com/gpu",
        "waiting for a node: ImagePullBackOff: no such image",
    ]


def test_a_log_that_is_cut_off_is_read_on_where_it_was(server: KubeServer) -> None:
    def cut(cluster: Cluster) -> None:
        says("one", "two", "three", "four")(cluster)
        cluster.server.cut.add(("mtrec", trainer.pod_of(JOB.name, 0)))

    Cluster(server, cut, nothing, nothing, ends())
    _, lines = run()
    assert not server.cut
    assert lines == [(0, "one"), (0, "two"), (0, "three"), (0, "four")]


def test_a_log_without_news_is_given_up_in_time(server: KubeServer) -> None:
    Cluster(server, says("a"), nothing, nothing, ends())
    server.before("GET", "/log", lambda: time.sleep(8))
    began = time.monotonic()
    assert run()[1] == [(0, "a")]
    assert time.monotonic() - began < 6


def test_a_rotated_log_counts_as_new(server: KubeServer) -> None:
    Cluster(server, says("a", "b", "c"), nothing, nothing, says("c", "d"), ends())
    assert [line for _, line in run()[1]][-2:] == ["c", "d"]


def test_an_api_server_that_is_away_for_a_while_ends_nothing(server: KubeServer) -> None:
    def away(cluster: Cluster) -> None:
        cluster.server.away = True
        threading.Timer(1.0, setattr, (cluster.server, "away", False)).start()

    Cluster(server, says("a"), away, says("a", "b"), ends())
    assert run()[1] == [(0, "a"), (0, "b")]
    assert jobs(server) == []


def test_an_api_server_that_stays_away_ends_it(server: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    Cluster(server, says("a"), lambda cluster: setattr(cluster.server, "away", True))
    with pytest.raises(Lost, match="cannot be reached"):
        run(patience_seconds=0.5)
    assert f"kubectl -n mtrec delete trainjob {JOB.name}" in capsys.readouterr().err


def test_a_job_that_somebody_deletes_is_no_success(server: KubeServer) -> None:
    Cluster(server, says("a"), nothing, lambda cluster: cluster.server.remove("trainjobs", JOB.name, "mtrec"))
    with pytest.raises(RunError, match=f"TrainJob mtrec/{JOB.name} was deleted while it ran"):
        run()


# How it fails


def test_when_it_fails_the_other_nodes_are_heard_too(server: KubeServer) -> None:
    Cluster(
        server, says("a"), says("I was it", node=1), ends("Failed", reason="JobSetFailed", message="a job failed")
    )
    end, lines = run()
    assert lines == [(0, "a"), (1, "I was it")]
    assert end == End(complete=False, reason="JobSetFailed: a job failed")
    assert jobs(server) == []


def ended(code: int, reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "node", "state": {"terminated": {"exitCode": code, "reason": reason}}}]}


@pytest.mark.parametrize(
    ("status", "reason", "lost"),
    [
        (ended(137, "OOMKilled"), "node 1 ran out of memory (OOMKilled); set trainer.memory", True),
        ({"reason": "Evicted", "message": "The node was low on disk."}, "node 1: Evicted: The node was low", True),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            "node 1: PreemptionByScheduler",
            True,
        ),
        (ended(3, "Error"), "JobSetFailed: a job failed; node 1 ended with exit code 3", False),
    ],
)
def test_why_a_node_ended(status: dict[str, Any], reason: str, lost: bool, server: KubeServer) -> None:
    Cluster(
        server,
        says("a"),
        lambda cluster: cluster.pod(1, "Failed", **status),
        ends("Failed", reason="JobSetFailed", message="a job failed"),
    )
    end, _ = run()
    assert (end.complete, end.lost) == (False, lost)
    assert end.reason.startswith(reason)


def test_a_job_that_ran_out_of_time_says_what_it_waited_for(server: KubeServer) -> None:
    pull = [{"name": "node", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]
    Cluster(server, *[waits(containerStatuses=pull)] * 6, ends("Failed", reason="DeadlineExceeded"))
    end, _ = run()
    assert end.lost
    assert end.reason.startswith("not done after 86400 s")
    assert end.reason.endswith("waiting for a node: ImagePullBackOff: no such image")


def test_events_tell_where_nothing_else_does(server: KubeServer) -> None:
    stamp = "2026-11-23T00:00:00Z"
    for number, (reason, message) in enumerate([("Scheduled", "to a"), ("FailedMount", "no claim mtrec-work")]):
        server.add(
            "events",
            f"e{number}",
            "mtrec",
            involvedObject={"kind": "Pod", "name": trainer.pod_of(JOB.name, 0)},
            reason=reason,
            message=message,
            firstTimestamp=stamp,
        )
    Cluster(server, waits(), ends("Failed", reason="JobSetFailed", message="a job failed"))
    assert run()[0].reason == "JobSetFailed: a job failed; FailedMount: no claim mtrec-work"


# Earlier attempts


def leave(server: KubeServer, digest: str = JOB.digest, **fields: Any) -> None:
    """A TrainJob of an earlier attempt."""
    metadata = {"labels": {"mtrec/digest": digest, "mtrec/pipeline-run": "shop-1"}, **fields.pop("metadata", {})}
    spec = {"runtimeRef": {"name": "mtrec-torch"}}
    server.add("trainjobs", JOB.name, "mtrec", metadata=metadata, spec=spec, **fields)


def test_another_attempt_goes_on_with_the_job_of_the_first(server: KubeServer) -> None:
    leave(server)
    cluster = Cluster(server, says("a", "b"), ends())
    cluster._look()
    end, lines = run(adopt=True)
    assert end.complete
    assert lines == [(0, "a"), (0, "b")]
    assert asked(server, "POST", "trainjobs") == []
    assert jobs(server) == []


FAILED = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-11-23T00:00:00Z"}]}


@pytest.mark.parametrize(
    ("adopt", "left"),
    [
        (True, {"digest": "of-other-settings"}),
        (True, {"status": FAILED}),
        (True, {"metadata": {"deletionTimestamp": "2026-11-23T00:00:00Z"}}),
        (False, {}),
    ],
)
def test_what_is_of_no_use_is_deleted_first(adopt: bool, left: dict[str, Any], server: KubeServer) -> None:
    leave(server, **left)
    Cluster(server, says("new"), ends())
    assert run(adopt=adopt)[1] == [(0, "new")]
    assert [request.method for request in server.seen if request.method in ("POST", "DELETE")] == [
        "DELETE", "POST", "DELETE",
    ]  # fmt: skip


def test_the_new_one_waits_for_the_pods_of_the_old_one(server: KubeServer) -> None:
    leave(server, status=FAILED)
    Cluster(server, says("new"), ends()).pod(1)
    threading.Timer(0.5, server.remove, ("pods", trainer.pod_of(JOB.name, 1), "mtrec")).start()
    began = time.monotonic()
    assert run()[0].complete
    assert time.monotonic() - began > 0.4

    leave(server, status=FAILED)
    Cluster(server).pod(1)
    with pytest.raises(Lost, match="an earlier attempt has left does not end"):
        run(patience_seconds=0.3)


def test_an_answer_that_is_lost_makes_no_second_job(server: KubeServer) -> None:
    Cluster(server, says("a"), ends())
    server.unanswered.add("POST")
    assert run()[0].complete
    assert len(asked(server, "POST", "trainjobs")) == 2
    assert jobs(server) == []


def test_what_a_later_attempt_has_taken_over_is_left_to_it(server: KubeServer) -> None:
    server.add("trainjobs", "of-the-next", "mtrec")
    nodes = Kubeflow(replace(JOB, name="of-the-next"), owned=lambda: False)
    with pytest.raises(Lost, match="another attempt has taken it over"):
        nodes.start(adopt=False)
    nodes.delete()
    assert jobs(server) == ["of-the-next"]


def test_what_a_killed_step_has_left_is_deleted_by_its_run(server: KubeServer) -> None:
    leave(server)
    server.add("trainjobs", "another", "mtrec", metadata={"labels": {"mtrec/pipeline-run": "other"}})
    assert delete_trainjobs("shop-1", "mtrec") == [JOB.name]
    assert jobs(server) == ["another"]
    assert delete_trainjobs("shop-1") == []
    server.remove("customresourcedefinitions", f"trainjobs.{GROUP}")
    assert delete_trainjobs("shop-1") == [], "without Trainer there is none"


# What is missing


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "trainingruntimes"), ("get", "trainjobs"), ("create", "trainjobs"), ("get", "pods/log")],
)
def test_a_missing_right_is_one_line(
    verb: str, resource: str, server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Cluster(server, says("a"), ends())
    server.forbidden.add((verb, resource))
    with pytest.raises(RunError) as error:
        run()
    assert not isinstance(error.value, Lost)
    assert f'cannot {verb} resource "{resource}"' in str(error.value)
    assert "mtrec cluster check" in str(error.value)
    assert "\n" not in str(error.value)
    assert (jobs(server), capsys.readouterr().err) == ([], "")


def test_a_runtime_that_is_not_there_is_one_line(server: KubeServer) -> None:
    server.remove("trainingruntimes", "mtrec-torch", "mtrec")
    with pytest.raises(
        ConfigError, match="no TrainingRuntime 'mtrec-torch' in namespace mtrec; `mtrec cluster check`"
    ):
        run()


def test_a_cluster_without_trainer_is_one_line(server: KubeServer) -> None:
    server.remove("customresourcedefinitions", f"trainingruntimes.{GROUP}")
    with pytest.raises(
        MtrecError, match="Kubeflow Trainer is not installed in this cluster; `mtrec cluster check`"
    ):
        run()


def test_the_sdk_says_nothing_of_its_own(server: KubeServer, capfd: pytest.CaptureFixture[str]) -> None:
    Cluster(server, says("a"), ends())
    code = "from tests.unit.training.test_trainjob import JOB, run; print(run()[1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[(0, 'a')]\n", "")


# Stopped


def test_sigterm_deletes_the_job(server: KubeServer) -> None:
    Cluster(server, says("a"))
    code = (
        "from tests.unit.training.test_trainjob import JOB\n"
        "from mtrec.training.nodes import follow, stoppable\n"
        "with stoppable():\n    follow(JOB, lambda node, line: print(line, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    assert jobs(server) == [JOB.name]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    assert jobs(server) == []
