"""The finished models that new ones come from: a student's teacher, and the champion that training starts from."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.config import Scenario
from mtrec.errors import ModelError
from mtrec.progress import report

if TYPE_CHECKING:
    from mtrec.models.store import Bundle
    from mtrec.training.distributed import Processes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A finished model: a student's teacher, or the champion that training starts from."""

    name: str
    """For people: a champion as `name/version`, or a folder."""
    bundle: Bundle
    digest: str
    """sha256 of its weights."""


def no_champion(scenario: str) -> str:
    """What to say where a student's teacher should be the champion and there is none."""
    return (
        f"distillation.teacher: scenario {scenario} has no champion yet. Train one first with "
        "distillation.layers=0, or give the folder of a trained model"
    )


def find_teacher(scenario: Scenario, tracking_uri: str | None = None) -> Parent | None:
    """Load the teacher that a scenario names.

    Args:
        scenario: `distillation` says whether there is to be one.
        tracking_uri: MLflow, asked only for the champion.

    Returns:
        None where the scenario asks for no student.

    Raises:
        ModelError: there is no champion, or the folder is not a whole model, or one of another encoder.
        RunError: MLflow cannot be used, or the champion's files are gone.
    """
    settings = scenario.distillation
    if not settings.layers:
        return None
    report("fine_tune", 0.0, "fetching the teacher")
    no_ensemble = "distillation.teacher: {} is an ensemble; give the folder of one of its members"
    if settings.teacher != "champion":
        teacher = _load(Path(settings.teacher), settings.teacher, no_ensemble)
    elif (champion := _champion(scenario, tracking_uri, no_ensemble)) is not None:
        teacher = champion
    else:
        raise ModelError(no_champion(scenario.name))
    theirs, ours = teacher.bundle.scenario.model.encoder.name, scenario.model.encoder.name
    if theirs != ours:
        raise ModelError(
            f"distillation.teacher: the encoder of {teacher.name} is '{theirs}', from which the student's is cut, "
            f"but the scenario names '{ours}'; set model.encoder.name to it"
        )
    return teacher


def find_champion(
    scenario: Scenario, tracking_uri: str | None = None, processes: Processes | None = None
) -> Parent | None:
    """Load the champion where training is to start from it.

    A scenario that has none yet starts as pretrained, and says so: the first run takes the same settings as later
    ones. A champion that cannot be started from is an error, as a full training in its place would cost more and
    give another model than was asked for.

    Args:
        scenario: `training.start` says whether it is asked for.
        tracking_uri: MLflow.
        processes: those that train together; each loads the champion.

    Raises:
        ModelError: the champion is an ensemble, has another encoder, or learned under another split, by which rows
            of the test part may be among those that it knows.
        RunError: MLflow cannot be used, the champion's files are gone, or the processes see different champions.
    """
    if scenario.training.start != "champion":
        return None
    from mtrec.training.distributed import Processes

    processes = processes or Processes()
    if processes.leads:
        report("fine_tune", 0.0, "fetching the champion")
    otherwise = "or set training.start to pretrained"
    no_ensemble = f"training.start: {{}} is an ensemble; make one of its members champion, {otherwise}"
    champion = _champion(scenario, tracking_uri, no_ensemble)
    processes.agree(champion and champion.digest, "champion")
    if champion is None:
        if processes.leads:
            log.warning("training.start: scenario %s has no champion yet; it starts as pretrained", scenario.name)
            report("fine_tune", 0.0, "no champion yet: starting from the pretrained encoder")
        return None
    theirs, ours = champion.bundle.scenario, scenario
    if theirs.model.encoder.name != ours.model.encoder.name:
        raise ModelError(
            f"training.start: the encoder of {champion.name} is '{theirs.model.encoder.name}', the scenario names "
            f"'{ours.model.encoder.name}'; set model.encoder.name to it, {otherwise}"
        )
    if theirs.split != ours.split:
        raise ModelError(
            f"training.start: {champion.name} learned under another split, so it may know rows of this test part; "
            f"set split as it was, {otherwise}"
        )
    return champion


def _champion(scenario: Scenario, tracking_uri: str | None, no_ensemble: str) -> Parent | None:
    from mtrec import tracking

    with tempfile.TemporaryDirectory() as folder:
        found = tracking.download_champion(scenario.name, Path(folder) / "champion", tracking_uri)
        return _load(found.folder, f"{found.name}/{found.version}", no_ensemble) if found else None


def _load(folder: Path, name: str, no_ensemble: str) -> Parent:
    from mtrec.models.store import load_model

    bundle = load_model(folder)
    if len(bundle.model.each()) > 1:
        raise ModelError(no_ensemble.format(name))
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Parent(name=name, bundle=bundle, digest=digest)
