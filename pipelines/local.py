"""Training and monitoring on this machine: the compiled pipelines, executed by kfp's own local runner."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from mtrec.config import Scenario
from mtrec.data.forgotten import read_forgotten
from mtrec.errors import InputError, ModelError
from mtrec.lineage import code_revision, data_fingerprint
from mtrec.stages.execution import STAGES
from mtrec.tracking import (
    NO_CHAMPION,
    check_champion,
    check_database,
    finish_run,
    log_outcome,
    pipeline_run,
    resolve_uri,
)
from pipelines.compiling import compile_monitoring, compile_training
from pipelines.job import Job
from pipelines.placing import Placing
from pipelines.preflight import preflight
from pipelines.results import RunResult, collect
from pipelines.workspace import Run, Workspace

STEPS = tuple(f"{stage}_{'data' if stage in ('ingest', 'validate', 'preprocess') else 'model'}" for stage in STAGES)
WATCHING = ("monitor_data", "decide_retraining", *STEPS, "record_outcome")
LOCAL_IMAGE = f"local/python:{platform.python_version()}"
"""What the lineage names as image when the steps run outside a container."""
_MADE_BY = {
    "validation": "validate-data/summary",
    "data_docs": "validate-data/data_docs",
    "quarantine": "validate-data/quarantine",
    "losses": "fine-tune-model/losses",
    "evaluation": "evaluate-model/evaluation",
    "gate": "gate-model/gate",
    "report": "gate-model/report",
    "registration": "register-model/registration",
}
"""Where a run's artifacts lie below its outputs."""


@dataclass(frozen=True, kw_only=True)
class Monitored:
    """The end of a monitoring run."""

    run: Run
    decision: dict[str, Any]
    """What the stage decide tells."""
    page: Path
    training: RunResult | None
    """None where nothing was trained."""


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
        RunError: another run holds the workspace or trains the scenario, MLflow cannot be used, or the champion's
            files are gone.
    """
    uri = resolve_uri(tracking_uri)
    preflight(scenario, data, uri)
    data = data.resolve() if data else None
    revision = code_revision()
    key = _key(scenario.digest, data_fingerprint(data), revision)
    forgotten = read_forgotten(workspace.dvc_root, scenario.name).fingerprint
    if forgotten:  # a training state that has seen them is not gone on with
        key = _key(key, forgotten)

    def broke_off(name: str, status: str, why: str) -> None:
        finish_run(pipeline_run(scenario, name, tracking_uri=uri), status)

    job = Job(
        scenario=scenario,
        workspace=workspace,
        console=console,
        tracking_uri=uri,
        key=key,
        names=STEPS,
        broke_off=broke_off,
        verbose=verbose,
    )
    with job.begun("training", scenario.name, data) as run:
        if not cache and not job.resumed:
            shutil.rmtree(workspace.checkpoints / key, ignore_errors=True)
        cache_key = key if cache else _key(key, str(time.time_ns()))
        compiled = compile_training(run.folder / "pipeline.yaml", Placing(image=image, cache_key=cache_key))
        steps, artifacts = job.execute(compiled, {"data": str(data or ""), "code_revision": revision})
        if steps.steps["register_model"].state == "done":
            artifacts["registration"] = _made(run, _MADE_BY["registration"])
        result = collect(run, artifacts, tracking_uri=uri, seconds=job.seconds)
        run.update(state="finished", verdict=result.gate["verdict"], seconds=round(result.seconds, 1))
        workspace.prune()
    return result


def run_monitoring(
    scenario: Scenario,
    drop: Path,
    *,
    workspace: Workspace,
    console: Console,
    tracking_uri: str | None = None,
    image: str = LOCAL_IMAGE,
    now: str = "",
    verbose: bool = False,
) -> Monitored:
    """Run the monitoring pipeline here: look at a data drop, decide, and retrain where the decision says so.

    Args:
        scenario: what the champion was trained for.
        drop: a data drop, or a folder of drops.
        workspace: where state is kept.
        console: where people watch.
        tracking_uri: see `run_training`.
        image: container image to name in the lineage.
        now: ISO time that counts as the present; the clock where empty.
        verbose: show the whole log on the console.

    Returns:
        The decision, and what training gave. Skipping is a result, and so is a refusal by the gate.

    Raises:
        InputError: the drop is not there.
        ModelError: there is no champion yet.
        StepFailed: a step failed; the message is the step's own.
        Interrupted: Ctrl-C or SIGTERM; running steps were stopped.
        RunError: another run holds the workspace or trains the scenario, or MLflow cannot be used.
    """
    uri = resolve_uri(tracking_uri)
    if not drop.exists():
        raise InputError(f"--data {drop}: no such file or folder")
    _check_champion(scenario, uri)
    drop = drop.resolve()
    revision = code_revision()
    key = _key(scenario.digest, data_fingerprint(drop), revision, "monitoring", now)

    def broke_off(name: str, status: str, why: str) -> None:
        log_outcome(scenario, name, why, uri)  # of a failure the exit task hears no more than which step it was

    job = Job(
        scenario=scenario,
        workspace=workspace,
        console=console,
        tracking_uri=uri,
        key=key,
        names=WATCHING,
        broke_off=broke_off,
        verbose=verbose,
        after_failure=False,  # each failed training counts as an attempt; the next takes up its training state
    )
    with job.begun("monitoring", f"{scenario.name}-monitoring", drop) as run:
        # the merged data depends on the champion too: nothing is taken from the cache
        compiled = compile_monitoring(
            run.folder / "pipeline.yaml", Placing(image=image, cache_key=_key(key, str(time.time_ns())))
        )
        steps, _ = job.execute(compiled, {"drop": str(drop), "code_revision": revision, "now": now})
        kept = workspace.drift / scenario.name
        for older in ("tables", "validation"):  # what `mtrec drift check` made of another look
            shutil.rmtree(kept / older, ignore_errors=True)
        for older in ("observed.json", "evidently.html"):
            (kept / older).unlink(missing_ok=True)
        for made, copy in (("decision", "decision.json"), ("report", "drift.html")):
            for folder in (run.folder, kept):
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(_made(run, f"decide-retraining/{made}"), folder / copy)
        decision = json.loads((run.folder / "decision.json").read_text(encoding="utf-8"))
        result = None
        if steps.steps["gate_model"].state == "done":
            names = [n for n in _MADE_BY if n != "registration" or steps.steps["register_model"].state == "done"]
            artifacts = {name: _made(run, _MADE_BY[name]) for name in names}
            result = collect(run, artifacts, tracking_uri=uri, seconds=job.seconds)
        run.update(state="finished", verdict=decision["verdict"], seconds=round(job.seconds, 1))
        workspace.prune()
    return Monitored(run=run, decision=decision, page=run.folder / "drift.html", training=result)


def _check_champion(scenario: Scenario, uri: str) -> None:
    database = Path(uri.removeprefix("sqlite:///"))
    there = not uri.startswith("sqlite:///") or database.exists()
    if there:
        check_database(uri)
    if not there or not check_champion(scenario.name, uri):
        raise ModelError(NO_CHAMPION.format(scenario.name))


def _made(run: Run, artifact: str) -> Path:
    """The newest artifact of that step and name; a run that was taken up again may have older ones."""
    return max(run.outputs.glob(f"*/{artifact}"), key=lambda path: path.stat().st_mtime_ns)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
