"""A registry with something to decide about."""

import copy
import json
import shutil
from pathlib import Path

from mtrec import tracking
from mtrec.config import Scenario
from tests.unit.conftest import EVALUATION, GATE

LINEAGE = {"data_version": "0" * 32 + ".dir", "parameters_hash": "123", "image": "local"}
KINDS = (("", "pass"), ("1", "pass"), ("1", "pass"), ("1", "fail"))
"""The champion that each was compared with, and its verdict."""
VALIDATION = {"success": True, "tables": {"users": {"quarantined": 0}, "items": {"quarantined": 3}}}
NEWER, OTHER, REFUSED = (f"ecommerce-candidate/{version}" for version in (2, 3, 4))


def stock(
    folder: Path, prepared_store: Path, model: Path, scenario: Scenario, number: int = 4, data_version: str = ""
) -> Path:
    """Register a first champion, two candidates that were compared with it, and one that the gate refused.

    Args:
        folder: gets the store and what it registers.
        prepared_store: an empty SQLite store.
        model: the model folder of all of them.
        scenario: names the models.
        number: how many of the four.
        data_version: goes into the lineage.

    Returns:
        The SQLite file of the store.
    """
    shutil.copy(prepared_store, folder / "mlflow.db")
    (folder / "report.html").write_text("<p>A report.</p>")
    (folder / "validation.json").write_text(json.dumps(VALIDATION))
    lineage = LINEAGE | ({"data_version": data_version} if data_version else {})
    for index, (champion, verdict) in enumerate(KINDS[:number]):
        measured = copy.deepcopy(EVALUATION)
        measured["champion"] = {"name": "ecommerce", "version": champion} if champion else None
        measured["tasks"]["rating"]["metrics"]["rmse"]["after"] -= index / 100
        (folder / "evaluation.json").write_text(json.dumps(measured))
        (folder / "gate.json").write_text(json.dumps(GATE | {"verdict": verdict}))
        tracking.register(
            model,
            scenario=scenario,
            evaluation=folder / "evaluation.json",
            gate=folder / "gate.json",
            report=folder / "report.html",
            validation=folder / "validation.json",
            lineage=lineage | {"code_revision": str(index), "pipeline_run": str(index)},
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
        )
    return folder / "mlflow.db"
