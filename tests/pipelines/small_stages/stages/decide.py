import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.lease import Lease
from mtrec.stages.small import behave
from mtrec.tracking import begin_training, log_decision


@dataclass(frozen=True, kw_only=True)
class Inputs:
    observed: Path
    tables: Path
    dvc_root: Path
    tracking_uri: str
    code_revision: str
    image: str
    pipeline_run: str
    lease: str


@dataclass(frozen=True, kw_only=True)
class Outputs:
    decision: Path
    report: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Retrain where the drop's name says so; the lease of the run must be held."""
    behave("decide")
    told = json.loads(inputs.observed.read_text())
    told |= {"verdict": "retrain" if told["data"]["drop"].endswith("drifted") else "skip", "reason": "as told"}
    told |= {"rules": [], "key": "a-key"}
    with Lease.from_text(inputs.lease).guarded():
        outputs.decision.write_text(json.dumps(told))
    outputs.report.write_text("<p>drift</p>")
    if told["verdict"] == "retrain":
        begin_training(scenario, inputs.pipeline_run, key="a-key", why="as told", tracking_uri=inputs.tracking_uri)
    files = {"decision.json": outputs.decision, "drift.html": outputs.report}
    log_decision(scenario, inputs.pipeline_run, told, files, inputs.tracking_uri)
    return told
