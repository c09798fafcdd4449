"""Saving and loading an ensemble.

Its folder is a model folder (`mtrec.models.store`) in which these stand for the weights:
    ensemble.json         the members' names and each one's share in every task's answer
    members/0, 1, …       the model folders of the members, without their memory
`vectors.safetensors` has the text vectors of all members side by side; they share one memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtrec.config import parse_scenario
from mtrec.data.contract import replacing_folder
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import ModelError
from mtrec.models.ensemble import Ensemble
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, load_model, reading, save_memory

ENSEMBLE = "ensemble.json"


def save_ensemble(
    folder: Path,
    bundle: Bundle,
    members: Sequence[tuple[str, Path]],
    dataset: Dataset,
    catalogue: Catalogue,
    training: dict[str, Any],
) -> None:
    """Write the folder of an ensemble, complete or not at all.

    Args:
        folder: where.
        bundle: the ensemble.
        members: name and model folder of each member.
        dataset: what the members remember.
        catalogue: its items as the ensemble sees them.
        training: a summary for people.
    """
    assert isinstance(bundle.model, Ensemble)
    about = {"members": [name for name, _ in members], "shares": bundle.model.shares}
    with replacing_folder(folder) as temporary:
        (temporary / ENSEMBLE).write_text(json.dumps(about), encoding="utf-8")
        (temporary / "scenario.json").write_text(json.dumps(bundle.scenario.as_dict()), encoding="utf-8")
        (temporary / "training.json").write_text(json.dumps(training), encoding="utf-8")
        bundle.encoding.write(temporary / "encoding.json")
        for number, (_, member) in enumerate(members):
            without = shutil.ignore_patterns("memory", "vectors.safetensors")
            shutil.copytree(member, temporary / "members" / str(number), ignore=without)
        save_memory(temporary, dataset, catalogue, bundle.scenario.model.history)


def load_ensemble(folder: Path) -> Bundle:
    """Load the folder of an ensemble.

    Raises:
        ModelError: a file is missing or does not fit the others.
    """
    with reading(folder / ENSEMBLE):
        about = json.loads((folder / ENSEMBLE).read_text(encoding="utf-8"))
        count, shares = len(about["members"]), dict(about["shares"])
    with reading(folder / "scenario.json"):
        raw = json.loads((folder / "scenario.json").read_text(encoding="utf-8"))
        scenario = parse_scenario(raw, str(folder / "scenario.json"))
    with reading(folder / "encoding.json"):
        encoding = Encoding.read(folder / "encoding.json")
    if set(shares) != set(scenario.tasks) or any(len(each) != count for each in shares.values()):
        raise ModelError(f"{folder / ENSEMBLE}: not a share for each of {count} members in every task")
    members = [load_model(folder / "members" / str(number)).model for number in range(count)]
    model = Ensemble(scenario.tasks, members, shares)
    return Bundle(model=model.eval(), encoding=encoding, scenario=scenario)
