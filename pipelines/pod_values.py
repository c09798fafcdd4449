"""What people may give for the pods of a run, so that what could only fail there is refused before it is sent."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipelines.cluster_values import Namespace, Uri

_PATH = r"/[^\x00-\x1f\x7f]*"
_PATH_TEXT = "an absolute path as the pods see it"
_VERSION = r"dvc:([0-9a-f]{4,32}|[0-9a-f]{32}\.dir)"

PATH: tuple[Any, str] = (Annotated[str, Field(pattern=f"^{_PATH}$")], _PATH_TEXT)
"""A type for `check_text`, and what is expected; so are all others."""
DATA: tuple[Any, str] = (
    Annotated[str, Field(pattern=f"^({_PATH}|{_VERSION})$")],
    f"{_PATH_TEXT}, or dvc: and a version, of which 4 hexadecimal digits are enough",
)
TRACKING: tuple[Any, str] = (Uri, "a URI, as http://mlflow:5000")
ROOT: tuple[Any, str] = (Uri, "a URI, as s3://bucket/path")
PAGES: tuple[Any, str] = (Annotated[str, Field(pattern=r"^\S+$")], "a URL, as https://kubeflow.example.com")
NAMESPACE: tuple[Any, str] = (Namespace, "the name of a namespace: a to z, 0 to 9 and - within")
EXPERIMENT: tuple[Any, str] = (Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")], "a name of one line")
