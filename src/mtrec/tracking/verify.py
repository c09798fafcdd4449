"""The chain of a registered version: data → validation → run → model → gate → promotion, each link checked.

A link holds when what is stored now is what was registered: files against the digests in the version's tags (see
`stored.py`), tags against the MLflow run's and against the hash of the lineage, the data version against its bytes
in DVC's remote. Whoever may write to the registry and to the artifacts can forge both; this finds what was changed
on one side, by accident or on purpose.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.errors import MtrecError
from mtrec.tracking.connection import connected, resolve_uri
from mtrec.tracking.containing import count_users, holder
from mtrec.tracking.history import Change, altered, champion_label, history, scenario_of, statuses
from mtrec.tracking.judgement import read
from mtrec.tracking.lookup import LINEAGE_TAG, choose, versions_of
from mtrec.tracking.registry import lineage_key
from mtrec.tracking.runs import LINEAGE, PARENTS
from mtrec.tracking.stored import (
    FILES,
    JUDGED_IN,
    MODEL_FILES,
    SHA256,
    fetch,
    file_digest,
    folder_digests,
    judged_in,
    listed,
    made_in,
    model_folder,
    text_digest,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_UNKNOWN = "no digest was kept when it was registered; 'mtrec run' registers it again"


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link of the chain."""

    name: str
    ok: bool
    what: str
    """What it is, or what is broken."""
    note: bool = False
    """Nothing is broken, but somebody should act."""


class _Broken(Exception):
    """The message says what is broken."""


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """What the checks look at."""

    client: MlflowClient
    uri: str
    version: ModelVersion
    folder: Path
    """For what is fetched."""
    dvc_root: Path | None

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.version.tags)


def verify(
    reference: str, *, tracking_uri: str | None = None, dvc_root: Path | None = None
) -> tuple[str, list[Link]]:
    """Check every link of a version's chain.

    Args:
        reference: as in `lookup.show_model`.
        tracking_uri: see `connection.resolve_uri`.
        dvc_root: DVC repository whose remote has the data; without it only the run's word for the data is checked.

    Returns:
        The version as `name/version`, and the links: data version, validation, run, model, gate, promotion. With
        `dvc_root`, of a scenario that forgot users, also deletion: whether the model holds any.

    Raises:
        ModelError: no such model or version.
        RunError: MLflow cannot be used.
    """
    return _verify(reference, _CHECKS, tracking_uri, dvc_root, deletion=True)


def broken_links(reference: str, names: Collection[str], tracking_uri: str | None = None) -> list[Link]:
    """Those of the named links that are broken; no data is looked up.

    Raises:
        ModelError: no such model or version.
        RunError: MLflow cannot be used.
    """
    checks = {name: check for name, check in _CHECKS.items() if name in names}
    return [link for link in _verify(reference, checks, tracking_uri, None)[1] if not link.ok]


def _verify(
    reference: str,
    checks: dict[str, Callable[[_Chain], str]],
    tracking_uri: str | None,
    dvc_root: Path | None,
    deletion: bool = False,
) -> tuple[str, list[Link]]:
    uri = resolve_uri(tracking_uri)
    links = []
    with connected(uri) as client, tempfile.TemporaryDirectory() as temporary:
        version = choose(client, reference)
        chain = _Chain(client=client, uri=uri, version=version, folder=Path(temporary), dvc_root=dvc_root)
        for name, check in checks.items():
            try:
                links.append(Link(name=name, ok=True, what=check(chain)))
            except (_Broken, MtrecError) as error:
                links.append(Link(name=name, ok=False, what=str(error).replace(f"{temporary}/", "")))
        links += _deletion(chain) if deletion else []
    return f"{version.name}/{version.version}", links


# ------------------------------------------------------------------------------------------------ the links


def _data(chain: _Chain) -> str:
    from mtrec.data.versioning import restore

    version = chain.tags.get("data_version", "")
    _same_as_run(chain, "data_version")
    if chain.dvc_root is None:
        return f"{version}, as in its run; its bytes were not looked up"
    restore(version, chain.folder / "data", chain.dvc_root)
    files = sum(path.is_file() for path in (chain.folder / "data").rglob("*"))
    return f"{version}, its {files} files are whole in DVC's remote"


def _validation(chain: _Chain) -> str:
    summary = read(_whole(chain, "validation"))
    if summary.get("success") is not True:
        raise _Broken("validation.json says that the data did not pass")
    counts = [table["quarantined"] for table in summary.get("tables", {}).values()]
    return f"passed; {sum(counts)} rows of {len(counts)} tables quarantined"


def _run(chain: _Chain) -> str:
    for key in LINEAGE[1:]:
        _same_as_run(chain, key)
    parts = {key: chain.tags[key] for key in (*LINEAGE, *PARENTS) if key in chain.tags}
    if lineage_key(parts) != chain.tags.get(LINEAGE_TAG):
        raise _Broken(f"its tags {', '.join(parts)} do not give the hash in its tag {LINEAGE_TAG}")
    run = chain.client.get_run(made_in(chain.version))
    return f"{run.info.run_id}, {run.info.status.lower()}, code {chain.tags['code_revision'][:12]}"


def _model(chain: _Chain) -> str:
    known = chain.tags.get(f"{SHA256}model")
    if known is None:
        raise _Broken(_UNKNOWN)
    place = chain.client.get_model_version_download_uri(chain.version.name, chain.version.version)
    with model_folder(chain.client, place) as folder:
        found = folder_digests(folder)
    path = fetch(chain.client, made_in(chain.version), MODEL_FILES, chain.folder)
    if file_digest(path) != known:
        state = "are" if text_digest(listed(found)) == known else "are not"
        raise _Broken(
            f"{MODEL_FILES}, the list of its files, was changed; the files {state} those of the registered list"
        )
    registered = read(path)
    differences = {
        "changed": [name for name in found if registered.get(name, found[name]) != found[name]],
        "missing": sorted(set(registered) - set(found)),
        "added": sorted(set(found) - set(registered)),
    }
    if any(differences.values()):
        raise _Broken("; ".join(f"{word}: {_few(names)}" for word, names in differences.items() if names))
    return f"its {len(found)} files are those that were registered"


def _gate(chain: _Chain) -> str:
    _whole(chain, "report")
    gate, evaluation = (read(_whole(chain, name)) for name in ("gate", "evaluation"))
    verdict, champion = gate.get("verdict"), evaluation.get("champion")
    if verdict != chain.tags.get("gate"):
        raise _Broken(f"gate.json says {verdict}, its tag gate says {chain.tags.get('gate')}")
    compared = f"{champion['name']}/{champion['version']}" if champion else "none"
    if compared != (told := chain.tags.get("champion_compared")):
        raise _Broken(f"evaluation.json is against champion {compared}, its tag champion_compared says {told}")
    return f"{verdict}, {len(gate.get('rules', []))} rules, champion then: {compared}"


def _promotion(chain: _Chain) -> str:
    version, name = chain.version, scenario_of(chain.version)
    label = f"{version.name}/{version.version}"
    if others := altered(chain.client, name):
        raise _Broken(f"the history was changed: {_few(others)} is not what the registered model {name} says")
    if version.name != name:
        copies = [copy for copy in versions_of(chain.client, name) if copy.tags.get("copied_from") == label]
        status = statuses(name, chain.uri)[label]
        return f"{status}{f', as {name}/{copies[-1].version}' if copies else ''}"
    _same_as_candidate(chain)
    champion = champion_label(chain.client, name)
    moves = [change for change in history(name, chain.uri) if change.action != "reject"]
    if champion == label and (not moves or moves[-1].after != label):
        last = moves[-1].after if moves else "nothing"
        raise _Broken(f"it is champion, and the history ends with {last}: the alias was moved by hand")
    made = [change for change in moves if change.after == label]
    if not made:
        return "never champion"
    return f"{'champion' if champion == label else 'former champion'}, {_told(made[-1])}"


def _deletion(chain: _Chain) -> list[Link]:
    """Whether it holds users who were forgotten; nothing where nobody was."""
    if chain.dvc_root is None:
        return []
    try:
        found = holder(chain.client, chain.version, chain.dvc_root)
    except MtrecError as error:
        return [Link(name="deletion", ok=False, what=str(error))]
    if found is None:
        return []
    told = []
    if found.users:
        told.append(f"contains {count_users(found.users)}; retrain, then reject or delete this version")
    if found.unknown:
        told.append(f"cannot be told of all its data: {found.unknown}")
    what = "; ".join(told) or "holds no user who was forgotten"
    return [Link(name="deletion", ok=True, what=what, note=bool(told))]


_CHECKS: dict[str, Callable[[_Chain], str]] = {
    "data version": _data,
    "validation": _validation,
    "run": _run,
    "model": _model,
    "gate": _gate,
    "promotion": _promotion,
}


# ------------------------------------------------------------------------------------------------ what they share


def _whole(chain: _Chain, name: str) -> Path:
    """A file of the judgement, fetched, equal to what was registered."""
    known = chain.tags.get(f"{SHA256}{name}")
    if known is None:
        raise _Broken(f"{FILES[name]}: {_UNKNOWN}")
    path = fetch(chain.client, judged_in(chain.version), FILES[name], chain.folder)
    if file_digest(path) != known:
        raise _Broken(f"{FILES[name]} was changed since it was registered")
    return path


def _same_as_run(chain: _Chain, key: str) -> None:
    """A tag of the version says what the run says."""
    from mlflow.exceptions import MlflowException

    run_id = made_in(chain.version)
    try:
        run = chain.client.get_run(run_id)
    except MlflowException as error:
        raise _Broken(f"its MLflow run {run_id or 'none'} is gone") from error
    if run.info.lifecycle_stage == "deleted":
        raise _Broken(f"its MLflow run {run_id} was deleted")
    own, told = chain.tags.get(key), run.data.tags.get(f"mtrec.{key}")
    if not own or own != told:
        raise _Broken(f"the version says {key} {own}, its MLflow run says {told}")


def _same_as_candidate(chain: _Chain) -> None:
    """A serving version has the tags of the candidate that it was copied from, as they were then."""
    origin = chain.tags.get("copied_from")
    if origin is None:
        raise _Broken("it is no copy of a candidate that mtrec approved: it has no tag copied_from")
    try:
        candidate = choose(chain.client, origin)
    except MtrecError as error:
        raise _Broken(f"the candidate {origin} that it was copied from is gone") from error
    keys = [*LINEAGE, LINEAGE_TAG, f"{SHA256}model"]
    if candidate.tags.get(JUDGED_IN) == chain.tags.get(JUDGED_IN):
        keys += ["gate", "champion_compared", *(f"{SHA256}{name}" for name in FILES)]
    other = [key for key in keys if candidate.tags.get(key) != chain.tags.get(key)]
    if other:
        raise _Broken(f"its tags {', '.join(other)} are not those of its candidate {origin}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _told(change: Change) -> str:
    forced = " by force" if change.forced else ""
    return f"{change.action}{forced} by {change.who} on {change.when[:10]}, {change.before} → {change.after}"
