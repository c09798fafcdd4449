"""Progress of a long step: said by the step, shown by whoever runs it.

A step calls `report("fine_tune", 0.4, "epoch 2 of 5")`. Nothing happens unless somebody listens: the library
stays silent. A pipeline component listens with `line_writer()`, which prints one marked line to stderr. The
local runner reads it back with `read_line` and draws a bar; on a cluster it is one line of the pod's log.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

MARK = "mtrec-progress "
_MIN_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a stage has come."""

    stage: str
    """Name of the stage as in `mtrec.stages`: fine_tune."""
    fraction: float | None
    """Share that is done, 0 to 1; None when it cannot be known."""
    message: str


Listener = Callable[[Progress], None]
_listeners: list[Listener] = []


def report(stage: str, fraction: float | None, message: str = "") -> None:
    """Say how far a stage has come. Cheap enough for every step of a training loop.

    Args:
        stage: name of the stage as in `mtrec.stages`, for example fine_tune.
        fraction: share that is done, 0 to 1 (clipped), or None when it cannot be known.
        message: a few words for people, for example "epoch 2 of 5, loss 1.93".
    """
    if not _listeners:
        return
    if fraction is not None:
        fraction = min(1.0, max(0.0, float(fraction)))
    _listeners[-1](Progress(stage=stage, fraction=fraction, message=message))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report inside the block to `listener`; the innermost listener wins."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


def line_writer() -> Listener:
    """A listener that writes marked lines to stderr, four per second at most; the end always passes."""
    last = -_MIN_SECONDS

    def write_line(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _MIN_SECONDS and progress.fraction != 1.0:
            return
        last = now
        sys.stderr.write(f"{MARK}{json.dumps(asdict(progress))}\n")
        sys.stderr.flush()

    return write_line


def read_line(line: str) -> Progress | None:
    """The progress in a line of a log, or None when it holds none.

    The mark may stand anywhere in the line: a library's own progress bar often leaves a half-written line.
    """
    _, mark, text = line.partition(MARK)
    if not mark:
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(text)
        return Progress(stage=str(content["stage"]), fraction=content["fraction"], message=str(content["message"]))
    except (ValueError, KeyError, TypeError):
        return None
