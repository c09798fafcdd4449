"""What a person sees while a run goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelines.steps import Step, Steps

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "cached": ("✓", "green"),
    "failed": ("✗", "red"),
    "stopped": ("■", "yellow"),
    "skipped": ("–", "dim"),
}
_PLAIN_SHARE = 0.1
_PLAIN_SECONDS = 15.0
_PLAIN_AT_LATEST = 60.0


@contextmanager
def showing(steps: Steps, console: Console) -> Iterator[None]:
    """Show the steps on the console while the block runs, whatever happens to sys.stdout in the meantime."""
    console.file = console.file
    if not console.is_terminal:
        steps.changed = PlainView(console, width=max(map(len, steps.names))).step_changed
        yield
        return
    view = _LiveView(steps)
    with Live(
        view,
        console=console,
        refresh_per_second=8,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="visible",
    ):
        yield


class _LiveView:
    """A table of all steps, drawn anew several times a second."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._spinner = Spinner("dots", style="cyan")

    def __rich__(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(min_width=16)
        table.add_column(justify="right", min_width=7)
        table.add_column(width=20)
        table.add_column(overflow="ellipsis", no_wrap=True)
        for step in self._steps.steps.values():
            mark, style = _MARKS[step.state]
            running = step.state == "running"
            bar: ProgressBar | str = ""
            if running and step.fraction is not None:
                bar = ProgressBar(total=1.0, completed=step.fraction, width=20)
            table.add_row(
                self._spinner if running else Text(mark, style=style),
                Text(step.name, style="bold" if running else style if step.state != "done" else ""),
                Text(elapsed_text(step, time.monotonic()), style="dim"),
                bar,
                Text(_note(step), style="dim"),
            )
        return table


class PlainView:
    """One line when a step begins or ends; between them one per tenth of the step or per minute, no more."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic, *, width: int = 0) -> None:
        self._console = console
        self._clock = clock
        self._width = max(width, 16)  # of the names
        self._last: dict[str, tuple[str, float, float]] = {}

    def step_changed(self, step: Step) -> None:
        """Print the step when its state is new, or when it is time to say how far it is."""
        now = self._clock()
        state, share_then, printed = self._last.get(step.name, ("", 0.0, 0.0))
        if step.state == state:
            more = (step.fraction or 0.0) - share_then > _PLAIN_SHARE - 1e-9
            if now - printed < (_PLAIN_SECONDS if more else _PLAIN_AT_LATEST):
                return
        self._last[step.name] = (step.state, step.fraction or 0.0, now)
        share = f" {step.fraction:.0%}" if step.fraction is not None else ""
        words = {"running": f"running{share}" if state == "running" else "started", "cached": "done (cached)"}
        note = f"  {step.message}" if step.state == "running" and step.message else ""
        began = step.state == "running" and state != "running"
        seconds = "" if began else elapsed_text(step, now)
        name, state = f"{step.name:<{self._width}}", words.get(step.state, step.state)
        self._console.print(
            f"{name} {state}{f' {seconds}' if seconds else ''}{note}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def elapsed_text(step: Step, now: float) -> str:
    """Elapsed time for people: 4.2 s, 3 min 05 s; empty for a step that has not run."""
    if step.state in ("waiting", "skipped", "cached"):
        return ""
    seconds = step.elapsed(now)
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _note(step: Step) -> str:
    if step.state == "cached":
        return "unchanged, taken from the cache"
    if step.state == "skipped":
        return "not needed: the gate said no"
    return step.message if step.state in ("running", "done") else ""
