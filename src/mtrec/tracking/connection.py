"""Which MLflow to talk to, and one door to it.

Without a URI and without MLFLOW_TRACKING_URI, MLflow is embedded: `.mtrec/mlflow.db` (SQLite) and
`.mtrec/mlartifacts` under the working directory.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.addresses import without_login
from mtrec.errors import InputError, RunError, Unavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

EMBEDDED = "sqlite:///.mtrec/mlflow.db"
_SQLITE = "sqlite:///"
_VARIABLE = "MLFLOW_TRACKING_URI"
_PROBES = 3


def resolve_uri(tracking_uri: str | None = None) -> str:
    """Say which MLflow is used: the URI given, else MLFLOW_TRACKING_URI, else the embedded one.

    Returns:
        The URI; a relative SQLite path is made absolute, so that it means the same in any process.
    """
    uri = tracking_uri or os.environ.get(_VARIABLE) or EMBEDDED
    if uri.startswith(_SQLITE) and not uri.startswith(f"{_SQLITE}/"):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute()}"
    return uri


def artifact_root(uri: str) -> str | None:
    """Where the experiments of an SQLite store keep artifacts: `mlartifacts` beside the file; None elsewhere."""
    database = database_of(uri)
    return None if database is None else (database.parent / "mlartifacts").as_uri()


@contextmanager
def connected(uri: str) -> Iterator[MlflowClient]:
    """Use MLflow at a URI.

    MLflow's chatter and bars on stderr are silenced, and its usage reporting is off unless
    MLFLOW_DISABLE_TELEMETRY says otherwise. Files come and go through the server: by itself MLflow's client gets
    those of an S3 bucket past it, from an address that only the server may be able to reach; the variables
    MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD and _UPLOAD allow it. Blocks may be nested.

    Raises:
        InputError: MLflow knows no such kind of URI.
        Unavailable: MLflow cannot be reached, or fails.
        RunError: MLflow refuses, or the SQLite file is none; one line that names the URI
            without a password.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    import requests
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
    from sqlalchemy.exc import SQLAlchemyError

    if (database := database_of(uri)) is not None:
        check_database(uri)
        database.parent.mkdir(parents=True, exist_ok=True)
    elif uri.startswith(("http://", "https://")):
        _probe(uri)
    with _quiet():
        try:
            yield MlflowClient(tracking_uri=uri)
        except UnsupportedModelRegistryStoreURIException as error:
            known = ", ".join(sorted(filter(None, error.supported_uri_schemes)))
            raise InputError(
                f"MLflow at {without_login(uri)}: unknown kind of address (known: {known}). Correct --tracking-uri "
                f"or {_VARIABLE}; without both, {EMBEDDED.removeprefix(_SQLITE)} is used"
            ) from error
        except MlflowException as error:
            if not is_denied(error):
                kind = Unavailable if error.get_http_status_code() >= 500 else RunError
                raise kind(f"MLflow at {without_login(uri)}: {one_line(error)}") from error
            user = os.environ.get("MLFLOW_TRACKING_USERNAME", "without a name")
            raise RunError(
                f"MLflow at {without_login(uri)}: permission denied to user '{user}'; let somebody do it who may, "
                "or ask for the permission"
            ) from error
        except (SQLAlchemyError, requests.RequestException) as error:
            raise Unavailable(f"MLflow at {without_login(uri)}: {one_line(error)}") from error


@contextmanager
def as_global(uri: str) -> Iterator[None]:
    """Make the URI mlflow's global one, which logging a model needs; what was there before comes back."""
    import mlflow

    variable = os.environ.get(_VARIABLE)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        with _quiet():
            yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        os.environ.pop(_VARIABLE, None)
        if variable is not None:
            os.environ[_VARIABLE] = variable


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """Hold an SQLite store against other processes of this machine; elsewhere it does nothing. It may be nested.

    A server is shared between machines, so what must happen once is also settled after the fact (see
    `registry.py`): the oldest wins.
    """
    from filelock import FileLock

    database = database_of(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f".{database.name}.mtrec.lock"), is_singleton=True):
        yield


def check_database(uri: str) -> None:
    """Look cheaply whether the file of an SQLite store can be one; no file yet is fine, and so is another store.

    Raises:
        RunError: it is something else, or damaged.
    """
    database = database_of(uri)
    if database is None or not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if database.is_file() and error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return  # locked by somebody, or not for us to read: MLflow will tell
        path = str(database).removeprefix(f"{Path.cwd()}{os.sep}")
        raise RunError(f"{path}: not an SQLite database; restore it or move it away to start anew") from error


def database_of(uri: str) -> Path | None:
    """The file of an SQLite store; None elsewhere."""
    if not uri.startswith(_SQLITE) or ":memory:" in uri:
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


@functools.cache
def _probe(uri: str) -> None:
    """Find out in seconds that a server is not there; mlflow's own retries take minutes to say so."""
    import requests

    for attempt in range(_PROBES):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=10)
            return
        except requests.RequestException as error:
            if attempt == _PROBES - 1:
                raise Unavailable(
                    f"MLflow at {without_login(uri)}: no answer ({type(error).__name__}); is it up? "
                    "The address comes from --tracking-uri or MLFLOW_TRACKING_URI"
                ) from error
            time.sleep(1 + attempt)


@contextmanager
def _quiet() -> Iterator[None]:
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM

    loggers = {name: logging.getLogger(name) for name in ("mlflow", "alembic")}
    levels = {name: logger.level for name, logger in loggers.items()}
    enabled = MLFLOW_LOGGING_STREAM.enabled
    MLFLOW_LOGGING_STREAM.enabled = False
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = enabled
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def is_denied(error: BaseException | None) -> bool:
    """Whether the server does not let this user do it; MLflow wraps the refusal of a copy in another error."""
    while error is not None and getattr(error, "error_code", None) != "PERMISSION_DENIED":
        error = error.__cause__ or error.__context__
    return error is not None


def one_line(error: BaseException) -> str:
    """An exception's message on one line, at most 400 characters, without the statement that SQLAlchemy adds."""
    said = re.split(r"\[SQL:|\(Background on this error at", str(error))[0]
    text = " ".join(said.split()) or type(error).__name__
    return text if len(text) <= 400 else f"{text[:400]}…"
