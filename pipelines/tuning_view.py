"""What a person sees of a search: live bars on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mtrec.evaluation.trial_report import pasted
from pipelines.following import Following
from pipelines.results import mlflow_command
from pipelines.workspace import shown

if TYPE_CHECKING:
    from mtrec.training.search import Ended
    from mtrec.training.study import Attempt
    from pipelines.tuning import Searched

_SHOWN = 5


class View(Following):
    """Follows a search on a console."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._best: dict[str, Any] | None = None
        self._waits = False

    def opened(self, study: str, storage: str, moved: Sequence[str]) -> None:
        """The study that is worked on, and which settings of the scenario lie outside its space."""
        self.line(f"Study {study} in {_near(storage)}")
        for told in moved:
            self.line(f"outside the space, so trial 0 has the nearest value: {told}")

    def begun(self, attempt: Attempt, total: int) -> None:
        """A trial begins; `total` is how many there should be in all."""
        best = f", best {self._best['value']:.4f} (trial {self._best['number']})" if self._best else ""
        self.bars.reset(self.task, description=f"trial {attempt.number}, {total} in all{best}", total=1.0, note="")
        self._waits = False

    def ended(self, end: Ended, best: dict[str, Any] | None) -> None:
        """A trial ended; `best` is the best one of the study so far."""
        self._best = best
        value = "      –" if end.value is None else f"{end.value:7.4f}"
        told = f"trial {end.number:<4}  {end.state:<8}  {value}  {end.seconds:6.1f} s"
        if best is not None and best["number"] == end.number and not best.get("reference"):
            told += "  the best so far"
        self.line(f"{told}  {end.why}" if end.why else told)

    def waiting(self) -> None:
        """Another process measures the reference."""
        if not self._waits:
            self._waits = True
            self.line("waiting for trial 0, the scenario's own settings, which another process trains")


def print_search(result: Searched, console: Console) -> None:
    """The end of a search: the best trials, what the best one means per task, where things are, what to run."""
    summary = result.summary
    best = summary["best"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(result):
        facts.add_row(name, value)
    parts: list[Any] = [_trials_table(summary["trials"]), ""] if best else []
    if best and not best.get("reference"):
        parts += [_tasks_table(summary), ""]
    minutes = f"{int(result.seconds // 60)} min {int(result.seconds % 60):02d} s"
    title = Text(f"{summary['name']} · {minutes}")  # a panel reads a title that is no Text as markup
    console.print(Panel(Group(*parts, facts), title=title, title_align="left", expand=False))
    if best and best.get("reference"):
        console.print("No trial was better than the scenario's own settings.", highlight=False)
    elif best:
        console.print(f"Train with the settings of trial {best['number']}:", highlight=False)
        console.print(pasted(summary["command"]), markup=False, highlight=False, soft_wrap=True)


def _trials_table(trials: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("trial", "value", "epochs", "time"):
        table.add_column(name, justify="right")
    table.add_column("")
    complete = sorted((t for t in trials if t["state"] == "complete"), key=lambda t: (-t["value"], t["number"]))
    reference = [t for t in complete[_SHOWN:] if t.get("reference")]
    for trial in [*complete[:_SHOWN], *reference]:
        told = "the scenario's own settings" if trial.get("reference") else ""
        seconds = f"{trial['seconds']:.0f} s"
        table.add_row(str(trial["number"]), f"{trial['value']:.4f}", str(len(trial["epochs"])), seconds, told)
    return table


def _tasks_table(summary: dict[str, Any]) -> Table:
    best = summary["best"]
    reference = next(t for t in summary["trials"] if t.get("reference") and t["state"] == "complete")
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("task")
    for name in ("skill: scenario", f"trial {best['number']}"):
        table.add_column(name, justify="right")
    for task, skill in reference["skills"].items():
        table.add_row(task, f"{skill:.4f}", f"{best['skills'][task]:.4f}")
    return table


def _facts(result: Searched) -> list[tuple[str, str]]:
    summary = result.summary
    trials = summary["trials"]
    states = ("complete", "pruned", "running", "waiting")
    counts = {state: sum(t["state"] == state for t in trials) for state in states}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
    interrupted = sum(t["state"] == "failed" for t in trials)
    if interrupted:
        told += f"; {interrupted} broken off"
    return [
        ("Trials", told),
        ("Plots", f"{shown(result.page)}, {shown(result.picture)}"),
        ("Study", f"{summary['name']} in {_near(result.storage)}"),
        ("MLflow", f"{mlflow_command(result.tracking_uri)}   (run {summary['name']})"),
    ]


def _near(url: str) -> str:
    """A database's URL as people see it: a file's path relative to the working directory when it lies inside."""
    prefix = "sqlite:///"
    return f"{prefix}{shown(Path(url.removeprefix(prefix)))}" if url.startswith(prefix) else url
