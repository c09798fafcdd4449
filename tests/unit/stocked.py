"""A registry with something to decide about."""

import copy
import json
import shutil
from pathlib import Path

from mtrec import tracking
from mtrec.config import Scenario
from tests.unit.conftest import EVALUATION, GATE

LINEAGE = {"data_version": "0" * 32 + ".dir", "parameters_hash": "123", "image": "local"}
NEWER, OTHER, REFUSED = (f"ecommerce-candidate/{version}" for version in (2, 3, 4))


def stock(folder: Path, prepared_store: Path, model: Path, scenario: Scenario) -> Path:
    """Register a first champion, two candidates that were compared with it, and one that the gate refused.

    Returns:
        The SQLite file of the store.
    """
    shutil.copy(prepared_store, folder / "mlflow.db")
    (folder / "report.html").write_text("<p>A report.</p>")
    for number, (champion, verdict) in enumerate((("", "pass"), ("1", "pass"), ("1", "pass"), ("1", "fail"))):
        measured = copy.deepcopy(EVALUATION)
        measured["champion"] = {"name": "ecommerce", "version": champion} if champion else None
        measured["tasks"]["rating"]["metrics"]["rmse"]["after"] -= number / 100
        (folder / "evaluation.json").write_text(json.dumps(measured))
        (folder / "gate.json").write_text(json.dumps(GATE | {"verdict": verdict}))
        tracking.register(
            model,
            scenario=scenario,
            evaluation=folder / "evaluation.json",
            gate=folder / "gate.json",
            report=folder / "report.html",
            lineage=LINEAGE | {"code_revision": str(number), "pipeline_run": str(number)},
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
        )
    return folder / "mlflow.db"
