"""Which registered models hold the data of users who were forgotten.

A model holds what its data version holds: in its memory of interactions, in what it learned of user ids, and spread
over its weights. So do an ensemble, of its members' data versions too, a student, of its teacher's, and a model
that started from a champion's weights, of that one's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.data.forgetting import held_by
from mtrec.data.forgotten import Forgotten, read_forgotten
from mtrec.errors import MtrecError
from mtrec.tracking.connection import connected, resolve_uri
from mtrec.tracking.history import SUFFIX, Review, review_of, scenario_of
from mtrec.tracking.lookup import choose, versions_of
from mtrec.tracking.stored import MODEL_FILES, fetch, made_in

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_WEIGHTS = "artifacts/model/model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A registered version, and the forgotten users in what it was made from."""

    name: str
    """`name/version`."""
    status: str
    """What became of it; see `history.statuses`."""
    data_versions: tuple[str, ...]
    """Its own data version first, then its members', its teacher's, and that of what it started from."""
    users: Mapping[str, str]
    """Pseudonym → when it was forgotten, ISO 8601 in UTC."""
    unknown: str
    """Why it cannot be told of all its data; empty where it can."""


def holders(scenario: str, root: Path, tracking_uri: str | None = None) -> list[Holder]:
    """Look through every registered version of a scenario for its forgotten users, newest first within a model.

    Args:
        scenario: its name.
        root: DVC repository with the list of the forgotten and the data versions.
        tracking_uri: see `connection.resolve_uri`.

    Returns:
        Every version, also those that hold none.

    Raises:
        DataError: the list of the forgotten cannot be read.
        RunError: MLflow cannot be used.
    """
    forgotten = read_forgotten(root, scenario)
    with connected(resolve_uri(tracking_uri)) as client:
        found = [version for name in (scenario, f"{scenario}{SUFFIX}") for version in versions_of(client, name)]
        review, looked = review_of(client, scenario), _Looked(forgotten, root)
        return [_look(client, version, review, looked) for version in found]


def holder(client: MlflowClient, version: ModelVersion, root: Path) -> Holder | None:
    """The same of one version; None where its scenario forgot nobody.

    Raises:
        DataError: the list of the forgotten cannot be read.
    """
    scenario = scenario_of(version)
    forgotten = read_forgotten(root, scenario)
    return _look(client, version, review_of(client, scenario), _Looked(forgotten, root)) if forgotten else None


def count_users(users: Mapping[str, str]) -> str:
    """`1 user who was forgotten on 2026-11-23`, for people."""
    days = sorted({when[:10] for when in users.values()})
    when = f"on {days[0]}" if len(days) == 1 else f"between {days[0]} and {days[-1]}"
    return f"{len(users)} user{'s who were' if len(users) > 1 else ' who was'} forgotten {when}"


class _Looked:
    """The forgotten users of data versions, each looked up once."""

    def __init__(self, forgotten: Forgotten, root: Path) -> None:
        self.forgotten, self.root = forgotten, root
        self.known: dict[str, dict[str, str] | MtrecError] = {}

    def of(self, version: str) -> dict[str, str]:
        if version not in self.known:
            try:
                self.known[version] = held_by(version, self.forgotten, self.root) if self.forgotten else {}
            except MtrecError as error:
                self.known[version] = error
        found = self.known[version]
        if isinstance(found, MtrecError):
            raise found
        return found


def _look(client: MlflowClient, version: ModelVersion, review: Review, looked: _Looked) -> Holder:
    users: dict[str, str] = {}
    data, unknown = _data_versions(client, version)
    for one in data:
        try:
            users |= looked.of(one)
        except MtrecError as error:
            unknown.append(str(error))
    return Holder(
        name=f"{version.name}/{version.version}",
        status=review.status(version),
        data_versions=tuple(data),
        users=users,
        unknown="; ".join(unknown),
    )


def _data_versions(client: MlflowClient, version: ModelVersion) -> tuple[list[str], list[str]]:
    """The data versions that a version learned from, itself or through others, and what is not known of them."""
    data: list[str] = []
    unknown: list[str] = []
    waiting, seen = [version], set()
    while waiting:
        one = waiting.pop(0)
        label = f"{one.name}/{one.version}"
        if label in seen:
            continue
        seen.add(label)
        if (known := one.tags.get("data_version")) and known not in data:
            data.append(known)
        parents = [*one.tags.get("members", "").split(", "), one.tags.get("started_from", "")]
        for parent in filter(None, parents):
            try:
                waiting.append(choose(client, parent))
            except MtrecError:
                unknown.append(f"{parent}, of which it is made, is no longer registered")
        if teacher := one.tags.get("teacher"):
            oldest_first = reversed(versions_of(client, f"{scenario_of(one)}{SUFFIX}"))
            found = next((other for other in oldest_first if _weights(client, other) == teacher), None)
            if found is None:
                unknown.append("its teacher is not among the registered models")
            else:
                waiting.append(found)
    return data, unknown


def _weights(client: MlflowClient, version: ModelVersion) -> str | None:
    """The sha256 of a version's weights, as it was kept at registration."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = fetch(client, made_in(version), MODEL_FILES, Path(folder))
            found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        except (MtrecError, ValueError):
            return None
    return found.get(_WEIGHTS)
