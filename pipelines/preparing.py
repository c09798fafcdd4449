"""The data's way to a dataset, outside of a pipeline run: ingest, validate, preprocess, once for the same input."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.data.forgotten import read_forgotten
from mtrec.lineage import code_revision, data_fingerprint
from mtrec.stages.execution import run_stage
from pipelines.following import Following

_NOT_DATA = ("training", "pretraining", "distillation", "model", "gate", "search", "description")


def prepare(
    scenario: Scenario, data: Path | None, folder: Path, view: Following, forgotten: Path | None = None
) -> str:
    """Make the dataset, unless the same code has made it from the same data and settings.

    Args:
        scenario: data, features and tasks.
        data: raw data; None lets the scenario make it.
        folder: gets dataset/, validation.json, data_docs/ and quarantine/.
        view: hears of each step.
        forgotten: DVC repository with the list of forgotten users.

    Returns:
        The data version.

    Raises:
        InputError: the data is not there or does not pass, or the list of forgotten users cannot be read.
    """
    from filelock import FileLock

    wanted = {key: value for key, value in scenario.settings.items() if key not in _NOT_DATA}
    for task in wanted["tasks"].values():
        task.pop("weight")
    parts = [json.dumps(wanted, sort_keys=True), data_fingerprint(data), code_revision()]
    parts += filter(None, [read_forgotten(forgotten, scenario.name).fingerprint])
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    state, work = folder / "data.json", folder / "work"
    with FileLock(folder / "data.lock"):
        known = _read(state)
        if known.get("key") == key and (folder / "dataset").is_dir():
            view.step("data", "done (made before)")
            return str(known["data_version"])
        state.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        with view.timed("ingest"):
            said = run_stage(
                "ingest",
                inputs={"data": str(data or ""), "forgotten": str(forgotten or "")},
                outputs={"tables": work / "tables", "summary": work / "ingest.json"},
                scenario=scenario,
            )
        with view.timed("validate"):
            outputs = {name: folder / name for name in ("quarantine", "data_docs")}
            run_stage(
                "validate",
                inputs={"tables": work / "tables"},
                outputs={**outputs, "validated": work / "validated", "summary": folder / "validation.json"},
                scenario=scenario,
            )
        with view.timed("preprocess"):
            run_stage(
                "preprocess",
                inputs={"tables": work / "validated"},
                outputs={"dataset": folder / "dataset"},
                scenario=scenario,
            )
        shutil.rmtree(work, ignore_errors=True)
        with replacing_file(state) as temporary:
            temporary.write_text(json.dumps({"key": key, "data_version": said["data_version"]}), encoding="utf-8")
    return str(said["data_version"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
