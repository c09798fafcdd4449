"""One execution of a compiled pipeline on this machine with kfp's own local runner.

The same YAML that a cluster would take is loaded and executed step by step, each step in its own process. kfp
prints a great deal; all of it goes to the run's log, which is read as it grows to show people what happens.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrec.config import Scenario
from mtrec.errors import MtrecError, RunError
from mtrec.lease import Lease, holding
from mtrec.tracking import training_lease
from pipelines.display import showing
from pipelines.kfp_session import Interrupted, Log, local_kfp, quiet, stop_children, stoppable
from pipelines.scenario_text import scenario_text
from pipelines.steps import Steps
from pipelines.workspace import Run, Workspace, shown


class StepFailed(RunError):
    """A step of the run failed. `exit_code` and `log_text` come from the step."""

    log_text = ""


@dataclass(kw_only=True)
class Job:
    """What one execution works with; `begun` first, then `execute`."""

    scenario: Scenario
    workspace: Workspace
    console: Console
    tracking_uri: str
    key: str
    """Hash over scenario, data and code: an unfinished run with the same one is taken up again."""
    names: Sequence[str]
    """Of the steps, in order."""
    broke_off: Callable[[str, str, str], None]
    """Hears a run's name, FAILED or KILLED, and why, where it broke off; MLflow errors are left out."""
    verbose: bool = False
    after_failure: bool = True
    """Whether a failed run is gone on with, too; where not, the same again is a run of its own."""
    run: Run = field(init=False)
    lease: Lease = field(init=False)
    resumed: bool = field(init=False)
    started: float = field(init=False, default_factory=time.monotonic)
    _text: str = field(init=False)
    """The scenario as JSON."""

    @property
    def seconds(self) -> float:
        """Since the job was made."""
        return time.monotonic() - self.started

    @contextmanager
    def begun(self, what: str, stem: str, data: Path | None) -> Iterator[Run]:
        """Hold the workspace, and the lease under which the scenario is trained; begin a run or go on with one.

        Args:
            what: for people who find it held: training, monitoring.
            stem: what the name of a run begins with.
            data: what the user gave.

        Raises:
            ConfigError: the scenario is too large. Nothing is written.
            RunError: another run holds the workspace.
            Held: the scenario is trained from elsewhere.
        """
        self._text = scenario_text(self.scenario)
        lease = training_lease(self.scenario.name, self.tracking_uri)
        with self.workspace.locked(), holding(lease, f"{what} of {self.scenario.name}") as self.lease:
            self.run = self.workspace.open_run(stem, self.key, after_failure=self.after_failure)
            self.resumed = bool(self.run.state)
            self.run.update(state="running", key=self.key, scenario=stem, data=str(data or ""), pid=os.getpid())
            yield self.run

    def execute(self, compiled: Path, arguments: dict[str, Any]) -> tuple[Steps, dict[str, Path]]:
        """Run the compiled pipeline.

        Args:
            compiled: the YAML file.
            arguments: beside what every pipeline takes: the scenario, where state is kept, and the lease.

        Returns:
            How the steps ended, and the pipeline's artifacts by name.

        Raises:
            StepFailed: a step failed; the message is the step's own.
            Interrupted: Ctrl-C or SIGTERM; running steps were stopped.
        """
        run, console = self.run, self.console
        given = {
            "scenario": self._text,
            "pipeline_run": run.name,
            "tracking_uri": self.tracking_uri,
            "dvc_root": str(self.workspace.dvc_root),
            "checkpoints": str(self.workspace.checkpoints / self.key),
            "text_cache": str(self.workspace.texts),
            "lease": self.lease.as_text(),
        }
        again = "Going on with run" if self.resumed else "Run"
        console.print(f"{again} {run.name}, log in {shown(run.log)}", markup=False, highlight=False, soft_wrap=True)
        echo = (lambda line: console.print(line, markup=False, highlight=False)) if self.verbose else None
        steps = Steps(self.names)
        with run.log.open("a", encoding="utf-8") as file, showing(steps, console):
            log = Log(file, steps, echo)
            try:
                with quiet(log), local_kfp(run, self.workspace), stoppable():
                    outputs = _call(compiled, given | arguments)
            except KeyboardInterrupt as error:
                stop_children()
                steps.close(succeeded=False, stopped=True)
                self._end("interrupted", "KILLED", "stopped")
                raise Interrupted("stopped; what is finished is kept") from error
            except Exception as error:
                steps.close(succeeded=False)
                explained = _explain(error, steps, run, log)
                self._end("failed", "FAILED", str(explained))
                raise explained from error
            steps.close(succeeded=True)
        return steps, {name: Path(artifact.path) for name, artifact in outputs.items()}

    def _end(self, state: str, status: str, why: str) -> None:
        """Let run.json and MLflow know, the latter where its store is there; a resumed run takes it up again."""
        self.run.update(state=state)
        database = Path(self.tracking_uri.removeprefix("sqlite:///"))
        if not self.tracking_uri.startswith("sqlite:///") or database.exists():
            with contextlib.suppress(MtrecError):
                self.broke_off(self.run.name, status, why)


def _call(compiled: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    from kfp import components

    pipeline = components.load_component_from_file(str(compiled))
    outputs: dict[str, Any] = dict(pipeline(**arguments).outputs)
    return outputs


def _explain(error: Exception, steps: Steps, run: Run, log: Log) -> StepFailed:
    name = steps.failed.name if steps.failed else "the workflow"
    if steps.failure is not None and steps.failure.expected:
        explained = StepFailed(as_given(steps.failure.message, run).replace(f"{Path.cwd()}{os.sep}", ""))
    elif steps.failure is not None:
        explained = StepFailed(f"{name} failed: {steps.failure.message}; the whole story is in {shown(run.log)}")
    elif steps.failed:
        explained = StepFailed(
            f"{name} ended without a word (killed? memory is the usual reason); see the end of {shown(run.log)}"
        )
    else:
        explained = StepFailed(f"kfp's local runner failed: {type(error).__name__}: {error}; see {shown(run.log)}")
    if steps.failure is not None:
        explained.exit_code = steps.failure.exit_code
    explained.log_text = steps.failure.traceback if steps.failure else "\n".join(log.tail)
    return explained


def as_given(message: str, run: Run) -> str:
    """A step's message that is about the ingested tables, with the raw data that the user gave in their place."""
    state = run.state
    given = state.get("data") or f"scenario '{state.get('scenario')}'"
    tables = rf"{re.escape(str(run.outputs))}/[^/]+/ingest-data/tables(?=: )"
    return re.sub(rf"\A{tables}", lambda _: str(given), message)
