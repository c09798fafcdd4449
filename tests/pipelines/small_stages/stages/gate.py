import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.stages.small import behave


@dataclass(frozen=True, kw_only=True)
class Inputs:
    evaluation: Path
    losses: Path
    validation: Path
    lineage: str
    tracking_uri: str | None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    gate: Path
    report: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    behave("gate")
    verdict = "fail" if scenario.gate.floors.get("rating.rmse") == 0.5 else "pass"
    rule = {
        "rule": "rating.rmse must be at most 0.5",
        "task": "rating",
        "metric": "rmse",
        "kind": "floor",
        "value": 0.93,
        "threshold": 0.5,
        "verdict": verdict,
        "why": "0.93 > 0.5",
    }
    outputs.gate.write_text(json.dumps({"verdict": verdict, "rules": [rule], "champion": None}))
    outputs.report.write_text(f"<html>{inputs.lineage}</html>")
    return {"verdict": verdict}
