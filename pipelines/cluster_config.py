"""How a cluster runs the pipelines: images, resources, storage, secrets, retries. A YAML file beside the scenario.

It is no part of the scenario: more memory or another queue of nodes does not make another model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from components import images
from mtrec.config import Frozen, parse, read_mapping
from mtrec.errors import ConfigError
from mtrec.training.nodes import Place
from pipelines.cluster_values import (
    Below,
    Cpu,
    Image,
    LabelKey,
    Labels,
    LabelValue,
    Memory,
    Minutes,
    Name,
    NameOrEmpty,
    Namespace,
    Resource,
    Sources,
    UriOrEmpty,
)

EXAMPLE = "k8s/cluster/cluster.yaml"
COMPONENTS = tuple(
    sorted(path.stem for path in Path(images.__file__).parent.glob("*_*.py") if not path.stem.startswith("_"))
)
"""Every component by its name."""
TRAINER = "fine_tune_model"
_PART_OF = "app.kubernetes.io/part-of"
"""Label by which the NetworkPolicies find mtrec's pods."""
_OWN = ("MTREC_FAILURES", "MTREC_LEASES", "MTREC_NODE")
"""Environment that `pipelines.placing` gives steps."""
_TAKEN = ("/tmp", "/dev", "/proc", "/sys")
"""Where no volume can be: in their place, or in the way of, what a pod has there."""


class Toleration(Frozen):
    """A taint of nodes that a step puts up with, as in Kubernetes."""

    key: LabelKey | None = None
    """Key of the taint. Empty with `operator: Exists`: any."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Whether the value counts."""
    value: LabelValue | None = None
    """Value of the taint, with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Empty: any."""

    @model_validator(mode="after")
    def _value_where_it_counts(self) -> Toleration:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("value goes with operator: Equal, and only with it")
        if self.key is None and (self.operator == "Equal" or "operator" not in self.model_fields_set):
            raise ValueError("name the key of the taint, or write operator: Exists to put up with any")
        return self


class Step(Frozen):
    """What one component gets. Under `steps`, what is not given is as in `defaults`; mappings and lists add up."""

    image: Image | None = None
    """Container image, in place of that of the cluster."""
    cpu: Cpu | None = None
    """Processors that are kept for it: 2, 0.5, 500m."""
    cpu_limit: Cpu | None = None
    """Processors that it may use at most."""
    memory: Memory | None = None
    """Memory that is kept for it: 4Gi."""
    memory_limit: Memory | None = None
    """Memory above which it is killed; shared memory and what it writes to /tmp in memory count."""
    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs of the pod; of fine_tune_model: of each node of the training."""
    gpu_type: Resource | None = None
    """Resource by which nodes offer GPUs. Empty: nvidia.com/gpu."""
    shared_memory: Memory | None = None
    """Size of /dev/shm, which data loaders and NCCL use; it counts towards the memory limit."""
    timeout_minutes: Minutes | None = None
    """A try that takes longer is ended and counts as failed."""
    node_selector: Labels = {}
    """Labels of the nodes that may run it."""
    tolerations: list[Toleration] = []
    """Taints of nodes that it puts up with."""
    secrets: Sources = {}
    """Name of a secret: its key: the environment variable that gets the value."""
    config_maps: Sources = {}
    """Name of a ConfigMap: its key: the environment variable that gets the value."""
    labels: Labels = {}
    """Labels of the pod, beside app.kubernetes.io/part-of: mtrec."""

    @field_validator("labels")
    @classmethod
    def _stays_ours(cls, labels: dict[str, str]) -> dict[str, str]:
        if labels.get(_PART_OF, "mtrec") != "mtrec":
            raise ValueError(f"{_PART_OF} stays mtrec: the NetworkPolicies find the pods by it")
        return labels

    def over(self, other: Step) -> Step:
        """This step's settings, and another's where it has none."""
        merged = other.model_dump(exclude_none=True)
        for key, value in self.model_dump(exclude_none=True).items():
            if isinstance(value, dict):
                merged[key] = {**merged.get(key, {}), **value}
            elif isinstance(value, list):
                merged[key] = [*merged.get(key, []), *(one for one in value if one not in merged.get(key, []))]
            else:
                merged[key] = value
        return Step.model_validate(merged)

    def problems(self) -> list[str]:
        """What Kubernetes would refuse, or what would kill the pod."""
        from kubernetes.utils.quantity import parse_quantity

        found = []
        for key in ("cpu", "memory"):
            asked, most = getattr(self, key), getattr(self, f"{key}_limit")
            if asked and most and parse_quantity(asked) > parse_quantity(most):
                found.append(f"{key} {asked} is more than {key}_limit {most}")
        shared, most = self.shared_memory, self.memory_limit
        if shared and most and parse_quantity(shared) > parse_quantity(most):
            found.append(f"shared_memory {shared} is more than memory_limit {most}, which it counts towards")
        sources: dict[str, list[str]] = {}
        for kind, given in (("secret", self.secrets), ("ConfigMap", self.config_maps)):
            for name, keys in given.items():
                for key, variable in keys.items():
                    sources.setdefault(variable, []).append(f"{key} of {kind} {name}")
        for variable, places in sources.items():
            if variable in _OWN:
                found.append(f"{variable} is set by mtrec itself: take it out of {', '.join(places)}")
            elif len(places) > 1:
                found.append(f"{variable} would come from {' and '.join(places)}: take it from one")
        return found


_STANDARD = Step(cpu="500m", cpu_limit="2", memory="1Gi", memory_limit="4Gi", timeout_minutes=60)


class Storage(Frozen):
    """A volume that all steps of all runs share."""

    claim: Name
    """Name of the PersistentVolumeClaim; ReadWriteMany where steps run on several nodes."""
    mount: str = "/mtrec"
    """Where steps find it: an absolute path, and none below /tmp or /dev, which a pod has itself."""
    dvc_root: Below = "dvc"
    """DVC's repository in it. Empty: tables are hashed, not pushed."""
    checkpoints: Below = "checkpoints"
    """Checkpoints of training in it. Empty: none are kept."""
    text_cache: Below = "texts"
    """Encoded texts in it. Empty: each run encodes anew."""

    @field_validator("mount")
    @classmethod
    def _is_free(cls, mount: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9_.-]+)+/?", mount) or ".." in mount.split("/"):
            raise ValueError("no folder for a volume: write an absolute path, as /mtrec")
        if any(f"{mount}/".startswith(f"{taken}/") for taken in _TAKEN):
            raise ValueError(f"a pod has its own {', '.join(_TAKEN)}: mount it elsewhere, as at /mtrec")
        return mount

    def path(self, below: str) -> str:
        """A path in it as the steps see it; empty for an empty one."""
        return f"{self.mount.rstrip('/')}/{below}" if below else ""


class Retries(Frozen):
    """How often a step is tried again that did not fail by itself: a lost pod, a full node, a server that is away.

    A step that found its input wrong, or failed in a way that would come again, notes it on the shared storage, and
    its next tries end at once with the same words.
    """

    count: int = Field(default=2, ge=1, le=10)
    """Tries after the first."""
    wait_seconds: int = Field(default=60, ge=1, le=86_400)
    """Wait before the second try."""
    factor: float = Field(default=2.0, ge=1, le=10)
    """Each further wait is so many times the one before."""


class TrainJob(Frozen):
    """Training in more than one pod, by Kubeflow Trainer.

    Each node gets image, processors, memory (both as limits, which are also what is asked for), GPUs and time of
    `steps.fine_tune_model`; volumes, secrets, tolerations and node selectors are those of the runtime.
    """

    nodes: int = Field(default=1, ge=1, le=1000)
    """Nodes of one training. With one, and at most one GPU, training runs in the pod of its step."""
    processes_per_node: int | None = Field(default=None, ge=1, le=1000)
    """Processes of each node. Empty: one per GPU, without GPUs one."""
    runtime: Name = "mtrec-torch"
    """The TrainingRuntime: its secrets, volumes and tolerations, see k8s/base/runs/trainingruntime.yaml. `local`:
    the processes are in the pod of the step, on its GPUs, and Trainer is not needed."""


class Cluster(Frozen):
    """The top level."""

    namespace: Namespace = "mtrec"
    """Where the pods of runs are: yours on a server for many users, else that of Kubeflow Pipelines."""
    image: Image = images.IMAGE
    """Container image of every component."""
    image_pull_secrets: list[Name] = []
    """Secrets with logins of the registry."""
    service_account: NameOrEmpty = ""
    """Of the pods. Empty: the server's."""
    pipeline_root: UriOrEmpty = ""
    """Where artifacts go, e.g. s3://bucket/path. Empty: the server's."""
    run_as_user: int | None = Field(default=None, gt=0)
    """User of the pods, as Pod Security "restricted" wants it, from KFP 2.17 on. Empty: the server's."""
    tmp_size: Memory = "4Gi"
    """Size of /tmp, so that the root file system may be read-only."""
    lease_hours: float | None = Field(default=None, gt=0, le=720)
    """One training of a scenario at a time, by a Lease in the namespace. It lasts so long after each step that
    renews it, which all do but validation and preprocessing: give more than those take. Empty: nobody is kept
    from training beside another."""
    shards: int = Field(default=1, ge=1, le=256)
    """Parts, by user, in which data is preprocessed side by side."""
    search_workers: int = Field(default=2, ge=1, le=256)
    """Pods that work on one search."""
    storage: Storage | None = None
    """Needed for retries and for training on several nodes."""
    retries: Retries | None = None
    """Empty: steps are tried once."""
    train_job: TrainJob = TrainJob()
    """How training runs with several nodes, GPUs or processes; with one of each it runs in the pod of its step."""
    defaults: Step = _STANDARD
    """Of every component; what is not given is half a processor, at most 2, 1 GiB, at most 4, and an hour."""
    steps: dict[str, Step] = {}
    """By component, named as in components/."""

    @field_validator("steps")
    @classmethod
    def _components_exist(cls, steps: dict[str, Step]) -> dict[str, Step]:
        if unknown := sorted(set(steps) - set(COMPONENTS)):
            raise ValueError(f"{', '.join(unknown)}: no such component (known: {', '.join(COMPONENTS)})")
        return steps

    @field_validator("defaults")
    @classmethod
    def _with_the_standard(cls, defaults: Step) -> Step:
        return defaults.over(_STANDARD)

    @model_validator(mode="after")
    def _complete(self) -> Cluster:
        problems = [f"defaults: {problem}" for problem in self.defaults.problems()]
        if not problems:
            problems = [f"steps.{name}: {problem}" for name in COMPONENTS for problem in self.step(name).problems()]
        if self.storage is None and self.retries is not None:
            problems.append("retries need storage, where a step notes that trying again is of no use")
        if self.storage is None and self.distributed:
            problems.append("training on several nodes or GPUs needs storage, which all of them share")
        elif self.distributed:
            try:
                Place.from_text(self.trainer())
            except ConfigError as error:
                problems.append(f"train_job with steps.{TRAINER}: {str(error).removeprefix('trainer: ')}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def step(self, component: str) -> Step:
        """What a component gets, defaults and all."""
        return self.steps.get(component, Step()).over(self.defaults)

    @property
    def distributed(self) -> bool:
        """Whether training takes more than one process."""
        gpus = self.step(TRAINER).gpus or 0
        return self.train_job.nodes > 1 or gpus > 1 or (self.train_job.processes_per_node or 1) > 1

    @property
    def elsewhere(self) -> bool:
        """Whether training runs outside of the pod of its step."""
        return self.distributed and self.train_job.runtime != "local"

    def trainer(self) -> str:
        """Where training runs, as fine_tune takes it (`mtrec.training.nodes.Place`); empty: in its own pod."""
        if not self.distributed:
            return ""
        assert self.storage is not None
        node = self.step(TRAINER)
        place = {
            "num_nodes": self.train_job.nodes,
            "gpus_per_node": node.gpus or 0,
            "gpu_type": node.gpu_type or "nvidia.com/gpu",
            "processes_per_node": self.train_job.processes_per_node,
            "image": node.image or self.image,
            "runtime": self.train_job.runtime,
            "namespace": self.namespace,
            "work": self.storage.path("training"),
            "cpu": node.cpu_limit,
            "memory": node.memory_limit,
            "deadline_seconds": 60 * (node.timeout_minutes or 0),
        }
        return json.dumps({key: value for key, value in place.items() if value is not None})

    def parameters(self) -> dict[str, str]:
        """The pipeline's parameters that say where things are on the shared storage."""
        if self.storage is None:
            return {}
        paths = {name: getattr(self.storage, name) for name in ("dvc_root", "checkpoints", "text_cache")}
        return {name: self.storage.path(below) for name, below in paths.items() if below}


def load_cluster(path: Path, **changes: Any) -> Cluster:
    """Read a cluster's configuration.

    Args:
        path: the YAML file.
        changes: values for keys of the top level, in place of those of the file; None changes nothing.

    Raises:
        ConfigError: no such file, broken YAML, or wrong keys (all listed in one message).
    """
    if not path.is_file():
        why = "is no file" if path.exists() else "no such file"
        raise ConfigError(f"--cluster {path}: {why}; {EXAMPLE} is one to begin with")
    raw = read_mapping(path, "a cluster's configuration")
    return parse(Cluster, raw | {key: value for key, value in changes.items() if value is not None}, str(path))
