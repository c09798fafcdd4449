"""What is stored for a version beside its model: the files of its judgement, artifacts of an MLflow run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.errors import RunError
from mtrec.tracking.connection import as_global, connected, one_line, resolve_uri
from mtrec.tracking.lookup import choose

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FOLDER = "evaluation"
"""Folder among the run's artifacts."""
FILES = {
    "evaluation": "evaluation.json",
    "gate": "gate.json",
    "report": "report.html",
    "validation": "validation.json",
}
JUDGED_IN = "judged_in"
"""Tag of a version: the MLflow run that holds its newest judgement."""


def read_evaluation(reference: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """The evaluation.json that a version was registered with.

    Args:
        reference: as in `lookup.show_model`.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        ModelError: no such model or version.
        RunError: MLflow cannot be used, or the file is gone or damaged.
    """
    with connected(resolve_uri(tracking_uri)) as client, tempfile.TemporaryDirectory() as temporary:
        version = choose(client, reference)
        path = fetch(client, version, "evaluation", Path(temporary))
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{reference}: its evaluation.json is damaged ({one_line(error)})") from error
    return found


def fetch(client: MlflowClient, version: ModelVersion, name: str, to: Path) -> Path:
    """Fetch one of `FILES` of a version.

    Raises:
        RunError: it is not there.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    run, file = judged_in(version), f"{FOLDER}/{FILES[name]}"
    try:
        with as_global(client.tracking_uri):
            return Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path=file, dst_path=str(to)))
    except (OSError, MlflowException) as error:
        raise RunError(
            f"{version.name}/{version.version}: {file} is not among the artifacts of MLflow run {run or 'none'}"
        ) from error


def judged_in(version: ModelVersion) -> str:
    """The MLflow run with the files of a version's judgement."""
    return str(version.tags.get(JUDGED_IN) or version.tags.get("run_id") or version.run_id or "")
