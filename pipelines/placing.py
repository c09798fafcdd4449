"""Where and with what the tasks of a pipeline run: an image alone, or all that a cluster's configuration says.

Resources go to the pipeline's part of the compiled file, all else to its second document, the platform's part, of
which the local runner knows nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfp import kubernetes

from components.images import IMAGE
from pipelines.cluster_config import TRAINER, Cluster, Retries, Step

NODE = "MTREC_NODE"
FAILURES = "MTREC_FAILURES"
"""Environment of a step that may be tried again: which try it is, and where a try notes that more are of no use."""
_TO_LAUNCH = 1800
"""Seconds that a TrainJob may wait for nodes, beyond the time that it may run."""
_NODE_NAME = "metadata.annotations['workflows.argoproj.io/node-name']"


@dataclass(frozen=True, kw_only=True)
class Placing:
    """What all tasks of a pipeline are given."""

    image: str = IMAGE
    """Container image, which the lineage names; with a cluster's configuration that of fine-tuning."""
    gpus: int = 0
    """GPUs that fine-tuning, or a worker of a search, asks for."""
    cache_key: str | None = None
    """Replaces the backend's cache key of cached tasks. The local runner needs it: its own key holds the path of
    the ingested tables, which is new in every run."""
    shards: int = 1
    """In how many parts data is preprocessed."""
    workers: int = 2
    """How many train trials of a search at the same time."""
    cluster: Cluster | None = None
    """What a configuration says of each task."""

    @classmethod
    def on(cls, cluster: Cluster) -> Placing:
        """As a cluster's configuration says."""
        image = cluster.step(TRAINER).image or cluster.image
        return cls(image=image, shards=cluster.shards, workers=cluster.search_workers, cluster=cluster)

    def __call__(self, task: Any, *, cached: bool = False) -> Any:
        """Give a task of a pipeline that is being built what it needs; the task."""
        task.set_caching_options(cached, self.cache_key if cached else None)
        if self.cluster is not None:
            return place(task, self.cluster)
        if self.gpus and _component(task) in (TRAINER, "search_settings"):
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(self.gpus)
        return task.set_container_image(self.image)

    @property
    def search_seconds(self) -> int:
        """After which a worker of a search begins no trial, so that its last one ends in time; 0: never."""
        return 0 if self.cluster is None else 45 * (self.cluster.step("search_settings").timeout_minutes or 0)

    @property
    def trainer(self) -> str:
        """See `Cluster.trainer`."""
        return "" if self.cluster is None else self.cluster.trainer()


PLAIN = Placing()
"""As the components say."""


def place(task: Any, cluster: Cluster) -> Any:
    """Give a task what the cluster's configuration says.

    Args:
        task: of a pipeline that is being built; its component is one of `COMPONENTS`.
        cluster: the configuration.

    Returns:
        The task.
    """
    component = _component(task)
    step = cluster.step(component)
    assert step.timeout_minutes is not None
    timeout = 60 * step.timeout_minutes
    if component == TRAINER and cluster.elsewhere:  # its pod starts a TrainJob and waits for it
        step, timeout = _launching(step, cluster.defaults), timeout + _TO_LAUNCH
    task.set_container_image(step.image or cluster.image)
    _resources(task, step)
    _storage(task, cluster)
    _security(task, cluster)
    for secret, keys in step.secrets.items():
        _required(kubernetes.use_secret_as_env(task, secret, keys), "secretAsEnv")
    for config_map, keys in step.config_maps.items():
        _required(kubernetes.use_config_map_as_env(task, config_map, keys), "configMapAsEnv")
    for key, value in step.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in step.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    for key, value in {"app.kubernetes.io/part-of": "mtrec", **step.labels}.items():
        kubernetes.add_pod_label(task, key, value)
    kubernetes.set_timeout(task, timeout)
    if cluster.retries is not None:
        _retries(task, cluster, cluster.retries, timeout)
    if cluster.lease_hours is not None:
        task.set_env_variable("MTREC_LEASES", f"kubernetes:{cluster.namespace}")
    return task


def _component(task: Any) -> str:
    return str(task.component_spec.name).replace("-", "_")


def _launching(step: Step, defaults: Step) -> Step:
    """What the pod gets that starts a TrainJob: the step's secrets, and nothing of what the nodes get."""
    kept = {"secrets": step.secrets, "config_maps": step.config_maps, "labels": step.labels}
    return defaults.model_copy(update=kept)


def _resources(task: Any, step: Step) -> None:
    task.set_cpu_request(step.cpu).set_cpu_limit(step.cpu_limit)
    task.set_memory_request(step.memory).set_memory_limit(step.memory_limit)
    if step.gpus:
        task.set_accelerator_type(step.gpu_type or "nvidia.com/gpu").set_accelerator_limit(step.gpus)
    if step.shared_memory:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=step.shared_memory)


def _storage(task: Any, cluster: Cluster) -> None:
    if cluster.storage is not None:
        kubernetes.mount_pvc(task, cluster.storage.claim, cluster.storage.mount)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=cluster.tmp_size)


def _security(task: Any, cluster: Cluster) -> None:
    if cluster.run_as_user is not None:
        user = cluster.run_as_user
        kubernetes.set_security_context(task, run_as_user=user, run_as_group=user, run_as_non_root=True)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)


def _retries(task: Any, cluster: Cluster, retries: Retries, timeout: int) -> None:
    """Argo tries a step again whose container failed, for whatever reason; the step itself knows which to refuse.

    The time for all tries counts from the first one's start and is an hour by default: a training that loses its
    node later than that would not be tried again.
    """
    assert cluster.storage is not None
    waits = sum(retries.wait_seconds * retries.factor**number for number in range(retries.count))
    task.set_retry(
        retries.count,
        backoff_duration=f"{retries.wait_seconds}s",
        backoff_factor=retries.factor,
        backoff_max_duration=f"{int((retries.count + 1) * timeout + waits)}s",
    )
    kubernetes.use_field_path_as_env(task, NODE, _NODE_NAME)
    task.set_env_variable(FAILURES, cluster.storage.path("failures"))


def _required(task: Any, kind: str) -> None:
    """Leave out `optional: false`, which the SDK writes and servers before 2.17 refuse when a run starts."""
    for entry in task.platform_config["kubernetes"][kind]:
        if entry.get("optional") is False:
            del entry["optional"]
