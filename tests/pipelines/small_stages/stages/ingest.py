import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.stages.small import behave


@dataclass(frozen=True, kw_only=True)
class Inputs:
    data: str | None
    dvc_root: Path | None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    tables: Path
    summary: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    behave("ingest")
    outputs.tables.mkdir(parents=True)
    data = inputs.data or ""
    text = data if data.startswith("dvc:") else Path(data).read_text() if data else "simulated"
    (outputs.tables / "text").write_text(text)
    summary = {"num_users": 1, "num_items": 1, "num_interactions": 1, "data_version": f"{text.strip()}.dir"}
    outputs.summary.write_text(json.dumps(summary))
    return summary
