import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.stages.small import behave


@dataclass(frozen=True, kw_only=True)
class Inputs:
    drop: str
    dvc_root: Path | None
    tracking_uri: str | None
    now: str | None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    observed: Path
    tables: Path
    validation: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    behave("monitor")
    told = {
        "scenario": scenario.name,
        "now": inputs.now,
        "champion": {
            "name": scenario.name,
            "version": "1",
            "data_version": "1.dir",
            "until": "2025-01-01T00:00:00",
        },
        "data": {"drop": inputs.drop, "version": "2.dir", "new_rows": 5000, "changed": None, "problems": []},
        "windows": [],
    }
    outputs.observed.write_text(json.dumps(told))
    outputs.tables.mkdir()
    return told
