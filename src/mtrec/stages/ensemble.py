"""Ensemble: models that were trained on the same data → one model folder that answers with all of them.

It is no step of a pipeline: `mtrec ensemble` calls it after ingest, validate and preprocess, and has its model
evaluated, gated and registered like any other. Each member counts the same in every task unless the shares are
fitted: then members are added one after the other, with replacement, whichever lifts the task's skill on the
validation part most (Caruana et al. 2004, "Ensemble selection from libraries of models").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.questions import same_question
from mtrec.errors import ModelError
from mtrec.models.ensemble import Ensemble
from mtrec.models.ensemble_store import save_ensemble
from mtrec.models.store import Bundle, load_model, reading
from mtrec.progress import report
from mtrec.stages.fine_tune import validation

ROUNDS = 6
"""Members that fitting adds to the first one, with replacement: shares are multiples of 1/7 or coarser."""
Skills = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Member:
    """A registered model."""

    name: str
    """`name/version`, for people."""
    folder: Path
    """Its model folder."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is joined."""

    dataset: Path
    """What preprocess wrote, from the data and settings that the members were trained with."""
    members: Sequence[Member]
    fit: bool = False
    """Fit each member's share in every task on the validation part."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    model: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Join models into one.

    Returns:
        members (names), shares (task → one per member), and the skill of every task on the validation part: `alone`
        (one mapping per member) and `together`.

    Raises:
        ModelError: a member cannot be loaded, is an ensemble, or does not fit the scenario and the data.
        DataError: the dataset folder is not whole.
    """
    dataset = Dataset.read(inputs.dataset)
    encoding = Encoding.read(inputs.dataset / "encoding.json")
    bundles = []
    for member in inputs.members:
        report("ensemble", 0.0, f"loading {member.name}")
        bundles.append(load_model(member.folder))
        check_member(member.name, bundles[-1], scenario, encoding)
    model = Ensemble(scenario.tasks, [bundle.model for bundle in bundles]).eval()
    history = bundles[0].scenario.model.history
    if any(bundle.scenario.model.history != history for bundle in bundles):
        lengths = ", ".join(
            f"{m.name}: {b.scenario.model.history}" for m, b in zip(inputs.members, bundles, strict=True)
        )
        raise ModelError(f"members read histories of different length (model.history; {lengths}); join equal ones")
    settings = scenario.model.model_copy(update={"history": history})
    bundle = Bundle(model=model, encoding=encoding, scenario=scenario.model_copy(update={"model": settings}))
    view = bundle.view(dataset)
    report("ensemble", 0.1, "encoding the item texts")
    with torch.no_grad():
        catalogue = model.catalogue(dataset.items["text"].to_list(), view.items)
        judge = validation(bundle.scenario, encoding)
        skills = Measured(
            model, lambda: judge(model, view, catalogue), len(bundles) * (ROUNDS if inputs.fit else 1)
        )
        alone = [
            skills.under({name: _only(n, len(bundles)) for name in scenario.tasks}) for n in range(len(bundles))
        ]
        model.shares = fitted(skills, alone) if inputs.fit else _equal(scenario, len(bundles))
        together = skills.under(model.shares)
    names = [member.name for member in inputs.members]
    summary = {"members": names, "shares": model.shares, "alone": alone, "together": together}
    members = [(member.name, member.folder) for member in inputs.members]
    save_ensemble(
        outputs.model, bundle, members, dataset, catalogue, {**_training(inputs.members, bundles), **summary}
    )
    report("ensemble", 1.0)
    return summary


def check_member(name: str, bundle: Bundle, scenario: Scenario, encoding: Encoding) -> None:
    """Refuse a model that answers other questions than the scenario asks, or learned from other data.

    Raises:
        ModelError: one line with what differs.
    """
    if isinstance(bundle.model, Ensemble):
        raise ModelError(f"{name}: an ensemble itself; give its members instead")
    own = bundle.scenario
    if set(own.tasks) != set(scenario.tasks):
        raise ModelError(
            f"{name}: has the tasks {', '.join(own.tasks)}; scenario {scenario.name} has others: "
            f"{', '.join(scenario.tasks)}"
        )
    other = [task for task in scenario.tasks if not same_question(own.tasks[task], scenario.tasks[task])]
    if other:
        raise ModelError(f"{name}: task {other[0]} asks something else there than in scenario {scenario.name}")
    for key in ("split", "users", "items", "events"):
        if getattr(own, key) != getattr(scenario, key):
            raise ModelError(
                f"{name}: was trained with other settings under '{key}' than scenario {scenario.name} has"
            )
    if bundle.encoding != encoding:
        raise ModelError(
            f"{name}: was trained on other data, its vocabularies differ; give the data that it was trained on, or "
            "train it again on this"
        )


class Measured:
    """The skills of an ensemble under given shares; `passes` is how often they will be asked for."""

    def __init__(self, model: Ensemble, skills: Callable[[], Skills], passes: int) -> None:
        self.model, self.skills, self.passes, self.done = model, skills, passes, 0

    def under(self, shares: dict[str, list[float]]) -> Skills:
        """Measure once."""
        self.done += 1
        report("ensemble", min(0.1 + 0.9 * self.done / (self.passes + 1), 1.0), "measuring on the validation part")
        self.model.shares = shares
        return self.skills()


def fitted(measured: Measured, alone: list[Skills]) -> dict[str, list[float]]:
    """The shares that greedy selection finds, of all tasks in the same passes: they do not depend on each other.

    Args:
        measured: gives the skills under any shares.
        alone: the skills of each member.
    """
    count = len(alone)
    taken = {}
    for task in alone[0]:
        first = max(range(count), key=lambda n: alone[n][task])
        taken[task] = _only(first, count)
    best = {task: (max(skills[task] for skills in alone), taken[task]) for task in taken}
    for _ in range(ROUNDS):
        tried = []
        for n in range(count):
            more = {task: [t + o for t, o in zip(taken[task], _only(n, count), strict=True)] for task in taken}
            shares = {task: [m / sum(each) for m in each] for task, each in more.items()}
            tried.append((measured.under(shares), more, shares))
        for task in taken:
            skills, more, shares = max(tried, key=lambda found: found[0][task])
            taken[task] = more[task]
            if skills[task] > best[task][0]:
                best[task] = skills[task], shares[task]
    return {task: shares for task, (_, shares) in best.items()}


def _only(number: int, count: int) -> list[float]:
    return [float(n == number) for n in range(count)]


def _equal(scenario: Scenario, count: int) -> dict[str, list[float]]:
    return {task: [1 / count] * count for task in scenario.tasks}


def _training(members: Sequence[Member], bundles: Sequence[Bundle]) -> dict[str, Any]:
    """What evaluation tells of how the model came to be: the members' sums."""
    sums = dict.fromkeys(("parameters", "trained_parameters", "seconds"), 0)
    for member in members:
        with reading(member.folder / "training.json"):
            own = json.loads((member.folder / "training.json").read_text(encoding="utf-8"))
            sums = {key: value + own[key] for key, value in sums.items()}
    settings = [bundle.scenario for bundle in bundles]
    return {
        **sums,
        "best_epoch": None,
        "encoder": _distinct(Path(s.model.encoder.name).name for s in settings),
        "sharing": _distinct(s.model.sharing for s in settings),
        "balancing": _distinct(s.training.balancing for s in settings),
    }


def _distinct(words: Any) -> str:
    return ", ".join(dict.fromkeys(words))
