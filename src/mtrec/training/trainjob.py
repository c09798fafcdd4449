"""The nodes of a job as a TrainJob of Kubeflow Trainer, through the kubeflow SDK.

The TrainingRuntime of the cluster (k8s/base/runs/trainingruntime.yaml) brings account, secrets, volumes and
security context; the TrainJob says only what one training has of its own: command, image, nodes, resources, time.

The SDK creates the TrainJob, reads its logs and events, and deletes it. Its state is read here: the SDK's takes
four requests and leaves out why the job failed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mtrec import kube
from mtrec.errors import ConfigError, RunError
from mtrec.progress import report
from mtrec.training.nodes import End, Job, Lost

log = logging.getLogger(__name__)
_GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
_RUN = "mtrec/pipeline-run"
_DIGEST = "mtrec/digest"
_CHECK = "`mtrec cluster check` says what is missing"
_CREATED_BY = {"app.kubernetes.io/part-of": "mtrec"}
_LONGEST_PAUSE = 15.0


class Kubeflow:
    """See `mtrec.training.nodes.Nodes`.

    Args:
        job: what to run.
        owned: whether no later attempt has taken the TrainJob over, which is then left to it.
        poll_seconds: pause between two looks at a job without news.
        silence_seconds: a log without a new line for so long is opened anew, after a look at the job.
        patience_seconds: how long the API server may be away before the job is given up.
    """

    def __init__(
        self,
        job: Job,
        *,
        owned: Callable[[], bool] = lambda: True,
        poll_seconds: float = 2.0,
        silence_seconds: int = 60,
        patience_seconds: float = 600.0,
    ) -> None:
        self.job, self._owned = job, owned
        self.namespace = job.place.namespace or kube.default_namespace()
        self.shown = f"TrainJob {self.namespace}/{job.name}"
        self._poll, self._silence, self._patience = poll_seconds, silence_seconds, patience_seconds
        self._sdk: Any = None
        self._ours = False
        self._waiting = ""

    # -------------------------------------------------------------------------------------------- the four steps

    def start(self, *, adopt: bool) -> None:
        """Create the TrainJob, or go on with that of an earlier attempt unless it has failed.

        Raises:
            ConfigError: there is no such runtime.
            RunError: Trainer is not installed, or a right is missing.
            Lost: the API server cannot be reached, or a later attempt has taken the TrainJob over.
        """
        resources = self._resources(self._runtime())
        self._sdk = _client(self.namespace, self._silence)
        found = self._answered(self._read)
        if not self._owned():
            raise Lost(f"{self.shown}: another attempt has taken it over")
        self._ours = found is not None
        if found is not None and not (adopt and self._usable(found)):
            self._answered(self._remove)
            self._gone()
            found = None
        if found is None:
            self._ours = True
            self._answered(lambda: self._create(resources))

    def lines(self) -> Iterator[tuple[int, str]]:
        """The first node's lines until the job has ended, then, if it failed, those of the other nodes.

        A log that is cut off, or has nothing to say yet, is read again from its beginning; what was seen is left
        out. Where its beginning is no longer the same, the kubelet has rotated it, and all of it counts as new.

        Raises:
            RunError: somebody deleted the job, or its logs may not be read.
            Lost: the API server was away for too long.
        """
        first, seen, pause = "", 0, self._poll
        while True:
            condition = _condition(self._answered(self._present))
            pause = min(2 * pause, _LONGEST_PAUSE) if seen else self._poll
            for number, line in enumerate(self._log(0)):
                if number == 0 and line != first:
                    first, seen = line, 0
                if number >= seen:
                    seen, pause = seen + 1, self._poll
                    yield 0, line
            if condition is not None:
                break
            if not seen:
                self._tell_waiting()
            time.sleep(pause)
        if condition["type"] == "Failed":
            for node in range(1, self.job.place.num_nodes):
                for line in self._log(node):
                    yield node, line

    def end(self) -> End:
        """How the TrainJob ended; of a failed one its pods and events tell why."""
        condition = _condition(self._answered(self._present))
        assert condition is not None, "asked after the last line"
        if condition["type"] == "Complete":
            return End(complete=True)
        if condition.get("reason") == "DeadlineExceeded":
            waited = f", at last it was {self._waiting}" if self._waiting else ""
            return End(
                complete=False, reason=f"not done after {self.job.place.deadline_seconds} s{waited}", lost=True
            )
        pods = self._answered(self._pods)
        if lost := list(filter(None, map(_lost, pods))):
            return End(complete=False, reason="; ".join(lost), lost=True)
        said = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
        ends = filter(None, map(_exit_code, pods))
        return End(complete=False, reason="; ".join([said, *ends, *self._warnings()[-3:]]))

    def delete(self) -> None:
        """Delete the TrainJob, and its pods with it."""
        if not (self._ours and self._owned()):
            return  # refused, or somebody else's
        try:
            self._remove()
        except RunError as error:
            print(
                f"mtrec: {error}; remove it with: kubectl -n {self.namespace} delete trainjob {self.job.name}",
                file=sys.stderr,
            )

    # -------------------------------------------------------------------------------------------- creating

    def _runtime(self) -> Any:
        name = self.job.place.runtime
        try:
            return self._answered(lambda: self._get(f"trainingruntimes/{name}"))
        except _NotFound as error:
            if f'"{name}" not found' not in str(error):
                raise RunError(f"Kubeflow Trainer is not installed in this cluster; {_CHECK}") from error
            raise ConfigError(
                f"trainer.runtime: there is no TrainingRuntime '{name}' in namespace {self.namespace}; {_CHECK}"
            ) from error

    def _resources(self, runtime: Any) -> dict[str, str] | None:
        """What a node asks for: a TrainJob that names some resources loses the others of its runtime."""
        place = self.job.place
        wanted = {"cpu": place.cpu, "memory": place.memory}
        wanted[place.gpu_type] = str(place.gpus_per_node) if place.gpus_per_node else ""
        if not any(wanted.values()):
            return None
        limits = _trainer_container(runtime).get("resources", {}).get("limits", {})
        return {**limits, **{name: amount for name, amount in wanted.items() if amount}}

    def _create(self, resources: Mapping[str, str] | None) -> None:
        from kubeflow.trainer import CustomTrainerContainer
        from kubeflow.trainer.options import ActiveDeadlineSeconds, Labels, Name, TrainerArgs, TrainerCommand

        place, (launcher, *arguments) = self.job.place, self.job.command
        options = [
            Name(self.job.name),
            Labels({**_CREATED_BY, _RUN: self.job.label, _DIGEST: self.job.digest}),
            TrainerCommand([launcher]),
            TrainerArgs(arguments),
            ActiveDeadlineSeconds(place.deadline_seconds),
        ]
        trainer = CustomTrainerContainer(
            image=place.image,
            num_nodes=place.num_nodes,
            resources_per_node=dict(resources) if resources else None,
            env=dict(self.job.env) or None,
        )
        try:
            with _asking(f"creating {self.shown}"):
                self._sdk.train(runtime=place.runtime, trainer=trainer, options=options)
        except _Conflict:
            return  # an earlier request of this attempt got through, its answer did not
        except _NotFound as error:  # of the namespace
            self._ours = False
            raise RunError(f"{error}; {_CHECK}") from error
        except RunError as error:
            self._ours = isinstance(error, Lost)
            raise

    def _usable(self, found: Mapping[str, Any]) -> bool:
        """Whether an earlier attempt's TrainJob is the same training, and has not failed."""
        meta = found["metadata"]
        same = (meta.get("labels") or {}).get(_DIGEST) == self.job.digest
        return same and not meta.get("deletionTimestamp") and (_condition(found) or {}).get("type") != "Failed"

    def _gone(self) -> None:
        """Wait until neither the TrainJob nor a pod of it is left, so that two never write to one folder.

        Raises:
            Lost: one stays, as the pod of a machine that is gone does.
        """
        give_up = time.monotonic() + self._patience
        while self._read() is not None or self._pods():
            if time.monotonic() > give_up:
                raise Lost(f"{self.shown}: what an earlier attempt has left does not end; delete its pods by force")
            time.sleep(self._poll)

    def _remove(self) -> None:
        try:
            with _asking(f"deleting {self.shown}"):
                self._sdk.delete_job(self.job.name)
        except _NotFound:
            pass

    # -------------------------------------------------------------------------------------------- following

    def _present(self) -> Any:
        found = self._read()
        if found is None or found["metadata"].get("deletionTimestamp"):
            raise RunError(f"{self.shown} was deleted while it ran")
        return found

    def _log(self, node: int) -> Iterator[str]:
        """A node's log from its beginning, as far as it can be read now; nothing while its pod waits."""
        try:
            with _asking(f"reading the log of {self.shown}"):
                yield from self._sdk.get_job_logs(self.job.name, follow=True, step=f"node-{node}")
        except RunError as error:
            if "answered 403" in str(error):
                raise
            log.info("%s", error)  # cut off, or no pod yet: read again

    def _tell_waiting(self) -> None:
        """Say what the pods wait for, when it changes."""
        waiting = next(filter(None, map(_waiting, self._answered(self._pods))), "waiting for its nodes")
        if waiting != self._waiting:
            self._waiting = waiting
            report("fine_tune", None, waiting)

    def _warnings(self) -> list[str]:
        try:
            with _asking(f"reading the events of {self.shown}"):
                events = self._sdk.get_job_events(self.job.name)
        except RunError:  # the reason would be nice to have
            return []
        quiet = {"Scheduled", "Pulling", "Pulled", "Created", "Started", "SuccessfulCreate", "Completed"}
        return [f"{event.reason}: {event.message}" for event in events if event.reason not in quiet]

    # -------------------------------------------------------------------------------------------- asking

    def _read(self) -> Any:
        try:
            return self._get(f"trainjobs/{self.job.name}")
        except _NotFound:
            return None

    def _pods(self) -> list[Any]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        with _asking(f"listing the pods of {self.shown}"):
            selector = ("labelSelector", f"jobset.sigs.k8s.io/jobset-name={self.job.name}")
            found, _ = kube.request(kube.api_client(), "GET", path, query=[selector])
        return list(found["items"])

    def _get(self, what: str) -> Any:
        with _asking(f"{what} in namespace {self.namespace}"):
            return kube.request(kube.api_client(), "GET", f"{_GROUP}/namespaces/{self.namespace}/{what}")[0]

    def _answered(self, ask: Callable[[], Any]) -> Any:
        """Ask until the API server answers."""
        give_up = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except Lost:
                if time.monotonic() > give_up:
                    raise
                time.sleep(self._poll)


def delete_trainjobs(label: str, namespace: str = "") -> list[str]:
    """Delete what a killed step of a pipeline run has left running.

    Args:
        label: see `mtrec.training.nodes.run_label`.
        namespace: that of the TrainJobs. Empty: the pod's, else the kubeconfig's.

    Returns:
        The names of the TrainJobs.

    Raises:
        RunError: refused, or the API server cannot be reached.
    """
    path = f"{_GROUP}/namespaces/{namespace or kube.default_namespace()}/trainjobs"
    try:
        with _asking(f"TrainJobs of {label}"):
            found, _ = kube.request(kube.api_client(), "GET", path, query=[("labelSelector", f"{_RUN}={label}")])
    except _NotFound:  # Trainer is not installed
        return []
    names = [str(item["metadata"]["name"]) for item in found["items"]]
    for name in names:
        try:
            with _asking(f"TrainJob {name}"):
                kube.request(kube.api_client(), "DELETE", f"{path}/{name}")
        except _NotFound:
            pass
    return names


class _NotFound(RunError):
    """404."""


class _Conflict(RunError):
    """409."""


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """`kube.answering`, also for the SDK, which wraps what is raised; 404 and 409 as errors of this module."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        with kube.answering(what, Lost):
            try:
                yield
            except (RuntimeError, TimeoutError) as error:
                cause: BaseException | None = error
                while cause is not None and not isinstance(cause, (ApiException, HTTPError)):
                    cause = cause.__cause__
                if cause is None:
                    raise RunError(f"{what}: {' '.join(str(error).split())}") from error
                raise cause from error
    except ApiException as error:
        raise (_NotFound if error.status == 404 else _Conflict)(f"{what}: {kube.reason(error)}") from error
    except RunError as error:
        if "answered 403" in str(error):
            raise RunError(f"{error}; {_CHECK}") from error
        raise


def _client(namespace: str, silence_seconds: int) -> Any:
    """The SDK's client, with a time-out on every request and without what it tells on stderr.

    Raises:
        ConfigError: the SDK is not installed.
    """
    try:
        from kubeflow.common.types import KubernetesBackendConfig
        from kubeflow.trainer import TrainerClient
    except ImportError as error:
        raise ConfigError(f"the kubeflow SDK is not installed ({error}): pip install 'mtrec[cluster]'") from error
    logging.getLogger("kubeflow").setLevel(logging.ERROR)
    config = KubernetesBackendConfig(namespace=namespace, client_configuration=kube.api_client().configuration)
    client = TrainerClient(backend_config=config)
    rest = client.backend.custom_api.api_client.rest_client
    plain = rest.request

    def request(method: str, url: str, **settings: Any) -> Any:
        follows = any(name == "follow" for name, _ in settings.get("query_params") or ())
        timeout = (kube.TIMEOUT[0], silence_seconds) if follows else kube.TIMEOUT
        return plain(method, url, **{**settings, "_request_timeout": timeout})

    rest.request = request
    return client


def _condition(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """The condition that says how a TrainJob ended; None while it has not."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return dict(condition)
    return None


def _trainer_container(runtime: Mapping[str, Any]) -> dict[str, Any]:
    for replicated in runtime["spec"]["template"]["spec"]["replicatedJobs"]:
        for container in replicated["template"]["spec"]["template"]["spec"]["containers"]:
            if container["name"] == "node":
                return dict(container)
    return {}


def _node(pod: Mapping[str, Any]) -> str:
    return f"node {pod['metadata'].get('labels', {}).get('batch.kubernetes.io/job-completion-index', '?')}"


def _exit_code(pod: Mapping[str, Any]) -> str:
    """The exit code of a pod that failed; others are ended when one has failed."""
    codes = [
        ((container.get("state") or {}).get("terminated") or {}).get("exitCode")
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
    ]
    return "".join(f"{_node(pod)} ended with exit code {code}" for code in codes if code)


def _lost(pod: Mapping[str, Any]) -> str:
    """Why a pod ended, where that is not by its own will."""
    node = _node(pod)
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended.get("reason") == "OOMKilled":
            return f"{node} ran out of memory (OOMKilled); set trainer.memory, or take smaller batches"
    if status.get("reason"):  # Evicted, NodeLost, Preempting, Shutdown
        return f"{node}: {status['reason']}: {status.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{node}: {condition.get('reason')}: {condition.get('message', '')}".rstrip(": ")
    return ""


def _waiting(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waits = (container.get("state") or {}).get("waiting") or {}
        if waits.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"waiting for a node: {waits['reason']}: {waits.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and condition.get("message"):
            return f"waiting for a node: {condition['message']}"
    return ""
