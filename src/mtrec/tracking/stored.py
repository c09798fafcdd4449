"""What is stored for a version: its model's files, and the files of its judgement in an MLflow run, with digests.

At registration the sha256 of each file of the judgement becomes a tag of the version. Of the model's files, of
which there are many, a list with the sha256 of each becomes an artifact, and the sha256 of that list a tag. The
caches of Python are left out: loading a model from a local store writes them there.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

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
"""The files of a judgement."""
MODEL_FILES = "model_files.json"
"""The list of the model's files, in the same folder."""
SHA256 = "sha256."
"""Tags of a version: sha256.model, sha256.gate …"""
JUDGED_IN = "judged_in"
"""Tag of a version: the MLflow run that holds its judgement."""
_NOT_LISTED = {"registered_model_meta"}
"""MLflow adds this file to a version that it downloads."""


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
        path = fetch(client, judged_in(version), FILES["evaluation"], Path(temporary))
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{reference}: its evaluation.json is damaged ({one_line(error)})") from error
    return found


def fetch(client: MlflowClient, run_id: str, file: str, to: Path) -> Path:
    """Fetch a file of `FOLDER` among a run's artifacts.

    Raises:
        RunError: it is not there.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    path = f"{FOLDER}/{file}"
    try:
        with as_global(client.tracking_uri):
            return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=str(to)))
    except (OSError, MlflowException) as error:
        raise RunError(f"{path} is not among the artifacts of MLflow run {run_id or 'none'}") from error


def judged_in(version: ModelVersion) -> str:
    """The MLflow run with the files of a version's judgement."""
    return str(version.tags.get(JUDGED_IN) or made_in(version))


def made_in(version: ModelVersion) -> str:
    """The MLflow run that made a version."""
    return str(version.run_id or version.tags.get("run_id") or "")


@contextmanager
def model_folder(client: MlflowClient, location: str) -> Iterator[Path]:
    """The stored files of a model: where they are, or fetched for the time of the block.

    Raises:
        RunError: they are not there.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if location.startswith("file:"):
        folder = Path(url2pathname(urlparse(location).path))
        if not folder.is_dir():
            raise RunError(f"{folder} is gone")
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with as_global(client.tracking_uri):
                path = mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=temporary)
        except (OSError, MlflowException) as error:
            raise RunError(f"{location} cannot be fetched ({one_line(error)})") from error
        yield Path(path)


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Each file of a model folder with its sha256."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _NOT_LISTED)
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in files
        if "__pycache__" not in path.relative_to(folder).parts
    }


def listed(digests: Mapping[str, str]) -> str:
    """The list of a model's files as text."""
    return json.dumps(dict(sorted(digests.items())), indent=1, ensure_ascii=False) + "\n"


def text_digest(text: str) -> str:
    """The sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
