"""The steps of a run as they go: who waits, runs, is done; fed by the lines of the log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mtrec.progress import read_line
from mtrec.stages.execution import Failure, read_failure

State = Literal["waiting", "running", "done", "cached", "failed", "stopped", "skipped"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_EXECUTING = re.compile(r"Executing task '([\w-]+)'")
_CACHED = re.compile(r"Task ([\w-]+) cache hit")
_ENDED = re.compile(r"Task '([\w-]+)' finished with status (SUCCESS|FAILURE)")


def plain(line: str) -> str:
    """A line without terminal colours."""
    return _COLOURS.sub("", line)


@dataclass
class Step:
    """One step of the pipeline."""

    name: str
    state: State = "waiting"
    started: float = 0.0
    seconds: float = 0.0
    fraction: float | None = None
    message: str = ""

    def elapsed(self, now: float) -> float:
        """Seconds so far."""
        return now - self.started if self.state == "running" else self.seconds


@dataclass
class Steps:
    """All steps, in order, kept up to date by `read`."""

    names: Sequence[str]
    changed: Callable[[Step], None] = lambda step: None
    """Called after every change of a step."""
    clock: Callable[[], float] = time.monotonic
    failure: Failure | None = None
    """What a failed step said, when it said it."""
    steps: dict[str, Step] = field(init=False)

    def __post_init__(self) -> None:
        self.steps = {name: Step(name) for name in self.names}

    @property
    def failed(self) -> Step | None:
        """The step that failed, if one did."""
        return next((step for step in self.steps.values() if step.state == "failed"), None)

    def read(self, line: str) -> None:
        """Take one plain line of the log: kfp's own messages and the marked lines of the steps."""
        if match := _EXECUTING.search(line):
            self._set(match[1], "running")
        elif match := _CACHED.search(line):
            self._set(match[1], "cached")
        elif match := _ENDED.search(line):
            self._set(match[1], "done" if match[2] == "SUCCESS" else "failed")
        elif (progress := read_line(line)) is not None:
            for step in self.steps.values():
                if step.state == "running":
                    step.fraction, step.message = progress.fraction, progress.message
                    self.changed(step)
        elif (failure := read_failure(line)) is not None:
            self.failure = failure

    def close(self, *, succeeded: bool, stopped: bool = False, sure: bool = False) -> None:
        """The run ended: what ran has failed, or was stopped by the user; what waited was skipped.

        Args:
            succeeded: whether the run did.
            stopped: whether the user stopped it.
            sure: what is told as failed has failed. Without it a stopped run has no such step: Ctrl-C reaches the
                step too, and kfp may tell of it first.
        """
        for step in self.steps.values():
            if step.state == "running":
                self._set(step.name, "stopped" if stopped else "failed")
            elif step.state == "failed" and stopped and not sure:
                self._set(step.name, "stopped")
            elif step.state == "waiting" and succeeded:
                self._set(step.name, "skipped")

    def _set(self, name: str, state: State) -> None:
        step = self.steps.get(name.replace("-", "_"))
        if step is None:
            return
        now = self.clock()
        if state == "running":
            step.started = now
        elif step.state == "running":
            step.seconds = now - step.started
        step.state = state
        step.fraction = None
        self.changed(step)
