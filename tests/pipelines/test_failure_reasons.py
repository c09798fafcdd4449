import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from mtrec.stages.execution import run_component
from pipelines.failure_reasons import reason
from pipelines.kfp_server import Access, RunView, TaskView


class Pods:
    """A Kubernetes API that knows pods of one run and their logs, and refuses any other question."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.status = 200

    def add(self, name: str, node: str, *, log: str = "", minute: int = 0, **status: Any) -> None:
        ended = {"finishedAt": f"2026-11-23T12:{minute:02d}:00Z", "exitCode": 1, "reason": "Error"}
        ended |= status.pop("ended", {})
        containers = [
            {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
            for name, state in (
                ("wait", {"terminated": {**ended, "exitCode": 2 * (ended["exitCode"] > 0)}}),
                ("main", {"terminated": ended}),
            )
        ]
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "namespace": "kubeflow",
                    "annotations": {"workflows.argoproj.io/node-name": node},
                },
                "spec": {"containers": [{"name": "main"}]},
                "status": {"phase": "Failed", "containerStatuses": containers, **status},
            }
        )
        self.logs[name] = log

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, str]:
        if path == "/api/v1/namespaces/kubeflow/pods" and query.get("labelSelector") == ["pipeline/runid=run-1"]:
            return self.status, json.dumps({"apiVersion": "v1", "kind": "PodList", "items": self.pods})
        for name, log in self.logs.items():
            wanted = {"container": ["main"], "tailLines": ["200"]}
            if path == f"/api/v1/namespaces/kubeflow/pods/{name}/log" and query == wanted:
                return (200, log) if log else (400, "the container is waiting to start")
        return 404, "{}"


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    known = Pods()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            status, text = known.answer(parts.path, parse_qs(parts.query))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    yield known
    server.shutdown()
    server.server_close()


def failed(*tasks: TaskView, error: str = "") -> RunView:
    return RunView(
        id="run-1",
        name="",
        state="FAILED",
        created=None,
        ended=None,
        error=error,
        tasks=tasks,
        schedule="",
        parameters={},
    )


@pytest.fixture
def own_words(capfd: pytest.CaptureFixture[str]) -> str:
    """What a component really writes when its data is not there."""
    with pytest.raises(SystemExit) as ended:
        run_component("ingest", inputs={"data": "/not/there"}, outputs={"tables": "t"}, scenario="{}")
    assert ended.value.code == 2
    return capfd.readouterr().err


def test_the_servers_own_error_comes_first(pods: Pods) -> None:
    task = TaskView(name="gate-model", state="FAILED", error="no space left")
    found = reason(failed(task, error="less"), Access())
    assert (found.text, found.task, found.source) == ("no space left", "gate-model", "the server")


def test_the_steps_own_words_are_read_from_its_pod(pods: Pods, own_words: str) -> None:
    pods.add("w-1", "w.root.ingest-data.executor(0)", log="Traceback", minute=1, ended={"exitCode": 137})
    pods.add("w-2", "w.root.ingest-data.executor(1)", log=own_words, minute=2, ended={"exitCode": 2})
    found = reason(failed(error="child 'w-2' failed"), Access())
    assert found.task == "ingest-data"
    assert found.exit_code == 2
    assert found.source == "the log of pod w-2"
    assert found.text
    assert f"mtrec: {found.text}" in own_words


def test_the_last_attempt_of_the_first_task_counts(pods: Pods, own_words: str) -> None:
    pods.add("w-1", "w.root.fine-tune-model.executor(0)", log=own_words, minute=1)
    pods.add("w-2", "w.root.fine-tune-model.executor(1)", minute=2, ended={"exitCode": 137, "reason": "OOMKilled"})
    pods.add("w-3", "w.root.record-outcome.executor(0)", log=own_words, minute=3)
    found = reason(failed(), Access())
    assert (found.task, found.source) == ("fine-tune-model", "the state of pod w-2")


DONE: dict[str, Any] = {"phase": "Succeeded", "ended": {"exitCode": 0}}


def test_a_task_that_did_well_at_last_is_no_reason(pods: Pods, own_words: str) -> None:
    pods.add("w-1", "w.root.ingest-data.executor(0)", log="Traceback", minute=1, ended={"exitCode": 137})
    pods.add("w-2", "w.root.ingest-data.executor(1)", minute=2, **DONE)
    pods.add("w-3", "w.root.validate-data.executor(0)", log=own_words, minute=3, ended={"exitCode": 2})
    found = reason(failed(), Access())
    assert (found.task, found.exit_code, found.source) == ("validate-data", 2, "the log of pod w-3")


def test_tries_are_told_apart_by_their_numbers_where_all_above_them_have_one_too(pods: Pods) -> None:
    pods.add("w-1", "w(0).root(0).ingest-data(0).executor(10)", minute=2, **DONE)
    pods.add("w-2", "w(0).root(0).ingest-data(0).executor(9)", minute=1)
    pods.add("w-3", "w(0).root(0).gate-model(0).executor(0)", minute=3, ended={"exitCode": 137})
    found = reason(failed(), Access())
    assert (found.task, found.text) == ("gate-model", "its container ended with exit code 137")


@pytest.mark.parametrize("bad", [0, 1])
def test_rounds_of_a_loop_do_not_hide_each_other(pods: Pods, bad: int) -> None:
    for number in range(2):
        node = f"w.root.for-loop-2.for-loop-2-for-loop-1-iteration-item-1({number}:{number}).preprocess-shard"
        ended = {"ended": {"exitCode": 139}} if number == bad else DONE
        pods.add(f"w-{number}", f"{node}.executor(0)", minute=number, **ended)
    found = reason(failed(), Access())
    assert (found.task, found.source) == ("preprocess-shard", f"the state of pod w-{bad}")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (
            {"ended": {"exitCode": 137, "reason": "OOMKilled"}},
            "more memory than its limit and was killed (OOMKilled)",
        ),
        ({"reason": "Evicted", "message": "low on disk"}, "evicted the pod"),
        ({"reason": "NodeLost", "message": "node\nis gone"}, "NodeLost: node is gone"),
        ({"ended": {"exitCode": 139}}, "its container ended with exit code 139"),
    ],
)
def test_what_kubernetes_says_of_a_step_without_words(pods: Pods, status: dict[str, Any], text: str) -> None:
    pods.add("w-1", "w.root.fine-tune-model.executor(0)", log="epoch 2\n\n", **status)
    found = reason(failed(), Access())
    assert text in found.text
    assert found.text.endswith("; its last words: epoch 2")
    assert (found.task, found.source) == ("fine-tune-model", "the state of pod w-1")


def test_a_pod_without_a_log(pods: Pods) -> None:
    pods.add("w-1", "w.root.fine-tune-model-driver")
    found = reason(failed(), Access())
    assert (found.text, found.task) == ("its container ended with exit code 1", "fine-tune-model")


def test_without_rights_or_pods_it_says_so(pods: Pods) -> None:
    assert reason(failed(), Access()).source == "namespace kubeflow has no failed pod of it"
    assert reason(failed(error="child failed"), Access()).text == "child failed"
    pods.status = 403
    found = reason(failed(), Access())
    assert (found.text, found.source) == ("", "its pods cannot be read: ApiException Forbidden")


def test_without_a_way_to_the_cluster_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "not/there")
    found = reason(failed(), Access())
    assert found.text == ""
    assert found.source.startswith("its pods cannot be read: ConfigException")
