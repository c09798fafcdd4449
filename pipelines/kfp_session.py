"""What surrounds kfp's local runner: its output, its environment, and stopping it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, TextIO

from mtrec.errors import MtrecError
from pipelines.steps import Steps, plain
from pipelines.workspace import Run, Workspace

_GRACE_SECONDS = 10.0


class Interrupted(MtrecError):
    """The user stopped the run."""

    exit_code = 130


class Log(io.TextIOBase):
    """Takes what kfp prints, writes it to a file, and hands each whole line to the steps."""

    def __init__(self, file: TextIO, steps: Steps, echo: Callable[[str], None] | None) -> None:
        self._file = file
        self._steps = steps
        self._echo = echo
        self._rest = ""
        self.tail: list[str] = []

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Take text; a line counts once its end has come."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in map(plain, lines):
            self._file.write(f"{line}\n")
            self._steps.read(line)
            self.tail = [*self.tail[-99:], line]
            if self._echo:
                self._echo(line)
        return len(text)

    def flush(self) -> None:
        """Bring the file up to date."""
        self._file.flush()


@contextlib.contextmanager
def quiet(log: Log) -> Iterator[None]:
    """Send everything that this process prints or logs to the log."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    handler = logging.StreamHandler(log)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def local_kfp(run: Run, workspace: Workspace) -> Iterator[None]:
    """kfp's local runner, set up for one run and taken down again.

    kfp starts a step by putting `sys.executable` wherever a command says python3, in the step's arguments too: a
    data path that contains 'python3' would be garbled, and an interpreter under a path with a space would not
    start. With sys.executable set to plain python3 and its folder first on PATH neither happens. Steps do not
    look for modules in the working directory, and their temporary files go when the run ends.
    """
    from kfp import local
    from kfp.local import config

    executable, environment = sys.executable, dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mtrec-") as temporary:
        folder = str(Path(executable).parent)
        changed = {
            "PATH": f"{folder}{os.pathsep}{environment.get('PATH', os.defpath)}",
            "TMPDIR": temporary,
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
        }
        os.environ.update(changed)
        sys.executable = "python3" if shutil.which("python3", path=folder) else executable
        previous = config.LocalExecutionConfig.instance
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(run.outputs),
            workspace_root=temporary,
            enable_caching=True,
            cache_root=str(workspace.pipelines / "cache"),
        )
        try:
            yield
        finally:
            config.LocalExecutionConfig.instance = previous
            sys.executable = executable
            for name in changed:
                os.environ.pop(name, None)
                os.environ.update({name: environment[name]} if name in environment else {})


@contextlib.contextmanager
def stoppable() -> Iterator[Event]:
    """Let Ctrl-C and SIGTERM stop the run at once.

    What is raised gets lost where a signal finds Python in the callback of a weak reference: long work that is not
    only waiting should also look at the event now and then, which is set by then.

    Ctrl-C needs it too: polars, once imported, has put a handler before Python's that restarts the read in which
    this process waits for a step.
    """

    asked = Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        raise KeyboardInterrupt

    previous: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        with contextlib.suppress(ValueError):  # outside the main thread no signal arrives
            previous[number] = signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_children() -> None:
    """Stop every process that this run started: ask first, so that they clean up, then insist."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(children, timeout=_GRACE_SECONDS)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=_GRACE_SECONDS)
