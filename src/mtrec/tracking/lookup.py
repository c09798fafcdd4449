"""Looking up the registry: the champion's files, lists for people, and versions by lineage or alias."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mtrec.addresses import without_login
from mtrec.data.contract import replacing_folder
from mtrec.errors import ModelError, RunError
from mtrec.tracking.connection import as_global, connected, one_line, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CANDIDATE = "champion", "candidate"
LINEAGE_TAG = "lineage"
"""Tag of a version that holds the hash of its lineage."""
SCENARIO_TAG = "mtrec.scenario"


@dataclass(frozen=True, kw_only=True)
class Champion:
    """A champion whose model folder was fetched."""

    name: str
    version: str
    folder: Path
    data_version: str
    run_id: str


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of a registered model, for lists and for people."""

    name: str
    version: str
    aliases: tuple[str, ...]
    created: str
    """ISO 8601 in UTC."""
    gate: str
    tags: dict[str, str]
    run_id: str
    card: str
    """The model card in Markdown."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The run's metrics; filled by `show_model`."""


def download_champion(name: str, to: Path, tracking_uri: str | None = None) -> Champion | None:
    """Fetch the model folder of a scenario's champion.

    Args:
        name: the scenario.
        to: where the folder appears, whole or not at all.
        tracking_uri: see `connection.resolve_uri`.

    Returns:
        None where the scenario has no champion yet.

    Raises:
        RunError: MLflow cannot be used, or the champion's files are gone.
    """
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        version = by_alias(client, name, CHAMPION)
        if version is None:
            return None
        with as_global(uri), replacing_folder(to) as temporary:
            try:
                _download(version, temporary)
            except _Broken as error:
                raise _gone(client, uri, version, str(error)) from error
    return Champion(
        name=name,
        version=str(version.version),
        folder=to,
        data_version=version.tags.get("data_version", ""),
        run_id=version.run_id or "",
    )


def download_model(reference: str, to: Path, tracking_uri: str | None = None) -> RegisteredVersion:
    """Fetch the model folder of a version.

    Args:
        reference: as in `show_model`.
        to: where the folder appears, whole or not at all.
        tracking_uri: see `connection.resolve_uri`.

    Returns:
        The version.

    Raises:
        ModelError: no such model or version; the message names what there is.
        RunError: MLflow cannot be used, or the version's files are gone.
    """
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        version = choose(client, reference)
        with as_global(uri), replacing_folder(to) as temporary:
            try:
                _download(version, temporary)
            except _Broken as error:
                place = _place(client, version)
                raise RunError(f"{_label(version)}: its files are not whole ({error}); restore {place}") from error
    return _describe(version)


NO_CHAMPION = "scenario {} has no champion yet to compare with; train one with mtrec run"


def check_champion(name: str, tracking_uri: str | None = None) -> bool:
    """Look, without fetching it, whether a scenario's champion still has its files.

    Args:
        name: the scenario.
        tracking_uri: see `connection.resolve_uri`.

    Returns:
        Whether there is a champion.

    Raises:
        InputError: MLflow knows no such kind of URI.
        RunError: MLflow cannot be used, or the champion's files are gone.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        version = by_alias(client, name, CHAMPION)
        if version is None:
            return False
        place = client.get_model_version_download_uri(name, version.version)
        with as_global(uri):
            try:
                found = {file.path for file in mlflow.artifacts.list_artifacts(place) or []}
            except (OSError, MlflowException) as error:
                raise _gone(client, uri, version, one_line(error)) from error
        missing = [file for file in ("MLmodel", "artifacts") if file not in {Path(path).name for path in found}]
        if missing:
            raise _gone(client, uri, version, f"{missing[0]} is missing")
    return True


def _python_command(code: str, tracking_uri: str) -> str:
    """The shell command that runs one line of code on this MLflow, where `client` is an MlflowClient."""
    where = without_login(tracking_uri).replace(f"{Path.cwd()}{os.sep}", "")
    python = sys.executable.replace(f"{Path.cwd()}{os.sep}", "")
    line = f"from mlflow import MlflowClient; client = MlflowClient(); {code}"
    return f"MLFLOW_TRACKING_URI={shlex.quote(where)} {shlex.join([python, '-c', line])}"


def list_models(tracking_uri: str | None = None) -> list[RegisteredVersion]:
    """List the versions of every model that mtrec registered, newest first within a model.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        models = _all(client.search_registered_models)
        names = sorted(model.name for model in models if SCENARIO_TAG in model.tags)
        return [_describe(version) for name in names for version in versions_of(client, name)]


def show_model(reference: str, tracking_uri: str | None = None) -> RegisteredVersion:
    """Look up one version with its metrics.

    Args:
        reference: `name/version`, `name@alias`, or `name`: its champion if it has one, else its newest version.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        ModelError: no such model or version; the message names what there is.
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        version = choose(client, reference)
        metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
    return _describe(version, metrics)


def choose(client: MlflowClient, reference: str) -> ModelVersion:
    """The version that a reference as in `show_model` means.

    Raises:
        ModelError: no such model or version; the message names what there is.
    """
    name, _, number = reference.partition("/")
    name, _, alias = name.partition("@")
    versions = versions_of(client, name) if name else []
    if not versions:
        names = sorted(model.name for model in _all(client.search_registered_models))
        raise ModelError(f"{reference}: no such registered model (known: {', '.join(names) or 'none'})")
    chosen = [
        version
        for version in versions
        if (not number or str(version.version) == number) and (not alias or alias in version.aliases)
    ]
    if not chosen:
        known = ", ".join(_label(version) for version in versions[:10])
        raise ModelError(f"{reference}: no such version (known: {known})")
    return next((v for v in chosen if CHAMPION in v.aliases), chosen[0])


def of_lineage(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """The oldest version of a lineage: every process picks the same one."""
    same = [version for version in versions_of(client, name) if version.tags.get(LINEAGE_TAG) == key]
    return same[-1] if same else None


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a registered model, newest first."""
    if "'" in name:
        return []
    found = _all(client.search_model_versions, filter_string=f"name = '{name}'")
    if found:  # a search leaves the aliases out
        aliases = client.get_registered_model(name).aliases
        for version in found:
            version.aliases = [alias for alias, number in aliases.items() if str(number) == str(version.version)]
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def _all(search: Any, **arguments: Any) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = search(**arguments, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def ensure_model(client: MlflowClient, name: str, scenario: str, description: str) -> Any:
    """The registered model of that name; it is created where absent."""
    from mlflow.exceptions import MlflowException

    try:
        return client.create_registered_model(name, {SCENARIO_TAG: scenario}, description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_registered_model(name)


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version with an alias, or None where the model or the alias does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _gone(client: MlflowClient, uri: str, version: ModelVersion, why: str) -> RunError:
    """The champion's files cannot be used: where they belong, and how to go on without them."""
    where = _place(client, version)
    off = _python_command(f'client.delete_registered_model_alias("{version.name}", "{CHAMPION}")', uri)
    return RunError(
        f"champion {version.name} version {version.version}: its files are not whole ({why}); they belong in "
        f"{where}. Restore them there, or take the alias '{CHAMPION}' off: {off}"
    )


def _place(client: MlflowClient, version: ModelVersion) -> str:
    """Where a version's files belong, for people."""
    place = client.get_model_version_download_uri(version.name, version.version)
    where = Path(url2pathname(urlparse(place).path)) if place.startswith("file:") else place
    return str(where).replace(f"{Path.cwd()}{os.sep}", "")


class _Broken(Exception):
    """A version's files are not whole; the message says why."""


def _download(version: ModelVersion, to: Path) -> None:
    """Fetch a version and leave its model folder's content in `to`."""
    import mlflow
    import yaml
    from mlflow.exceptions import MlflowException

    whole = to / ".version"
    whole.mkdir()
    try:
        mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}", dst_path=str(whole))
        flavors = yaml.safe_load((whole / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        folder = whole / flavors["python_function"]["artifacts"]["model"]["path"]
        content = list(folder.iterdir())
    except (OSError, KeyError, TypeError, yaml.YAMLError, MlflowException) as error:
        why = one_line(error).replace(f"{whole}{os.sep}", "")
        raise _Broken(why) from error
    for path in content:
        path.rename(to / path.name)
    shutil.rmtree(whole)


def _describe(version: ModelVersion, metrics: Mapping[str, float] | None = None) -> RegisteredVersion:
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(version.aliases)),
        created=created.isoformat(timespec="seconds"),
        gate=version.tags.get("gate", ""),
        tags=dict(version.tags),
        run_id=version.run_id or "",
        card=version.description or "",
        metrics=dict(metrics or {}),
    )


def _label(version: ModelVersion) -> str:
    return f"{version.name}/{version.version}" + "".join(f"@{alias}" for alias in version.aliases)
