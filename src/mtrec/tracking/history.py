"""Who changed what in the registry, when and why: numbered tags on the registered models and on their versions.

All of it is in `<scenario>`, so that only those who decide need write it; an mtrec of before kept the rejections in
`<scenario>-candidate`. An entry is JSON in a tag `mtrec.history.0007`, the same on the model and on those of its
versions that were champion before or after.

MLflow has no transaction over several writes, so a move of the alias is announced first (`mtrec.pending`), then
made, then entered. A kill leaves an announcement; whether the alias stands where it points says whether the move
happened.
"""

from __future__ import annotations

import heapq
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtrec.errors import ModelError, RunError
from mtrec.tracking.connection import connected, resolve_uri
from mtrec.tracking.lookup import CHAMPION, LINEAGE_TAG, SCENARIO_TAG, by_alias, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ENTRY = "mtrec.history."
PENDING = "mtrec.pending"
NONE = "none"
SUFFIX = "-candidate"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One entry."""

    action: str
    """approve, reject, rollback, or first: the pipeline made the very first champion."""
    who: str
    when: str
    """ISO 8601 in UTC."""
    why: str
    before: str
    """The champion until then, `name/version`, or none."""
    after: str
    """The champion from then on; of a rejection the same as before."""
    candidate: str = ""
    """The candidate that it is about, `name/version`."""
    forced: bool = False
    """Whether a rule of the review was overridden."""


def new_change(action: str, **facts: Any) -> Change:
    """An entry with the time of now."""
    return Change(action=action, when=datetime.now(UTC).isoformat(timespec="milliseconds"), **facts)


def history(name: str, tracking_uri: str | None = None) -> list[Change]:
    """Every promotion, rejection and rollback of a scenario, oldest first.

    Args:
        name: the scenario.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        ModelError: no such registered model.
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        found = [_tags_of(client, model) for model in (name, f"{name}{SUFFIX}")]
        if found == [None, None]:
            raise ModelError(f"{name}: no such registered model; 'mtrec models list' shows what there is")
        pending = _pending(client, name, found[0] or {})
    # by time only between the two models: a clock may have been set back since the entry before
    entered = heapq.merge(*(_entered(tags or {}) for tags in found), key=lambda change: change.when)
    return [*entered, *([pending] if pending else [])]


def enter(client: MlflowClient, name: str, change: Change) -> None:
    """Add an entry to a scenario's model and to the versions it names, or finish one that was cut off."""
    tags = _tags_of(client, name) or {}
    numbers = _numbers(tags)
    known = (number for number in numbers if _read(tags, f"{ENTRY}{number:04d}") == change)
    key = f"{ENTRY}{next(known, max(numbers, default=0) + 1):04d}"
    text = json.dumps(asdict(change), ensure_ascii=False)
    client.set_registered_model_tag(name, key, text)
    for version in versions_of(client, name):
        if f"{name}/{version.version}" in (change.before, change.after):
            client.set_model_version_tag(name, version.version, key, text)


def altered(client: MlflowClient, name: str) -> list[str]:
    """The entries that a scenario's serving model and the versions they name do not have alike, for people."""
    own = _tags_of(client, name) or {}
    found = []
    for version in versions_of(client, name):
        label = f"{name}/{version.version}"
        kept = {key: text for key, text in version.tags.items() if key.startswith(ENTRY)}
        for number in _numbers(own | kept):
            key = f"{ENTRY}{number:04d}"
            text = own.get(key)
            named = text is not None and label in (_read(own, key).before, _read(own, key).after)
            cut_off = text is not None and text == own.get(PENDING)
            if kept.get(key) != (text if named else None) and not cut_off:
                found.append(f"{key} of {label}")
    return found


def move_champion(client: MlflowClient, name: str, change: Change) -> None:
    """Move the alias to `change.after` and enter the change; call it alone, after `finish_pending`."""
    client.set_registered_model_tag(name, PENDING, json.dumps(asdict(change), ensure_ascii=False))
    client.set_registered_model_alias(name, CHAMPION, change.after.partition("/")[2])
    finish_pending(client, name)


def finish_pending(client: MlflowClient, name: str) -> None:
    """Enter a move that was made and not entered; forget one that was announced and not made."""
    tags = _tags_of(client, name) or {}
    if PENDING not in tags:
        return
    change = _read(tags, PENDING)
    if change in _entered(tags) or champion_label(client, name) == change.after:
        enter(client, name, change)
    client.delete_registered_model_tag(name, PENDING)


def champion_label(client: MlflowClient, name: str) -> str:
    """`name/version` of the champion, or none."""
    version = by_alias(client, name, CHAMPION)
    return NONE if version is None else f"{name}/{version.version}"


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a scenario's registry says about its versions."""

    champion: str
    changes: tuple[Change, ...]
    champion_lineage: str | None

    def status(self, version: ModelVersion) -> str:
        """What became of a version, in a few words."""
        label = f"{version.name}/{version.version}"
        if version.name != scenario_of(version):
            return self._of_candidate(version, label)
        if label == self.champion:
            return "champion"
        moved = any(label in (change.before, change.after) for change in self.changes)
        return "former champion" if moved else "never champion"

    def _of_candidate(self, version: ModelVersion, label: str) -> str:
        lineage = version.tags.get(LINEAGE_TAG)
        if lineage is not None and lineage == self.champion_lineage:
            return "champion"
        last = next((change for change in reversed(self.changes) if change.candidate == label), None)
        if last is not None:
            return "rejected" if last.action == "reject" else "former champion"
        if version.tags.get("gate") != "pass":
            return "refused by the gate"
        return "awaiting review" if version.tags.get("champion_compared") == self.champion else "out of date"


def review_of(client: MlflowClient, name: str) -> Review:
    """Look up what the status of a scenario's versions follows from."""
    version = by_alias(client, name, CHAMPION)
    changes: list[Change] = []
    with suppress(ModelError):
        changes = history(name, client.tracking_uri)
    return Review(
        champion=champion_label(client, name),
        changes=tuple(changes),
        champion_lineage=version.tags.get(LINEAGE_TAG) if version else None,
    )


def statuses(name: str, tracking_uri: str | None = None) -> dict[str, str]:
    """The status of every version of a scenario, by `name/version`.

    Returns:
        champion, former champion, rejected, awaiting review, out of date (compared with another champion than
        today's), refused by the gate; of a copy that was never made champion: never champion.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        review = review_of(client, name)
        found = [version for model in (name, f"{name}{SUFFIX}") for version in versions_of(client, model)]
        return {f"{version.name}/{version.version}": review.status(version) for version in found}


def scenario_of(version: ModelVersion) -> str:
    """The scenario that a version belongs to."""
    return str(version.tags.get(SCENARIO_TAG) or version.name.removesuffix(SUFFIX))


def _tags_of(client: MlflowClient, model: str) -> dict[str, str] | None:
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(model).tags)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _numbers(tags: dict[str, str]) -> list[int]:
    return sorted(int(n) for key in tags if key.startswith(ENTRY) and (n := key.removeprefix(ENTRY)).isdigit())


def _entered(tags: dict[str, str]) -> list[Change]:
    return [_read(tags, f"{ENTRY}{number:04d}") for number in _numbers(tags)]


def _read(tags: dict[str, str], key: str) -> Change:
    try:
        return Change(**json.loads(tags[key]))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"tag {key}: not an entry of the history ({error}); mend or remove it in MLflow") from error


def _pending(client: MlflowClient, name: str, tags: dict[str, str]) -> Change | None:
    """The announced move, where the alias was moved."""
    if PENDING not in tags:
        return None
    change = _read(tags, PENDING)
    moved = champion_label(client, name) == change.after
    return change if moved and change not in _entered(tags) else None
