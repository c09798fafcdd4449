"""Why a run on a cluster failed, from the best source that there is.

The server's own answer rarely has it: up to 2.17 it leaves the errors of tasks empty. So the pods are asked, where
a kubeconfig or the token of a pod allows it: the step's own words from its log, else what Kubernetes says of the
container. Pods are gone after a while; then there is only the run's page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mtrec.stages.execution import read_failure
from pipelines.kfp_server import Access, RunView

_NODE = "workflows.argoproj.io/node-name"
_TASK = re.compile(r"\.([\w-]+?)(-driver|\.executor)?$")
_TRY = re.compile(r"\((\d+)\)")
"""In the name of a node; a round of a loop is told otherwise: (0:VALUE)."""
_TIMEOUT = (5, 15)  # a tuple of ints: the client takes no notice of a float
_LINES = 200
_WORDS = {
    "OOMKilled": "its container took more memory than its limit and was killed (OOMKilled)",
    "Evicted": "its node ran out of something and evicted the pod",
    "DeadlineExceeded": "it took longer than its time-out",
}


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a run failed."""

    text: str
    """One line; empty where nobody tells."""
    task: str = ""
    """As named in the pipeline; empty where it is not known."""
    source: str = ""
    """Where the text is from; without a text, why it could not be had."""
    exit_code: int = 1


def reason(run: RunView, access: Access) -> Reason:
    """The reason of a failed run, as far as it can be found out; never raises."""
    told = next((task for task in run.tasks if task.state in ("FAILED", "ERROR") and task.error), None)
    if told is not None:
        return Reason(text=told.error, task=told.name, source="the server")
    try:
        found = _from_pods(run.id, access)
    except Exception as error:  # whatever a kubeconfig, its plugins and the cluster may come up with
        why = f"{type(error).__name__} {getattr(error, 'reason', None) or error}"
        found = Reason(text="", source=f"its pods cannot be read: {' '.join(why.split())[:200]}")
    if run.error and not found.text:
        return Reason(text=run.error, source="the server")
    return found


def _from_pods(run_id: str, access: Access) -> Reason:
    kube = _pods(access)
    namespace = access.namespace or access.installed
    pods = kube.list_namespaced_pod(
        namespace, label_selector=f"pipeline/runid={run_id}", _request_timeout=_TIMEOUT
    ).items
    last = {_node(pod): pod for pod in sorted(pods, key=_try)}  # an earlier try that failed is made good by it
    failed = list(filter(_failed, last.values()))
    if not failed:
        return Reason(text="", source=f"namespace {namespace} has no failed pod of it")
    pod = min(failed, key=_ended)  # the first task: an exit task may fail after it
    task, name, log = _task(pod), pod.metadata.name, _log(kube, pod)
    for failure in filter(None, map(read_failure, reversed(log))):
        return Reason(text=failure.message, task=task, source=f"the log of pod {name}", exit_code=failure.exit_code)
    said = next((line for line in reversed(log) if line.strip()), "")
    text = _of_container(pod) + (f"; its last words: {' '.join(said.split())[:200]}" if said else "")
    return Reason(text=text, task=task, source=f"the state of pod {name}")


def _pods(access: Access) -> Any:
    import kubernetes
    import urllib3

    configuration = kubernetes.client.Configuration()
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
    except kubernetes.config.ConfigException:
        kubernetes.config.load_kube_config(client_configuration=configuration, context=access.context or None)
    configuration.retries = urllib3.Retry(1)
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


def _log(kube: Any, pod: Any) -> list[str]:
    try:
        answer = kube.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container="main",
            tail_lines=_LINES,
            _preload_content=False,
            _request_timeout=_TIMEOUT,
        )
    except Exception:  # the container never began, or its node is gone: its state is left
        return []
    return list(answer.data.decode("utf-8", "replace").splitlines())


def _containers(pod: Any) -> Iterator[Any]:
    """How the containers ended, the step's own first."""
    statuses = sorted(pod.status.container_statuses or [], key=lambda status: status.name != "main")
    for status in statuses:
        if status.state is not None and status.state.terminated is not None:
            yield status.state.terminated


def _failed(pod: Any) -> bool:
    return pod.status.phase == "Failed" or any(ended.exit_code for ended in _containers(pod))


def _ended(pod: Any) -> datetime:
    moments = [ended.finished_at for ended in _containers(pod) if ended.finished_at]
    return max(moments, default=pod.metadata.creation_timestamp or datetime.min.replace(tzinfo=UTC))


def _of_container(pod: Any) -> str:
    if pod.status.reason:
        return _WORDS.get(pod.status.reason, f"{pod.status.reason}: {' '.join((pod.status.message or '').split())}")
    ended = next((one for one in _containers(pod) if one.exit_code), None)
    if ended is None:
        return " ".join((pod.status.message or "its pod failed and does not tell why").split())
    return _WORDS.get(ended.reason or "", f"its container ended with exit code {ended.exit_code}")


def _node(pod: Any) -> str:
    """The name of a pod's node without the numbers of tries, the same for all tries of a task in a round."""
    return _TRY.sub("", (pod.metadata.annotations or {}).get(_NODE, "")) or str(pod.metadata.name)


def _try(pod: Any) -> tuple[int, ...]:
    return tuple(map(int, _TRY.findall((pod.metadata.annotations or {}).get(_NODE, ""))))


def _task(pod: Any) -> str:
    """The task of a pod: its node is named WORKFLOW.root.TASK.executor(TRY)."""
    found = _TASK.search(_node(pod))
    return found[1] if found else ""
