"""Review: people approve a candidate, reject it, or roll the champion back.

Approving copies the candidate's version into the serving model `<scenario>` and moves the alias `champion` to the
copy. MLflow's alias writes have no compare-and-set: so one lease per scenario is held, and what the decision rests
on is read again inside its fencing guard, right before the writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.errors import InputError, ModelError, MtrecError, RunError
from mtrec.tracking.connection import as_global, connected, resolve_uri
from mtrec.tracking.containing import count_users, holder
from mtrec.tracking.deciding import deciding
from mtrec.tracking.history import (
    ENTRY,
    NONE,
    SUFFIX,
    Change,
    champion_label,
    enter,
    history,
    move_champion,
    new_change,
    scenario_of,
)
from mtrec.tracking.lookup import CANDIDATE, LINEAGE_TAG, choose, ensure_model, of_lineage
from mtrec.tracking.verify import Link, broken_links

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_ORIGIN = ("data version", "validation", "run", "model", "gate")
"""The links of the chain that must hold before a candidate serves; of the data version only what the tags say."""
_LONGEST = 2000
"""Characters of a reason."""


class Refused(RunError):
    """The review's rules forbid it; the message says how to mend it."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What became of a request."""

    changed: bool
    """False where everything was so already."""
    champion: str
    """The champion now, `name/version`, or none."""
    before: str
    """The champion before."""
    candidate: str = ""


def approve(
    reference: str,
    *,
    who: str,
    why: str = "",
    tracking_uri: str | None = None,
    force: bool = False,
    dvc_root: Path | None = None,
) -> Decision:
    """Make a candidate the champion. Approving it twice makes one version; one that was cut off is taken up again.

    Args:
        reference: `<scenario>-candidate/3`, `…@candidate`, or `<scenario>`: its newest candidate.
        who: recorded in the history.
        why: recorded in the history; needed with `force`.
        tracking_uri: see `connection.resolve_uri`.
        force: although the gate did not pass, what is stored is not what was registered, the champion is another
            one than the candidate was compared with, somebody rejected it or rolled it back, or it may contain
            users who were forgotten.
        dvc_root: DVC repository with the list of the forgotten and the data versions; None: nobody was forgotten.

    Raises:
        InputError: who or why is missing.
        ModelError: no such candidate.
        Refused: a rule forbids it.
        Held: another decision on this scenario is under way.
        RunError: MLflow cannot be used.
    """
    who, why = _told(who, why, needed="--force" if force else "")
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        found = _candidate(client, reference)
        name = scenario_of(found)
        with deciding(client, uri, name, f"approving {_label(found)}"):
            candidate = choose(client, _label(found))
            before = champion_label(client, name)
            copy = _copy_of(client, name, candidate)
            if copy is not None and before == _label(copy):
                return Decision(changed=False, champion=before, before=before, candidate=_label(candidate))
            if not force:
                _check(candidate, before, history(name, uri), broken_links(_label(candidate), _ORIGIN, uri))
                _check_forgotten(client, candidate, dvc_root, "approve it all the same with --force --why")
            copy = _copy(client, uri, candidate, copy)
            facts = {"who": who, "why": why, "before": before, "after": _label(copy)}
            move_champion(client, name, new_change("approve", candidate=_label(candidate), forced=force, **facts))
    return Decision(changed=True, champion=_label(copy), before=before, candidate=_label(candidate))


def reject(reference: str, *, who: str, why: str, tracking_uri: str | None = None) -> Decision:
    """Refuse a candidate for good; the champion stays.

    Args:
        reference: as for `approve`.
        who: recorded in the history.
        why: recorded in the history; needed.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        InputError: who or why is missing.
        ModelError: no such candidate.
        Refused: it is the champion.
        Held: another decision on this scenario is under way.
        RunError: MLflow cannot be used.
    """
    who, why = _told(who, why, needed="rejecting")
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        candidate = _candidate(client, reference)
        name, label = scenario_of(candidate), _label(candidate)
        with deciding(client, uri, name, f"rejecting {label}"):
            champion = champion_label(client, name)
            copy = _copy_of(client, name, candidate)
            if copy is not None and _label(copy) == champion:
                raise Refused(f"{label} is the champion; take it back with 'mtrec models rollback {name}'")
            last = _last_about(label, history(name, uri))
            changed = last is None or last.action != "reject"
            if changed:
                change = new_change("reject", who=who, why=why, before=champion, after=champion, candidate=label)
                ensure_model(client, name, name, f"Approved models of {name}.")
                enter(client, name, change)
    return Decision(changed=changed, champion=champion, before=champion, candidate=label)


def rollback(
    name: str,
    *,
    who: str,
    why: str,
    to: str | None = None,
    tracking_uri: str | None = None,
    force: bool = False,
    dvc_root: Path | None = None,
) -> Decision:
    """Go back to the champion that the present one took over from; again: to the one before.

    A version whose files are not those that were registered is never gone back to.

    Args:
        name: the scenario.
        who: recorded in the history.
        why: recorded in the history; needed.
        to: version of `name` to go to instead.
        tracking_uri: see `connection.resolve_uri`.
        force: although the version never was champion, or may contain users who were forgotten.
        dvc_root: as for `approve`.

    Raises:
        InputError: who or why is missing.
        ModelError: no such model or version.
        Refused: there is no champion, or none before it, or a rule forbids it.
        Held: another decision on this scenario is under way.
        RunError: MLflow cannot be used.
    """
    who, why = _told(who, why, needed="rolling back")
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        choose(client, name)
        with deciding(client, uri, name, f"rolling back {name}"):
            before = champion_label(client, name)
            if before == NONE and to is None:
                raise Refused(f"{name}: no version is champion, nothing to roll back; name one with --to")
            changes = history(name, uri)
            target = choose(client, f"{name}/{to}" if to else _predecessor(name, before, changes))
            after = _label(target)
            if after != before:
                _check_whole(after, uri)
                if not force:
                    _check_served(after, changes)
                    _check_forgotten(client, target, dvc_root, "go back to it all the same with --force")
                change = new_change("rollback", who=who, why=why, before=before, after=after, forced=force)
                move_champion(client, name, change)
    return Decision(changed=after != before, champion=after, before=before)


# ------------------------------------------------------------------------------------------------ the rules


def _check(candidate: ModelVersion, champion: str, changes: list[Change], broken: list[Link]) -> None:
    """Whether a candidate may become champion.

    Raises:
        Refused: it may not.
    """
    label, mend = _label(candidate), "approve it all the same with --force --why"
    last = _last_about(label, changes)
    if last is not None and last.action == "reject":
        raise Refused(f"{label}: {last.who} rejected it on {last.when[:10]} ({last.why}); {mend}")
    left = next((c for c in reversed(changes) if last is not None and c.before == last.after), None)
    if left is not None and left.action == "rollback":
        raise Refused(f"{label}: {left.who} rolled it back on {left.when[:10]} ({left.why}); {mend}")
    gate = candidate.tags.get("gate", "not recorded")
    if gate != "pass":
        raise Refused(f"{label}: its gate says {gate}; see 'mtrec models show {label}', or {mend}")
    if broken:
        raise Refused(
            f"{label}: {broken[0].name} is broken: {broken[0].what}; see 'mtrec lineage {label}', or {mend}"
        )
    compared = candidate.tags.get("champion_compared", "nothing that was recorded")
    if compared != champion:
        raise Refused(
            f"{label}: it was compared with {compared}, and the champion is {champion} now; "
            f"run 'mtrec run' again to compare it with that one, or {mend}"
        )


def _check_whole(label: str, uri: str) -> None:
    """Whether the files of a version are those that were registered.

    Raises:
        Refused: they are not.
    """
    for link in broken_links(label, ("model",), uri):
        raise Refused(
            f"{label}: its model is broken: {link.what}; mend its files, or name another version with --to"
        )


def _check_served(label: str, changes: list[Change]) -> None:
    """Whether a version was champion before.

    Raises:
        Refused: the history does not say so.
    """
    if not any(label in (change.before, change.after) for change in changes):
        raise Refused(f"{label}: never was champion; approve its candidate, or go to it all the same with --force")


def _check_forgotten(client: MlflowClient, version: ModelVersion, root: Path | None, mend: str) -> None:
    """Whether a version may serve as far as the forgotten go; where nobody was forgotten, nothing is looked up.

    Raises:
        Refused: it contains forgotten users, or that cannot be known.
    """
    try:
        found = holder(client, version, root) if root else None
        unknown = found.unknown if found else ""
    except MtrecError as error:
        found, unknown = None, str(error)
    if found is not None and found.users:
        raise Refused(f"{_label(version)}: contains {count_users(found.users)}; train anew, or {mend}")
    if unknown:
        raise Refused(f"{_label(version)}: may contain users who were forgotten: {unknown}; train anew, or {mend}")


def _last_about(candidate: str, changes: list[Change]) -> Change | None:
    return next((change for change in reversed(changes) if change.candidate == candidate), None)


def _predecessor(name: str, champion: str, changes: list[Change]) -> str:
    """What the champion took over from."""
    made = [change for change in changes if change.after == champion and change.action in ("approve", "first")]
    if not made:
        raise Refused(
            f"{name}: the history does not say what was champion before {champion}, which mtrec did not make so; "
            "name the version with --to"
        )
    if made[-1].before == NONE:
        raise Refused(f"{name}: nothing was champion before {champion}; another version is named with --to")
    return made[-1].before


def _told(who: str, why: str, *, needed: str) -> tuple[str, str]:
    who, why = " ".join(who.split()), " ".join(why.split())
    if not who:
        raise InputError("nobody is named: give --who")
    if needed and not why:
        raise InputError(f"{needed} needs a reason: give --why")
    if len(why) > _LONGEST:
        raise InputError(f"--why: {len(why)} characters, at most {_LONGEST}; write the rest where it can be read")
    return who, why


# ------------------------------------------------------------------------------------------------ the registry


def _candidate(client: MlflowClient, reference: str) -> ModelVersion:
    plain = not reference.endswith(SUFFIX) and not {"/", "@"} & set(reference)
    found = choose(client, f"{reference}{SUFFIX}@{CANDIDATE}" if plain else reference)
    name = scenario_of(found)
    if found.name == name:
        raise ModelError(
            f"{_label(found)}: a version of the serving model, no candidate; candidates are in {name}{SUFFIX}. "
            f"To go back to it: mtrec models rollback {name} --to {found.version} --why …"
        )
    return found


def _copy_of(client: MlflowClient, name: str, candidate: ModelVersion) -> ModelVersion | None:
    """The serving version that was copied from a candidate, also where the copying was cut off afterwards."""
    return of_lineage(client, name, candidate.tags.get(LINEAGE_TAG, ""))


def _copy(client: MlflowClient, uri: str, candidate: ModelVersion, copy: ModelVersion | None) -> ModelVersion:
    """Copy a candidate into the serving model, or bring the tags of the copy up to date."""
    name = scenario_of(candidate)
    ensure_model(client, name, name, f"Approved models of {name}.")
    if copy is None:
        with as_global(uri):
            copy = client.copy_model_version(f"models:/{candidate.name}/{candidate.version}", name)
        for key in copy.tags:
            if key.startswith(ENTRY):
                client.delete_model_version_tag(name, copy.version, key)
    wanted = {key: value for key, value in candidate.tags.items() if not key.startswith(ENTRY)}
    for key, value in (wanted | {"copied_from": _label(candidate)}).items():
        if copy.tags.get(key) != value:
            client.set_model_version_tag(name, copy.version, key, value)
    return copy


def _label(version: ModelVersion) -> str:
    return f"{version.name}/{version.version}"
