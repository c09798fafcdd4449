"""Evaluate: a model on the test part, before and after fine-tuning, and against the champion on the same rows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from mtrec.config import Classification, MultiLabel, NextItem, Profile, Scenario, Split, Task
from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.questions import same_question
from mtrec.data.splits import TEST
from mtrec.data.text import fill_template
from mtrec.errors import DataError, InputError, ModelError, RunError
from mtrec.evaluation.judge import Answers, Judged, align, judge, protocol
from mtrec.evaluation.predict import predict
from mtrec.evaluation.slices import make_slices
from mtrec.models.size import model_size
from mtrec.models.store import Bundle, load_model, new_model
from mtrec.progress import report


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    dataset: Path
    model: Path
    tracking_uri: str | None = None
    """MLflow with the champion to compare with."""
    champion: bool = True
    """False leaves the champion out (no registry is asked)."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    evaluation: Path
    predictions: Path
    """Folder: one Parquet file per task with the candidate's predictions. A class as target is its number, −1 where
    training never saw it."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Measure a candidate.

    Returns:
        `<task>.<primary metric>` after fine-tuning, for every task that has test examples.

    Raises:
        DataError: the dataset folder is not whole.
        ModelError: the model folder is not whole.
        RunError: a model answers NaN, MLflow cannot be used, or the champion cannot be loaded or cannot read the
            data.
    """
    dataset = Dataset.read(inputs.dataset)
    encoding = Encoding.read(inputs.dataset / "encoding.json")
    card = _read(inputs.dataset / "card.json", DataError)
    training = _read(inputs.model / "training.json", ModelError)
    report("evaluate", 0.05, "before fine-tuning")
    start, view, catalogue = new_model(dataset, encoding, scenario, to_train=False)
    start.model.eval()
    rows, rankings = predict(start.model, view, catalogue, scenario.tasks, TEST, scenario.model.history)
    before = Answers(rows=rows, rankings=rankings)
    report("evaluate", 0.35, "after fine-tuning")
    candidate = load_model(inputs.model)
    size = model_size(candidate.model)
    after = answers(candidate, dataset, encoding, scenario.tasks)
    del candidate
    champion, about = _champion(inputs, dataset, encoding, scenario)
    report("evaluate", 0.9, "comparing")
    judged = Judged(before=before, after=after, champion=champion)
    tasks = judge(judged, scenario, encoding.labels, make_slices(dataset), dataset.items.height)
    evaluation = {
        "scenario": scenario.name,
        "description": scenario.description,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": card,
        "model": {
            "encoder": scenario.model.encoder.name,
            "sharing": scenario.model.sharing,
            "balancing": scenario.training.balancing,
            **_of_members(training),
            **{key: training[key] for key in ("parameters", "trained_parameters", "seconds", "best_epoch")},
            "seconds_per_step": training.get("seconds_per_step"),
            "distillation": training.get("distillation"),
            "started_from": training.get("started_from"),
            **size,
        },
        "protocol": protocol(scenario.split, start.model),
        "champion": about,
        "tasks": tasks,
    }
    _write_predictions(outputs.predictions, dataset, after, scenario.tasks, encoding)
    with replacing_file(outputs.evaluation) as temporary:
        temporary.write_text(json.dumps(evaluation, indent=1), encoding="utf-8")
    report("evaluate", 1.0)
    return {
        f"{name}.{task['primary']}": task["metrics"][task["primary"]]["after"]
        for name, task in tasks.items()
        if task["metrics"]
    }


def answers(bundle: Bundle, dataset: Dataset, encoding: Encoding, tasks: Mapping[str, Task]) -> Answers:
    """What a loaded model says on the test part of any dataset.

    The model reads the data through its own encoding and its own text template; targets are those of `encoding`, so
    that models with other vocabularies are judged on the same rows. Tasks of which the model learned another
    question (label, threshold, events, horizon) or nothing are left out.

    Args:
        bundle: the model.
        dataset: a prepared dataset.
        encoding: the dataset's encoding, whose vocabulary the targets use.
        tasks: the tasks to judge.
    """
    own = bundle.scenario.tasks
    shared = {n: own[n] for n, t in tasks.items() if n in own and same_question(own[n], t)}
    view = bundle.view(dataset, replace(encoding, labels={n: encoding.labels[n] for n in shared}))
    texts = fill_template(dataset.items, bundle.scenario.items.text)
    catalogue = bundle.model.catalogue(texts.to_list(), view.items)
    history = bundle.scenario.model.history
    rows, rankings = predict(bundle.model.eval(), view, catalogue, shared, TEST, history)
    for name, task in shared.items():
        if isinstance(task, (Classification, MultiLabel, Profile)):
            values, wanted = bundle.encoding.labels[name].values, encoding.labels[name].values
            rows[name] = replace(rows[name], predicted=align(rows[name].predicted, values, wanted))
            own_thresholds = rows[name].thresholds
            if own_thresholds is not None:
                aligned = align(own_thresholds[None], values, wanted, fill=0.5)[0]
                rows[name] = replace(rows[name], thresholds=aligned)
    return Answers(rows=rows, rankings=rankings)


def _of_members(training: dict[str, Any]) -> dict[str, Any]:
    """Of an ensemble: who its members are, and what they were made with."""
    return {key: training[key] for key in ("encoder", "sharing", "balancing", "members") if key in training}


def _read(path: Path, wrong: type[InputError]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise wrong(f"{path}: not readable ({error}); run the stage that writes it again") from error
    return found


def _champion(
    inputs: Inputs, dataset: Dataset, encoding: Encoding, scenario: Scenario
) -> tuple[Answers | None, dict[str, Any] | None]:
    """What the champion says, and its name, version, tasks and other split. It is never left out silently."""
    if not inputs.champion:
        return None, None
    from mtrec import tracking

    report("evaluate", 0.65, "looking for a champion")
    with tempfile.TemporaryDirectory() as folder:
        found = tracking.download_champion(scenario.name, Path(folder) / "champion", inputs.tracking_uri)
        if found is None:
            return None, None
        report("evaluate", 0.7, "the champion")
        who = f"champion {found.name} version {found.version}"
        retire = (
            f"or take the alias 'champion' off version {found.version} in MLflow; then nothing is compared with it"
        )
        try:
            bundle = load_model(found.folder)
        except InputError as error:
            what = str(error).replace(str(found.folder), "its model folder")
            raise RunError(f"{who} cannot be loaded: {what}. Restore its files in MLflow, {retire}.") from error
        gone = _gone(bundle.scenario, dataset)
        if gone:
            raise RunError(
                f"{who} cannot be judged: it was trained with {', '.join(gone)}, which this data does not have. "
                f"Map that under source in scenario {scenario.name} again, {retire}."
            )
        try:
            champion = answers(bundle, dataset, encoding, scenario.tasks)
        except InputError as error:
            raise RunError(f"{who} cannot be judged: {str(error).rstrip('.')}. Mend the data, {retire}.") from error
        except RunError as error:
            raise RunError(f"{who} cannot be judged: {error}, {retire}.") from error
    return champion, {
        "name": found.name,
        "version": found.version,
        "tasks": list(bundle.scenario.tasks),
        "other_split": _other_split(bundle.scenario.split, scenario.split),
    }


def _other_split(theirs: Split, ours: Split) -> list[str]:
    """Settings by which a model trained under `theirs` may have learned from test rows of `ours`, in words.

    The validation share moves no test row, and a smaller test part lies inside a larger one.
    """
    names = [name for name in ("by", "seed") if getattr(theirs, name) != getattr(ours, name)]
    if theirs.test < ours.test:
        names.append("test")
    return [f"split.{name} is {getattr(theirs, name)} there and {getattr(ours, name)} here" for name in names]


def _gone(scenario: Scenario, dataset: Dataset) -> list[str]:
    """Columns that a model of this scenario reads and the dataset lacks, each with its table."""
    needed = {
        "items": ([*scenario.items.text_fields, *scenario.items.names], dataset.items.columns),
        "users": (scenario.users.names, dataset.users.columns),
    }
    return list(
        dict.fromkeys(
            f"{table}.{name}" for table, (names, found) in needed.items() for name in names if name not in found
        )
    )


def _write_predictions(
    folder: Path, dataset: Dataset, given: Answers, tasks: Mapping[str, Task], encoding: Encoding
) -> None:
    users, items = dataset.users["user_id"], dataset.items["item_id"]
    with replacing_folder(folder) as temporary:
        for name, task in tasks.items():
            if isinstance(task, NextItem):
                ranked = given.rankings[name]
                table = pl.DataFrame(
                    {
                        "user_id": [users[r.user] for r in ranked],
                        "relevant": [[items[int(i)] for i in r.relevant] for r in ranked],
                        "ranks": [r.ranks.tolist() for r in ranked],
                        "top": [[items[int(i)] for i in r.top] for r in ranked],
                    }
                )
            elif name in given.rows:
                rows = given.rows[name]
                table = pl.DataFrame(
                    {
                        "user_id": [users[int(u)] if u >= 0 else None for u in rows.user],
                        "item_id": [items[int(i)] if i >= 0 else None for i in rows.item],
                        "target": rows.target.tolist(),
                        "predicted": rows.predicted.tolist(),
                    },
                    schema_overrides={"user_id": pl.String, "item_id": pl.String},
                )
            else:
                continue
            table.write_parquet(temporary / f"{name}.parquet")
