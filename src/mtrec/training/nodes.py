"""Training in several processes: where they run, with which command, and following them to their end.

Two ways to run the same command: nodes of a TrainJob (`mtrec.training.trainjob`), or torchrun on this machine
(`mtrec.training.torchrun`). Nothing here needs torch or the kubeflow SDK.
"""

from __future__ import annotations

import hashlib
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtrec.errors import ConfigError, Unavailable

LOCAL = "local"
"""The `runtime` of a place that is this machine, or this pod."""
_QUANTITY = r"^([0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?)?$"
_KILLED = re.compile(r"exitcode\s*:\s*-9\b")
"""In the summary that torchrun prints when a process was killed, which it survives."""


class Lost(Unavailable):
    """The nodes failed rather than the training: out of memory, evicted, out of reach, out of time."""


class Place(BaseModel):
    """Where fine-tuning runs; a pipeline parameter as JSON text.

    With one process it is the step's own pod. With more it is a TrainJob made from a TrainingRuntime of the
    cluster, which brings volumes, secrets and accounts; or, with `runtime: local`, processes in the step's pod.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    num_nodes: Annotated[int, Field(ge=1, le=1000)] = 1
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    gpu_type: Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """Resource name of the accelerator."""
    processes_per_node: Annotated[int, Field(ge=1, le=1000)] | None = None
    """None: one per GPU, or one where there is none."""
    image: str = ""
    """Container image of the nodes. Empty: the runtime's."""
    runtime: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] = "mtrec-torch"
    """Name of the TrainingRuntime, or `local`."""
    namespace: str = ""
    """Namespace of the TrainJob. Empty: the pod's, else the kubeconfig's."""
    work: Annotated[Path, Field(strict=False)]
    """Folder for what goes to the nodes and comes back; on a volume that all of them mount at the same place."""
    cpu: Annotated[str, Field(pattern=_QUANTITY)] = ""
    """Processors of each node. Empty: the runtime's."""
    memory: Annotated[str, Field(pattern=_QUANTITY)] = ""
    """Memory of each node. Empty: the runtime's."""
    deadline_seconds: Annotated[int, Field(ge=1)] = 86_400
    """How long the nodes may take, waiting for a machine included."""

    @model_validator(mode="after")
    def _possible(self) -> Place:
        if self.runtime == LOCAL and self.num_nodes > 1 and self.gpus_per_node:
            raise ValueError("runtime local: nodes on one machine would share its GPUs; set num_nodes to 1")
        if self.runtime != LOCAL and not self.work.is_absolute():
            raise ValueError(f"work: {self.work} is no absolute path; give one on the volume that the nodes mount")
        return self

    @classmethod
    def from_text(cls, text: str) -> Place:
        """Read a place from JSON.

        Raises:
            ConfigError: wrong; the message names every wrong key.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(f"trainer: {'; '.join(map(_told, error.errors()))}") from error

    def as_text(self) -> str:
        """The JSON that `from_text` reads."""
        return self.model_dump_json()

    @property
    def processes(self) -> int:
        """Processes on each node."""
        return self.processes_per_node or max(1, self.gpus_per_node)

    @property
    def distributed(self) -> bool:
        """Whether fine-tuning needs more than the step's own process."""
        return self.num_nodes > 1 or self.gpus_per_node > 1 or self.processes > 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: the same command on every node."""

    name: str
    """A TrainJob's name, the same for every attempt at the same training."""
    label: str
    """Of the pipeline run, see `run_label`."""
    place: Place
    arguments: tuple[str, ...]
    """What follows `python -m mtrec.stages fine_tune`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of the runtime; nothing secret."""

    @property
    def command(self) -> list[str]:
        """What each node runs; the number of nodes, its own and the first one's address come from PET_ variables.

        The number of processes is an argument, since Trainer refuses a TrainJob that sets PET_NPROC_PER_NODE, and
        without it would start one per processor.
        """
        launcher = ["torchrun", "--nproc-per-node", str(self.place.processes)]
        return [*launcher, "-m", "mtrec.stages", "fine_tune", *self.arguments]

    @property
    def digest(self) -> str:
        """Of all that the nodes are told."""
        told = "\0".join([self.place.as_text(), *self.command, *sorted(f"{k}={v}" for k, v in self.env.items())])
        return hashlib.sha256(told.encode()).hexdigest()[:40]


@dataclass(frozen=True, kw_only=True)
class End:
    """How the nodes ended."""

    complete: bool
    reason: str = ""
    """Why they failed, as far as those who run the nodes know."""
    lost: bool = False
    """Whether that is the nodes' own failure, such as want of memory, and not the training's."""


class Nodes(Protocol):
    """Runs one job."""

    def start(self, *, adopt: bool) -> None:
        """Start the nodes, or with `adopt` go on with those that an earlier attempt started."""

    def lines(self) -> Iterator[tuple[int, str]]:
        """Node and line: the first node's as they come; after a failure also those of the others."""

    def end(self) -> End:
        """How they ended, once there are no more lines."""

    def delete(self) -> None:
        """Remove them, running or not. Says what is left behind on stderr, raises nothing."""


def follow(
    job: Job,
    hear: Callable[[int, str], None],
    *,
    adopt: bool = False,
    owned: Callable[[], bool] = lambda: True,
) -> End:
    """Run a job and follow it to its end. It is removed in any case, unless another attempt has taken it over.

    Args:
        job: what to run and where; its place says in which of the two ways.
        hear: called with node and line for every line of the logs.
        adopt: go on with what an earlier attempt has started, if it still runs or has ended well.
        owned: asked before the nodes are removed, whether no later attempt has taken them over.

    Raises:
        ConfigError: there is no such runtime, or it cannot be used.
        RunError: the nodes could not be started.
        Lost: they cannot be reached any more.
    """
    nodes = _nodes(job, owned)
    killed: dict[int, str] = {}
    try:
        nodes.start(adopt=adopt)
        for node, line in nodes.lines():
            if _KILLED.search(line):
                killed[node] = f"a process of node {node} was killed, most often for want of memory"
            hear(node, line)
        end = nodes.end()
    finally:
        nodes.delete()
    if end.complete or end.lost or not killed:
        return end
    return End(complete=False, reason="; ".join(killed.values()), lost=True)


def run_label(pipeline_run: str) -> str:
    """A pipeline run's name as a label's value, a part of a path or of a name; two runs never have the same."""
    return f"{_plain(pipeline_run)[:40].strip('-')}-{_hash(pipeline_run)[:8]}".lstrip("-")


def job_name(pipeline_run: str, key: str) -> str:
    """A TrainJob's name, at most 44 characters: its pods' names are longer and may have 63.

    Args:
        pipeline_run: name of the pipeline run, may be empty.
        key: names what is trained; the same in every attempt.
    """
    return "-".join(filter(None, ["mtrec", _plain(pipeline_run)[:24].strip("-"), _hash(pipeline_run + key)[:12]]))


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the block by an exception, so that it removes what it started.

    A second signal is ignored: by then it is being removed.
    """
    previous: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for known in previous:
            signal.signal(known, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError):  # outside the main thread no signal arrives
            previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:  # else it was none of Python's
                signal.signal(number, handler)


def _nodes(job: Job, owned: Callable[[], bool]) -> Nodes:
    if job.place.runtime == LOCAL:
        from mtrec.training.torchrun import Torchrun

        return Torchrun(job)  # processes of this pod, which nobody else can take over
    from mtrec.training.trainjob import Kubeflow

    return Kubeflow(job, owned=owned)


def _told(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key (known: {', '.join(Place.model_fields)})"
    elif error["type"] != "missing" and not isinstance(error.get("input"), (dict, list)):
        message += f" (got {error.get('input')!r})"
    return f"{place}: {message}" if place else message


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
