"""Follow a run on a cluster: its server is asked again and again, and the steps are shown as of a local run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any

from rich.console import Console

from pipelines.display import showing
from pipelines.kfp_server import Away, Refused, RunView, Server, TaskView
from pipelines.local import STEPS
from pipelines.steps import State, Step, Steps

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")
_STATES: dict[str, State] = {
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "ERROR": "failed",
    "SKIPPED": "skipped",
    "CANCELING": "stopped",
    "CANCELED": "stopped",
}
_FIRST_S, _MOST_S = 2.0, 10.0
_PATIENCE_S = 600.0


def follow(
    server: Server, run_id: str, console: Console, *, wait: Callable[[float], None] = time.sleep
) -> tuple[RunView, Steps]:
    """Show a run until it ends.

    A server that does not answer is asked for ten minutes more; a refused token once more, for the file may hold a
    new one by then.

    Args:
        server: that has the run.
        run_id: the run.
        console: where people watch.
        wait: sleeps between two questions, 2 to 10 seconds.

    Returns:
        The run as it ended, and its steps.

    Raises:
        Missing: there is no such run.
        Refused: the server does not let the user in any more.
        RunError: the server stayed away.
        KeyboardInterrupt: the user does not want to see more; the run goes on.
    """
    run = server.run(run_id)
    steps = Steps(names_of(server.spec(run)))
    with showing(steps, console):
        pause = _FIRST_S
        while True:
            changed = show(run, steps)
            if run.state in ENDED:
                close(run, steps)
                return run, steps
            pause = _FIRST_S if changed else min(_MOST_S, pause * 1.3)
            wait(pause)
            run = _patiently(server, run_id, console, wait)


def _patiently(server: Server, run_id: str, console: Console, wait: Callable[[float], None]) -> RunView:
    waited, refused = 0.0, False
    while True:
        try:
            return server.run(run_id)
        except Away as error:
            if waited >= _PATIENCE_S:
                raise Away(
                    f"{error}; the run goes on, look at it with: mtrec runs show {run_id} --follow"
                ) from error
            if not waited:
                console.print(f"{error}; asking on", markup=False, highlight=False, soft_wrap=True)
        except Refused:
            if refused:
                raise
            refused = True
        wait(_MOST_S)
        waited += _MOST_S


def names_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The steps of a pipeline, in the order in which they can run.

    Args:
        spec: the pipeline as `Server.spec` gives it; without it the steps of a training are named.
    """

    def walk(tasks: Mapping[str, Any]) -> Iterator[str]:
        order = TopologicalSorter({name: task.get("dependentTasks", []) for name, task in tasks.items()})
        for name in order.static_order():
            component = spec["components"][tasks[name]["componentRef"]["name"]]
            if "dag" in component:
                yield from walk(component["dag"]["tasks"])
            else:
                yield name.replace("-", "_")

    return tuple(walk(spec["root"]["dag"]["tasks"])) if spec else STEPS


def show(run: RunView, steps: Steps) -> bool:
    """Let the steps be what the server tells; whether any changed.

    The server tells all nodes of the workflow: beside each task its driver and executor, and what holds tasks
    together. A task is the node that has its name; of several, tries or rounds of a loop, one that runs or else the
    newest. What fails once its run is asked to stop was stopped: the workflow engine tells no difference.
    """
    now, changed = datetime.now(UTC), False
    known = sorted(run.tasks, key=lambda one: (one.state == "RUNNING", one.started or now))
    newest = {task.name.replace("-", "_"): task for task in known}
    for name, task in newest.items():
        step = steps.steps.get(name)
        state = _STATES.get(task.state, "waiting")
        if step is None or state == step.state:
            continue
        if state == "failed" and run.state in ("CANCELING", "CANCELED"):
            state = "stopped"
            if step.state == state:
                continue
        _take(step, task, state, steps.clock(), now)
        steps.changed(step)
        changed = True
    return changed


def close(run: RunView, steps: Steps) -> None:
    """Let the steps be what is left of a run that has ended."""
    steps.close(succeeded=run.state == "SUCCEEDED", stopped=run.state == "CANCELED", sure=True)


def _take(step: Step, task: TaskView, state: State, clock: float, now: datetime) -> None:
    started = task.started or now
    step.state = state
    step.started = clock - max(0.0, (now - started).total_seconds())
    step.seconds = max(0.0, ((task.ended or now) - started).total_seconds())
