import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.lease import Lease
from mtrec.stages.small import behave


@dataclass(frozen=True, kw_only=True)
class Inputs:
    model: Path
    evaluation: Path
    gate: Path
    report: Path
    validation: Path
    tracking_uri: str
    pipeline_run: str
    lineage: dict[str, Any]
    lease: str | None = None
    dvc_root: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    registration: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    behave("register")
    with Lease.from_text(inputs.lease).guarded() if inputs.lease else nullcontext():
        return _register(inputs, outputs, scenario)


def _register(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    summary = {"name": f"{scenario.name}-candidate", "version": "1", "aliases": ["champion"]}
    outputs.registration.write_text(json.dumps({**summary, "lineage": inputs.lineage}))
    return summary
