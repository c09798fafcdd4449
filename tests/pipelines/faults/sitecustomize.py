"""Makes what FAULT names go wrong, in every process of a run with this folder on PYTHONPATH.

FAULT is a kind and a stage. `before`, `after`: the machine dies there, which kills the process group at once.
`during fine_tune`: it dies when the first checkpoint is written. `full fine_tune`: the disk is full when the model
is written. `lost register`: the registry takes a new version, and its answer never arrives. The code keeps one
revision.
"""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import mtrec.lineage
from mtrec.stages import execution

mtrec.lineage.code_revision = lambda: "a-revision"
run_stage = execution.run_stage


def faulty(name: str, **given: Any) -> dict[str, Any]:
    kind, _, stage = os.environ.get("FAULT", "").partition(" ")
    if name != stage:
        return run_stage(name, **given)
    if kind == "before":
        die()
    if kind in FAULTS:
        FAULTS[kind]()
    summary = run_stage(name, **given)
    if kind == "after":
        die()
    return summary


def die() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)


def during() -> None:
    from mtrec.training import loop

    save = loop.save_checkpoint

    def saved(*arguments: Any) -> None:
        save(*arguments)
        die()

    loop.save_checkpoint = saved


def full() -> None:
    from mtrec.models import store

    def written(tensors: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    store.save_file = written


def lost() -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    create = MlflowClient.create_model_version

    def created(*arguments: Any, **named: Any) -> None:
        create(*arguments, **named)
        raise MlflowException("the connection was closed before the answer came")

    MlflowClient.create_model_version = created  # type: ignore[method-assign]


FAULTS = {"during": during, "full": full, "lost": lost}
execution.run_stage = faulty
