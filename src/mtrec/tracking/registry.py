"""The registry: candidates that the pipeline writes, and the champion that people choose.

Two registered models per scenario. `<scenario>-candidate` gets a version per lineage, alias `candidate` on the
newest. `<scenario>` gets copies of approved candidates, alias `champion`; only the very first champion is promoted
here, all others by people, or through the same door by gate.auto_approve.

The lineage (data version, code revision, parameters hash, image) is the idempotency key: registering it again finds
its version, whatever the first attempt left behind. On SQLite a file lock keeps processes apart. On a server, which
machines share, a version is written first and settled afterwards: the lowest number of a lineage stays, and only
version 1 becomes the first champion.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.addresses import without_login
from mtrec.config import Scenario
from mtrec.errors import ModelError, RunError
from mtrec.lease import Held
from mtrec.tracking.card import model_card
from mtrec.tracking.connection import as_global, connected, is_denied, locked, one_line, resolve_uri
from mtrec.tracking.deciding import LEASE_SECONDS, deciding
from mtrec.tracking.history import NONE, move_champion, new_change
from mtrec.tracking.judgement import log_judgement, read
from mtrec.tracking.lookup import (
    CANDIDATE,
    CHAMPION,
    LINEAGE_TAG,
    SCENARIO_TAG,
    by_alias,
    ensure_model,
    of_lineage,
    versions_of,
)
from mtrec.tracking.runs import LINEAGE, PARENTS, REGISTERED, Run, finish_run, pipeline_run
from mtrec.tracking.stored import (
    FILES,
    FOLDER,
    JUDGED_IN,
    MODEL_FILES,
    SHA256,
    file_digest,
    folder_digests,
    listed,
    made_in,
    model_folder,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_FIRST = "mtrec.first_champion"
"""Tag of `<scenario>`: set once there is a champion; from then on champions are people's choice."""
_PATIENCE = LEASE_SECONDS
"""Seconds that the first champion waits for somebody else's decision."""
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
_SERVING = (
    "mlflow",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "numpy",
    "polars",
    "pydantic",
    "pyyaml",
)
"""What a loaded model needs; mtrec itself travels with the model."""
_EXAMPLE: list[dict[str, Any]] = [{"user_id": None, "history": [], "num_items": 3}]


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What `register` did."""

    name: str
    """The registered model of candidates: `<scenario>-candidate`."""
    version: str
    created: bool
    """False where this lineage had its version already."""
    champion: bool
    """Whether this candidate is the champion now."""
    champion_version: str | None
    """Its version of `<scenario>` when it is."""
    aliases: tuple[str, ...]
    """Aliases of the candidate's version."""
    run_id: str
    tracking_uri: str


def register(
    model: Path,
    *,
    scenario: Scenario,
    evaluation: Path,
    gate: Path,
    report: Path,
    lineage: Mapping[str, str],
    validation: Path | None = None,
    tracking_uri: str | None = None,
) -> Registration:
    """Register a candidate; the first one that passes the gate becomes champion.

    Args:
        model: model folder with safetensors weights.
        scenario: names the models.
        evaluation: evaluation.json.
        gate: gate.json.
        report: the HTML report; stored with the two above and the next as artifacts of the run.
        lineage: data_version, code_revision, parameters_hash, image and pipeline_run; of a student also teacher, of
            a warm start started_from and started_from_sha256, of an ensemble members.
        validation: what the validate stage said of the data.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        ModelError: no model folder, or it holds pickled files.
        RunError: the lineage is incomplete, a file is not JSON, or MLflow cannot be used.
    """
    _check_model(model)
    missing = [key for key in (*LINEAGE, "pipeline_run") if not lineage.get(key)]
    if missing:
        raise RunError(f"lineage: {', '.join(missing)} missing; a version names everything it was made from")
    measured, judged = read(evaluation), read(gate)
    uri = resolve_uri(tracking_uri)
    files = {"evaluation": evaluation, "gate": gate, "report": report, "validation": validation}
    key = lineage_key(lineage)
    run = pipeline_run(scenario, lineage["pipeline_run"], tracking_uri=uri, lineage=lineage)
    decided = _is_decided(scenario, key, run)
    if decided:
        finish_run(run)
    else:
        log_judgement(
            scenario,
            evaluation=evaluation,
            gate=gate,
            report=report,
            validation=validation,
            lineage=lineage,
            tracking_uri=uri,
        )
    compared = measured.get("champion")
    kept = (*LINEAGE, *PARENTS, "started_from", "members", "pipeline_run")
    tags = {key: lineage[key] for key in kept if key in lineage} | {
        LINEAGE_TAG: key,
        "gate": judged["verdict"],
        JUDGED_IN: run.run_id,
        "champion_compared": f"{compared['name']}/{compared['version']}" if compared else "none",
        "run_id": run.run_id,
        SCENARIO_TAG: scenario.name,
    }
    tags |= {f"{SHA256}{name}": file_digest(path) for name, path in files.items() if path is not None}
    card = model_card(
        name=scenario.name,
        evaluation=measured,
        gate=judged,
        lineage=lineage,
        artifacts=f"{FOLDER}/{FILES['report']}",
    )
    with connected(uri) as client:
        with locked(uri):
            version, created = _candidate(client, run, model, scenario, tags, None if decided else card)
        champion = _first_champion(client, uri, scenario, version) if judged["verdict"] == "pass" else None
        aliases = tuple(client.get_model_version(version.name, version.version).aliases)
        client.set_tag(run.run_id, REGISTERED, f"{version.name}/{version.version}")
    return Registration(
        name=version.name,
        version=str(version.version),
        created=created,
        champion=champion is not None,
        champion_version=champion,
        aliases=aliases,
        run_id=run.run_id,
        tracking_uri=without_login(uri),
    )


def lineage_key(lineage: Mapping[str, str]) -> str:
    """Hash what a model was made from, the weights of its parent included; the pipeline run is no part of it."""
    text = json.dumps({key: lineage[key] for key in (*LINEAGE, *PARENTS) if key in lineage}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------------------------------- registering


def _is_decided(scenario: Scenario, key: str, run: Run) -> bool:
    """Whether what this run judged was approved already: then that judgement stays as it was approved."""
    with connected(run.tracking_uri) as client:
        approved = of_lineage(client, scenario.name, key)
    return approved is not None and approved.tags.get(JUDGED_IN) == run.run_id


def _candidate(
    client: MlflowClient, run: Run, model: Path, scenario: Scenario, tags: dict[str, str], card: str | None
) -> tuple[ModelVersion, bool]:
    """Find or create the candidate's version; its judgement is brought up to date where there is a new card."""
    name = f"{scenario.name}-candidate"
    ensure_model(client, name, scenario.name, f"Candidates of {scenario.name}, written by the training pipeline.")
    found = of_lineage(client, name, tags[LINEAGE_TAG])
    created = found is None
    if found is None:
        model_id = _logged_model(client, run, model, tags)
        digest = _list_files(client, run.run_id, client.get_logged_model(model_id).artifact_location)
        found = _create_version(client, run, name, model_id, tags | {f"{SHA256}model": digest}, card or "")
        kept = of_lineage(client, name, tags[LINEAGE_TAG]) or found
        if kept.version != found.version:
            client.delete_model_version(name, found.version)
            found, created = kept, False
    elif f"{SHA256}model" not in found.tags:  # registered by an mtrec that kept no digests
        place = client.get_model_version_download_uri(name, found.version)
        client.set_model_version_tag(
            name, found.version, f"{SHA256}model", _list_files(client, made_in(found), place)
        )
    for key in tags if card is not None else ():
        if key in ("gate", "champion_compared", JUDGED_IN) or key.startswith(SHA256):
            _twice(partial(client.set_model_version_tag, name, found.version, key, tags[key]))
    if card is not None:
        client.update_model_version(name, found.version, card)
    _twice(lambda: client.set_registered_model_alias(name, CANDIDATE, versions_of(client, name)[0].version))
    return client.get_model_version(name, found.version), created


def _create_version(
    client: MlflowClient, run: Run, name: str, model_id: str, tags: dict[str, str], card: str
) -> ModelVersion:
    """Create a version with its tags in one write, so that it is never seen without its lineage."""
    with as_global(run.tracking_uri):
        return client.create_model_version(
            name=name,
            source=f"models:/{model_id}",
            run_id=run.run_id,
            tags=tags,
            description=card,
            model_id=model_id,
        )


def _logged_model(client: MlflowClient, run: Run, model: Path, tags: dict[str, str]) -> str:
    """The id of the logged model of this lineage; an earlier attempt that died may have left a whole one."""
    found = client.search_logged_models(
        experiment_ids=[run.experiment_id], filter_string=f"tags.`{LINEAGE_TAG}` = '{tags[LINEAGE_TAG]}'"
    )
    whole = [str(logged.model_id) for logged in found if str(logged.status) == "READY"]
    model_id = whole[0] if whole else _log_model(run, model, tags)
    try:
        _check_answer(run, model_id)
    except Exception as error:
        client.delete_logged_model(model_id)
        raise RunError(f"{model}: does not answer as a registered model ({one_line(error)})") from error
    return model_id


def _list_files(client: MlflowClient, run_id: str, location: str) -> str:
    """Keep the list of a stored model's files with the run that made it; the sha256 of the list."""
    with model_folder(client, location) as folder, tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / MODEL_FILES
        path.write_text(listed(folder_digests(folder)), encoding="utf-8")
        client.log_artifact(run_id, str(path), FOLDER)
        return file_digest(path)


def _log_model(run: Run, model: Path, tags: dict[str, str]) -> str:
    """Store the model folder with the code that serves it."""
    import mlflow

    import mtrec

    package = Path(mtrec.__file__).parent
    with as_global(run.tracking_uri), _same_path(), mlflow.start_run(run_id=run.run_id, nested=True):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "serving" / "pyfunc.py"),
            artifacts={"model": str(model)},
            code_paths=[str(package)],
            input_example=_EXAMPLE,
            pip_requirements=_requirements(),
            tags=tags,
        )
    return str(info.model_id)


def _check_answer(run: Run, model_id: str) -> None:
    import mlflow

    with as_global(run.tracking_uri), _same_path():
        mlflow.pyfunc.load_model(f"models:/{model_id}").predict(_EXAMPLE)


@contextmanager
def _same_path() -> Iterator[None]:
    """Keep sys.path: loading a model puts the code that travels with it in front, in a folder soon gone."""
    paths = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = paths


def _requirements() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    pinned = []
    for name in _SERVING:
        try:
            pinned.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return pinned


def _first_champion(client: MlflowClient, uri: str, scenario: Scenario, candidate: ModelVersion) -> str | None:
    """Promote the candidate if the scenario never had a champion, and this user may promote.

    Returns:
        The champion's version when it is this candidate.

    Raises:
        Held: somebody else decides about the champion, for longer than a lease lasts.
    """
    from mlflow.exceptions import MlflowException

    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return _promoted_first(client, uri, scenario, candidate)
        except MlflowException as error:
            if not is_denied(error):
                raise
            return None  # the server lets others promote, so they choose the first champion too
        except Held:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _promoted_first(client: MlflowClient, uri: str, scenario: Scenario, candidate: ModelVersion) -> str | None:
    name = scenario.name
    model = ensure_model(client, name, scenario.name, f"Approved models of {name}.")
    champion = by_alias(client, name, CHAMPION)
    if champion is None and _FIRST not in model.tags:
        origin = f"{candidate.name}/{candidate.version}"
        with deciding(client, uri, name, f"promoting {origin}, the first champion,"):
            champion = by_alias(client, name, CHAMPION) or _moved_first(client, uri, name, candidate, origin)
    if champion is None:
        return None
    if _FIRST not in model.tags:
        _twice(partial(client.set_registered_model_tag, name, _FIRST, str(champion.version)))
    return str(champion.version) if _same_lineage(champion, candidate) else None


def _moved_first(
    client: MlflowClient, uri: str, name: str, candidate: ModelVersion, origin: str
) -> ModelVersion | None:
    champion = _first_approved(client, uri, name, candidate)
    if champion is not None:
        _twice(partial(client.set_model_version_tag, name, champion.version, "copied_from", origin))
        facts = {"before": NONE, "after": f"{name}/{champion.version}", "candidate": origin}
        change = new_change("first", who="mtrec", why="the first candidate that passed the gate", **facts)
        _twice(partial(move_champion, client, name, change))
    return champion


def _first_approved(client: MlflowClient, uri: str, name: str, candidate: ModelVersion) -> ModelVersion | None:
    """The candidate's copy; None where an older version is another's: a faster machine's, or people's."""
    if not versions_of(client, name):
        with as_global(uri):
            copy = client.copy_model_version(f"models:/{candidate.name}/{candidate.version}", name)
        if copy.version != versions_of(client, name)[-1].version:
            client.delete_model_version(name, copy.version)
    oldest = versions_of(client, name)[-1]
    return oldest if _same_lineage(oldest, candidate) else None


def _same_lineage(one: ModelVersion, other: ModelVersion) -> bool:
    return bool(one.tags.get(LINEAGE_TAG) == other.tags[LINEAGE_TAG])


def _twice(write: Callable[[], object]) -> None:
    """Write, and once more where another machine's write came between MLflow's look and its own write."""
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if error.error_code not in ("BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST"):
            raise
        write()


# ------------------------------------------------------------------------------------------- checking


def _check_model(model: Path) -> None:
    if not model.is_dir() or not any(model.rglob("*.safetensors")):
        raise ModelError(f"{model}: not a model folder; it holds no safetensors weights")
    pickled = [path for path in sorted(model.rglob("*")) if path.suffix in _PICKLES]
    if pickled:
        raise ModelError(f"{pickled[0]}: a pickled file may run code when loaded; save weights as safetensors")
