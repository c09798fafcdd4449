import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.stages.small import behave


@dataclass(frozen=True, kw_only=True)
class Inputs:
    tables: Path


@dataclass(frozen=True, kw_only=True)
class Outputs:
    validated: Path
    quarantine: Path
    data_docs: Path
    summary: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    behave("validate")
    for folder in (outputs.validated, outputs.quarantine, outputs.data_docs):
        folder.mkdir(parents=True)
    (outputs.validated / "text").write_text((inputs.tables / "text").read_text())
    summary = {
        "success": True,
        "tables": {"items": {"input": 3, "good": 2, "quarantined": 1, "reasons": {"dangling": 1}}},
        "expectations": [],
        "warnings": ["items.price: 1 of 3 is zero"],
        "failures": [],
    }
    outputs.summary.write_text(json.dumps(summary))
    return summary
