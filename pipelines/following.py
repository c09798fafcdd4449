"""What a person sees of work that runs in this process: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mtrec import progress


class Following:
    """Follows steps on a console."""

    def __init__(self, console: Console) -> None:
        console.file = console.file  # whatever happens to sys.stdout in the meantime
        self._console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self.task = self.bars.add_task("starting", total=1.0, note="")

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """A step, told when it is done."""
        self.bars.reset(self.task, description=name, total=1.0, note="")
        start = time.monotonic()
        yield
        self.step(name, f"done {time.monotonic() - start:.1f} s")

    def step(self, name: str, told: str) -> None:
        """A step ended."""
        self.line(f"{name:<10}  {told}")

    def heard(self, said: progress.Progress) -> None:
        """Progress of whatever runs."""
        self.bars.update(self.task, completed=said.fraction, note=said.message)

    def line(self, text: str) -> None:
        """A line that stays."""
        self.bars.console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)


def or_stop(view: Following, asked: Event) -> progress.Listener:
    """Show progress, or stop where somebody has asked for it and it got lost."""

    def heard(said: progress.Progress) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        view.heard(said)

    return heard


@contextlib.contextmanager
def aside(log: Path) -> Iterator[None]:
    """Send what libraries print to a file; the console has its own hold on the terminal."""
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
