"""Run the compiled training pipeline on this machine with kfp's own local runner.

The same YAML that a cluster would take is loaded and executed step by step, each step in its own process. kfp
prints a great deal; all of it goes to the run's log, which is read as it grows to show people what happens.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrec.config import Scenario
from mtrec.data.forgotten import read_forgotten
from mtrec.errors import ConfigError, MtrecError, RunError
from mtrec.lineage import code_revision, data_fingerprint
from mtrec.stages.execution import STAGES
from mtrec.tracking import finish_run, pipeline_run, resolve_uri
from pipelines.compiling import compile_training
from pipelines.display import showing
from pipelines.kfp_session import Interrupted, Log, local_kfp, quiet, stop_children, stoppable
from pipelines.preflight import preflight
from pipelines.results import RunResult, collect
from pipelines.steps import Steps
from pipelines.workspace import Run, Workspace, shown

STEPS = tuple(f"{stage}_{'data' if stage in ('ingest', 'validate', 'preprocess') else 'model'}" for stage in STAGES)
LOCAL_IMAGE = f"local/python:{platform.python_version()}"
"""What the lineage names as image when the steps run outside a container."""
_MAX_SCENARIO = 100_000


class StepFailed(RunError):
    """A step of the run failed. `exit_code` and `log_text` come from the step."""

    log_text = ""


def run_training(
    scenario: Scenario,
    *,
    workspace: Workspace,
    console: Console,
    data: Path | None = None,
    tracking_uri: str | None = None,
    image: str = LOCAL_IMAGE,
    cache: bool = True,
    verbose: bool = False,
) -> RunResult:
    """Run the whole training pipeline here.

    Args:
        scenario: what to learn from what.
        workspace: where state is kept.
        console: where people watch.
        data: raw data; None lets the scenario make it.
        tracking_uri: MLflow's tracking URI; None means MLFLOW_TRACKING_URI, else the workspace's SQLite file.
        image: container image to name in the lineage.
        cache: whether validate, preprocess and the finished training may be taken from an earlier run on equal
            data and code.
        verbose: show the whole log on the console.

    Returns:
        Evaluation, gate, registration and where the report is. A refusal by the gate is a result, no error.

    Raises:
        InputError: the data is not there, the scenario is too large, or what `preflight` tells before the run.
        StepFailed: a step failed; the message is the step's own.
        Interrupted: Ctrl-C or SIGTERM; running steps were stopped.
        RunError: another run holds the workspace, MLflow cannot be used, or the champion's files are gone.
    """
    text = json.dumps(scenario.as_dict(), separators=(",", ":"))
    if len(text) > _MAX_SCENARIO:
        raise ConfigError(f"scenario {scenario.name}: {len(text)} characters as JSON, at most {_MAX_SCENARIO}")
    uri = resolve_uri(tracking_uri)
    preflight(scenario, data, uri)
    data = data.resolve() if data else None
    revision = code_revision()
    key = _key(scenario.digest, data_fingerprint(data), revision)
    forgotten = read_forgotten(workspace.dvc_root, scenario.name).fingerprint
    if forgotten:  # a training state that has seen them is not gone on with
        key = _key(key, forgotten)
    with workspace.locked():
        run = workspace.open_run(scenario.name, key)
        again = "Going on with run" if run.state else "Run"
        if not cache and not run.state:
            shutil.rmtree(workspace.checkpoints / key, ignore_errors=True)
        started = time.monotonic()
        run.update(state="running", key=key, scenario=scenario.name, data=str(data or ""), pid=os.getpid())
        compiled = compile_training(
            run.folder / "pipeline.yaml", image=image, cache_key=key if cache else _key(key, str(time.time_ns()))
        )
        arguments = {
            "scenario": text,
            "data": str(data or ""),
            "code_revision": revision,
            "pipeline_run": run.name,
            "tracking_uri": uri,
            "dvc_root": str(workspace.dvc_root),
            "checkpoints": str(workspace.checkpoints / key),
            "text_cache": str(workspace.texts),
        }
        console.print(f"{again} {run.name}, log in {shown(run.log)}", markup=False, highlight=False, soft_wrap=True)
        echo = (lambda line: console.print(line, markup=False, highlight=False)) if verbose else None
        end = functools.partial(_end_in_mlflow, scenario, run, uri)
        artifacts = _execute(compiled, arguments, run, workspace, console, echo, end)
        result = collect(run, artifacts, tracking_uri=uri, seconds=time.monotonic() - started)
        run.update(state="finished", verdict=result.gate["verdict"], seconds=round(result.seconds, 1))
        workspace.prune()
    return result


def _execute(
    compiled: Path,
    arguments: dict[str, Any],
    run: Run,
    workspace: Workspace,
    console: Console,
    echo: Callable[[str], None] | None,
    end: Callable[[str], None],
) -> dict[str, Path]:
    """Run the compiled pipeline and return its artifacts by name; `end` hears how a run that broke off ended."""
    steps = Steps(STEPS)
    with run.log.open("a", encoding="utf-8") as file, showing(steps, console):
        log = Log(file, steps, echo)
        try:
            with quiet(log), local_kfp(run, workspace), stoppable():
                outputs = _call(compiled, arguments)
        except KeyboardInterrupt as error:
            stop_children()
            steps.close(succeeded=False, stopped=True)
            run.update(state="interrupted")
            end("KILLED")
            raise Interrupted("stopped; what is finished is kept") from error
        except Exception as error:
            steps.close(succeeded=False)
            run.update(state="failed")
            end("FAILED")
            raise _explain(error, steps, run, log) from error
        steps.close(succeeded=True)
    artifacts = {name: Path(artifact.path) for name, artifact in outputs.items()}
    registered = sorted(run.outputs.glob("*/register-model/registration"), key=lambda p: p.stat().st_mtime_ns)
    if registered and steps.steps["register_model"].state == "done":
        artifacts["registration"] = registered[-1]
    return artifacts


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


def _end_in_mlflow(scenario: Scenario, run: Run, tracking_uri: str, status: str) -> None:
    """Let MLflow know that the run broke off, where it knows the run at all; a resumed run takes it up again."""
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    if tracking_uri.startswith("sqlite:///") and not database.exists():
        return
    with contextlib.suppress(MtrecError):
        finish_run(pipeline_run(scenario, run.name, tracking_uri=tracking_uri), status)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
