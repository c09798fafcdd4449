"""A step that a cluster tries again: it works only where the machine had failed, not the step.

Kubeflow Pipelines tries a step again whose container failed, for whatever reason. So a step that failed in a way
that would come again notes it on the shared storage, and its next try ends at once with the same words. A pod that
was lost, killed or evicted leaves no note. The first try, also that of a run which a person tries again, begins
without one.

Two variables of the environment, set in the pipeline: MTREC_NODE, the name that Argo gives a try, which ends with
its number, and MTREC_FAILURES, the folder of the notes. Without them nothing is noted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path

from mtrec.data.contract import replacing_file
from mtrec.errors import MtrecError, Unavailable

_NODE = re.compile(r"(?P<name>.+)\((?P<number>\d+)\)$", re.DOTALL)
_KEPT = 7 * 24 * 3600
"""Seconds after which notes of other runs are removed."""
_MACHINE = ("AcceleratorError", "DistBackendError", "DistNetworkError", "DistStoreError")
"""torch's names for a broken GPU, and for nodes that lost each other."""


def comes_again(error: BaseException) -> bool:
    """Whether another try would end in the same way: wrong input, a refusal, a bug; not a server that is away."""
    if isinstance(error, MtrecError):
        return not isinstance(error, Unavailable)
    return not isinstance(error, OSError) and type(error).__name__ not in _MACHINE


def earlier() -> str | None:
    """What an earlier try of this step noted; the first try removes what is there."""
    path, number = _note()
    if path is None:
        return None
    with contextlib.suppress(OSError):
        if number:
            return path.read_text(encoding="utf-8")
        path.unlink(missing_ok=True)
    return None


def note(failure: str) -> None:
    """Keep for the next tries of this step why they are of no use; where it cannot be kept, they are made."""
    path, _ = _note()
    if path is None:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob("*.json"):
            if time.time() - old.stat().st_mtime > _KEPT:
                old.unlink(missing_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(failure, encoding="utf-8")


def _note() -> tuple[Path | None, int]:
    """The file of this step's note, and the number of this try."""
    folder, found = os.environ.get("MTREC_FAILURES"), _NODE.match(os.environ.get("MTREC_NODE", ""))
    if not folder or found is None:
        return None, 0
    return Path(folder, f"{hashlib.sha256(found['name'].encode()).hexdigest()[:32]}.json"), int(found["number"])
