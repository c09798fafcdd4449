"""Stage: a judged candidate → a version in MLflow's registry, and the first champion."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.data.versioning import repository
from mtrec.errors import RunError
from mtrec.lease import Lease, of_run
from mtrec.progress import report as report_progress
from mtrec.tracking import approve, register


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is registered, and where."""

    model: Path
    """Folder with safetensors weights and what serving needs."""
    evaluation: Path
    gate: Path
    report: Path
    validation: Path | None = None
    """Summary of the validate stage."""
    tracking_uri: str | None
    pipeline_run: str
    lineage: dict[str, str]
    """data_version, code_revision, parameters_hash and image."""
    lease: str | None = None
    """The lease under which the run trains, see `mtrec.lease.Lease.as_text`: who has lost it registers nothing."""
    dvc_root: Path | None = None
    """DVC repository with the list of forgotten users, by default the one around the working directory: what may
    contain any is not approved by setting."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    registration: Path
    """JSON: the registered name, version and aliases."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Register the candidate, the same lineage twice as one version; approve it where gate.auto_approve says so.

    Returns:
        The registration: name, version, created, champion, champion_version, aliases, run_id, tracking_uri; with
        gate.auto_approve also approval, which says what came of it.

    Raises:
        ModelError: the model folder is not whole, or holds pickled files.
        RunError: the lineage is incomplete, MLflow cannot be used, or another run has taken over.
    """
    report_progress("register", None, "storing the model in MLflow")
    with ExitStack() as held:
        if inputs.lease:
            held.enter_context(of_run(inputs.lease, inputs.pipeline_run, f"training of {scenario.name}"))
            held.enter_context(Lease.join(inputs.lease, inputs.pipeline_run).guarded())
        summary = _register(inputs, scenario)
    with replacing_file(outputs.registration) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    report_progress("register", 1.0, f"{summary['name']} version {summary['version']}")
    return summary


def _register(inputs: Inputs, scenario: Scenario) -> dict[str, Any]:
    registration = register(
        inputs.model,
        scenario=scenario,
        evaluation=inputs.evaluation,
        gate=inputs.gate,
        report=inputs.report,
        validation=inputs.validation,
        lineage={**inputs.lineage, **_parent(inputs.model), "pipeline_run": inputs.pipeline_run},
        tracking_uri=inputs.tracking_uri,
    )
    summary = {**asdict(registration), "aliases": list(registration.aliases)}
    if scenario.gate.auto_approve and not registration.champion:
        summary |= _approve(f"{registration.name}/{registration.version}", inputs)
    return summary


def _approve(candidate: str, inputs: Inputs) -> dict[str, Any]:
    """Approve by setting; a refusal leaves the candidate to people and is no failure of the run."""
    report_progress("register", None, "approving it, as gate.auto_approve is true")
    try:
        done = approve(
            candidate,
            who="mtrec",
            why="gate.auto_approve is true",
            tracking_uri=inputs.tracking_uri,
            dvc_root=inputs.dvc_root or repository(),
        )
    except RunError as error:
        return {"approval": f"left to people: {error}"}
    return {
        "champion": True,
        "champion_version": done.champion.partition("/")[2],
        "approval": f"approved by gate.auto_approve, before: {done.before}",
    }


def _parent(model: Path) -> dict[str, str]:
    """What the lineage of a student or of a warm start has beside: the hash of its parent, as champions change."""
    path = model / "training.json"
    training = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if student := training.get("distillation"):
        return {"teacher": student["digest"]}
    if start := training.get("started_from"):
        return {"started_from": start["champion"], "started_from_sha256": start["digest"]}
    return {}
