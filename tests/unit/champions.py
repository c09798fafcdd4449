"""A champion for tests: registered in a real MLflow store, its data in a real DVC repository."""

import json
from pathlib import Path

from mtrec.config import Scenario
from mtrec.data.versioning import push
from mtrec.tracking import register
from tests.unit.conftest import EVALUATION, GATE


def register_champion(
    scenario: Scenario, model: Path, tables: Path, *, uri: str, dvc: Path, evaluation: Path | None = None
) -> str:
    """Register a model folder as the scenario's first champion; returns its data version."""
    folder = model.parent / "judged"
    folder.mkdir(exist_ok=True)
    (folder / "gate.json").write_text(json.dumps(GATE))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "report.html").write_text("<p>A report.</p>")
    version = push(tables, dvc)
    names = ("code_revision", "parameters_hash", "image", "pipeline_run")
    register(
        model,
        scenario=scenario,
        evaluation=evaluation or folder / "evaluation.json",
        gate=folder / "gate.json",
        report=folder / "report.html",
        lineage={"data_version": version, **dict.fromkeys(names, "x")},
        tracking_uri=uri,
    )
    return version
