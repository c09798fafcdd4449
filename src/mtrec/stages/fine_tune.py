"""Fine-tune: a dataset → a trained model folder, with its loss history."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import MultiLabel, NextItem, Scenario
from mtrec.data.contract import replacing_file
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import VALID
from mtrec.errors import ConfigError
from mtrec.evaluation import metrics
from mtrec.evaluation.calibration import calibrate
from mtrec.evaluation.predict import Predictions, predict
from mtrec.evaluation.thresholds import choose_thresholds
from mtrec.launch import launched
from mtrec.lineage import built_from, code_revision
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import Bundle, save_model
from mtrec.progress import report
from mtrec.stages.parents import Parent, find_champion, find_teacher
from mtrec.stages.starting import Start, about_student, start_for
from mtrec.training.checkpoint import has_checkpoint
from mtrec.training.cost import seconds_per_step
from mtrec.training.distributed import Processes, whole
from mtrec.training.joining import joined
from mtrec.training.loop import Progress, Trainer, Validate

RANKED_USERS = 1_000
"""Users whose rankings decide early stopping."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    dataset: Path
    checkpoints: Path | None = None
    """Folder for checkpoints; a run of the same code and scenario on the same data resumes there."""
    code_revision: str | None = None
    """The code's revision as the lineage has it; None: asked from the code that runs."""
    text_cache: Path | None = None
    """Folder in which what the encoder's frozen layers give for each text is kept for later runs, within
    `training.cache_mb`; None: in memory."""
    tracking_uri: str | None = None
    pipeline_run: str | None = None
    """Name of the pipeline run, under which MLflow keeps the curves; None: nothing is logged."""
    trainer: str | None = None
    """Where training runs, as JSON text of a `mtrec.training.nodes.Place`; None: in this process."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    model: Path
    losses: Path
    """JSON lines: a `train` line every few steps, a `valid` line every epoch, and a `tasks` line whenever the
    tasks' gradients were compared. Before them a `pretrain` line per pass of pretraining, or a `match` line per
    pass in which a student learned its teacher's text vectors."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Train all tasks together; under torchrun, together with the other processes that it started.

    The first process writes, logs and shows progress, and all return when it is done. Where `inputs.trainer` asks
    for several processes, this one starts them and waits for what they make. See docs/training.md.

    Returns:
        epochs, best_epoch, steps, seconds, seconds_per_step (None for very short epochs), parameters,
        trained_parameters, text_cache (`TextEncoder.reused`), temperatures and thresholds (`settle`),
        distillation (of a student, `about_student`), and started_from (of a warm start, `Start.started_from`).

    Raises:
        ConfigError: the encoder cannot be pretrained, `inputs.trainer` is wrong, or the image that trains was built
            from other code than the run's.
        ModelError: the encoder cannot be loaded, or the teacher or the champion to start from cannot be used.
        DataError: the dataset folder is not whole.
        RunError: a checkpoint is damaged, MLflow cannot be used, or another process was lost.
        SystemExit: another process has failed and says why.
    """
    _check_code(inputs.code_revision)
    if inputs.trainer and launched().size == 1:
        from mtrec.stages.launching import launch
        from mtrec.training.nodes import Place

        place = Place.from_text(inputs.trainer)
        if place.distributed:
            return launch(place, inputs, outputs, scenario, _key(inputs, scenario))
    with joined(scenario.training) as processes:
        return _run(inputs, outputs, scenario, processes)


def _check_code(revision: str | None) -> None:
    """Lineage names one revision, so the image that trains must be of the same code as that of the other steps."""
    if revision and (built := built_from()) and built != revision:
        raise ConfigError(
            f"fine_tune: the image that trains was built from {built}, the run's other steps from {revision}: give "
            "the cluster file and the training runtime images of one build"
        )


def _run(inputs: Inputs, outputs: Outputs, scenario: Scenario, processes: Processes) -> dict[str, Any]:
    dataset = Dataset.read(inputs.dataset)
    encoding = Encoding.read(inputs.dataset / "encoding.json")
    teacher = find_teacher(scenario, inputs.tracking_uri)
    champion = find_champion(scenario, inputs.tracking_uri, processes)
    key = _key(inputs, scenario, teacher or champion) if inputs.checkpoints else ""
    start = start_for(
        dataset,
        encoding,
        scenario,
        teacher=teacher,
        champion=champion,
        text_cache=inputs.text_cache,
        resumes=has_checkpoint(inputs.checkpoints, key),
        processes=processes,
    )
    del champion  # its memory
    bundle, trainer = trainer_for(
        dataset,
        encoding,
        scenario,
        start=start,
        watch=_progress_of(scenario) if processes.leads else lambda progress: None,
        checkpoints=inputs.checkpoints,
        key=key,
        processes=processes,
    )
    with _logging(inputs, scenario, trainer, start.started_from):
        end = trainer.fit()
    settled = settle(bundle, trainer)
    weights = whole(bundle.model.state_dict())
    parameters = list(bundle.model.parameters())
    summary = {
        "epochs": end.epoch,
        "best_epoch": end.best_epoch,
        "steps": end.step,
        "seconds": round(end.seconds, 1),
        "seconds_per_step": seconds_per_step(end.lines),
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "text_cache": bundle.model.encoder.reused(),
        **settled,
        "distillation": about_student(teacher, start, end, trainer.validate) if teacher else None,
        "started_from": start.started_from,
    }
    if processes.leads:
        save_model(outputs.model, bundle, dataset, trainer.data.catalogue, summary, weights)
        with replacing_file(outputs.losses) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in end.lines), encoding="utf-8")
    return summary


def trainer_for(
    dataset: Dataset,
    encoding: Encoding,
    scenario: Scenario,
    *,
    text_cache: Path | None = None,
    start: Start | None = None,
    processes: Processes | None = None,
    **settings: Any,
) -> tuple[Bundle, Trainer]:
    """A new model of the scenario and what trains it, judged by every task's skill on the validation part.

    Args:
        dataset: what preprocess made.
        encoding: its encoding.
        scenario: model, tasks and training.
        text_cache: see `Inputs`.
        start: what training starts from; None: made here.
        processes: those that train together.
        settings: `watch`, `checkpoints` and `key` of the trainer.

    Raises:
        ConfigError: the encoder cannot be pretrained, or a student has no teacher.
        ModelError: the encoder cannot be loaded.
    """
    processes = processes or Processes()
    start = start or start_for(dataset, encoding, scenario, text_cache=text_cache, processes=processes)
    settings |= {"validate": validation(scenario, encoding), "guide": start.guide and start.guide.add_to}
    trainer = Trainer(start.bundle, start.view, start.catalogue, processes=processes, **settings)
    trainer.progress.lines += start.lines
    if start.guide or start.started_from:
        trainer.judge_start()
    return start.bundle, trainer


def settle(bundle: Bundle, trainer: Trainer) -> dict[str, Any]:
    """Set what the trained model's heads take from the validation part.

    Returns:
        temperatures by task, see `mtrec.evaluation.calibration`; empty with `training.calibrate: false`. And
        thresholds by multi-label task, see `mtrec.evaluation.thresholds`; without those that keep one half.
    """
    tasks = {name: task for name, task in bundle.scenario.tasks.items() if not isinstance(task, NextItem)}
    history = bundle.scenario.model.history

    def said() -> dict[str, Predictions]:
        model, catalogue = bundle.model.eval(), trainer.data.catalogue
        return predict(model, trainer.view, catalogue, tasks, VALID, history)[0]

    temperatures = calibrate(bundle.model, said()) if bundle.scenario.training.calibrate else {}
    own = any(isinstance(task, MultiLabel) and task.thresholds == "per_label" for task in tasks.values())
    return {"temperatures": temperatures, "thresholds": choose_thresholds(bundle.model, said()) if own else {}}


def _key(inputs: Inputs, scenario: Scenario, parent: Parent | None = None) -> str:
    """Names what is trained on what by which code: scenario, revision, the bytes of the dataset and of the encoder.

    The weights of a student's teacher, or of the champion that training starts from, belong to it.

    An encoder's bytes count where it is a local folder. The bundled one is checked against a sum in the code, and
    one from the hub is as fixed as the scenario's `revision` makes it.
    """
    digest = hashlib.sha256(f"{scenario.digest}\0{inputs.code_revision or code_revision()}\0".encode())
    digest.update(parent.digest.encode() if parent else b"")
    encoder = Path(scenario.model.encoder.name)
    tables = [inputs.dataset / f"{name}.parquet" for name in ("users", "items", "interactions")]
    for path in (*tables, inputs.dataset / "encoding.json", *sorted(encoder.rglob("*"))):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def validation(scenario: Scenario, encoding: Encoding) -> Validate:
    """What early stopping looks at: every task's skill on the validation part."""

    def validate(model: Recommender, view: View, catalogue: Catalogue) -> dict[str, float]:
        rows, rankings = predict(
            model, view, catalogue, scenario.tasks, VALID, scenario.model.history, RANKED_USERS
        )
        skills = {
            name: metrics.skill(scenario.tasks[name], p.target, p.predicted, encoding.labels[name].prior)
            for name, p in rows.items()
        }
        for name, users in rankings.items():
            skills[name] = metrics.ranking([u.metrics for u in users]).get(metrics.PRIMARY["next_item"], 0.0)
        return skills

    return validate


def _progress_of(scenario: Scenario) -> Callable[[Progress], None]:
    epochs = scenario.training.epochs

    def watch(progress: Progress) -> None:
        report("fine_tune", progress.fraction, f"epoch {min(progress.epoch + 1, epochs)} of {epochs}")

    return watch


@contextmanager
def _logging(
    inputs: Inputs, scenario: Scenario, trainer: Trainer, started_from: dict[str, str] | None
) -> Iterator[None]:
    """Send the loss history to MLflow after every epoch, in a child of the pipeline run's run.

    The unit of the score is known at the end only, so that is when the scores of all epochs are sent.
    """
    if not inputs.pipeline_run or not trainer.processes.leads:
        yield
        return
    from mtrec import tracking

    known = {"started_from": started_from["champion"]} if started_from else {}
    parent = tracking.pipeline_run(scenario, inputs.pipeline_run, tracking_uri=inputs.tracking_uri, lineage=known)
    with tracking.child_run(parent, "fine_tune", system_metrics=True) as child:
        show, sent = trainer.watch, -1

        def send(lines: list[dict[str, Any]]) -> None:
            nonlocal sent
            if sent < 0:  # a child that was taken up again may have the first epochs
                sent = _known(lines, lambda name: tracking.logged_steps(child, name))
            tracking.log_losses(child, [line | {"score": None} for line in lines[sent:]])
            sent = len(lines)

        def watch(progress: Progress) -> None:
            show(progress)
            if progress.lines and progress.lines[-1]["kind"] == "valid" and len(progress.lines) > sent:
                send(progress.lines)

        trainer.watch = watch
        yield
        send(trainer.progress.lines)
        scored = tracking.logged_steps(child, "valid/score")
        ends = [line | {"metrics": {}} for line in trainer.progress.lines if line["kind"] == "valid"]
        tracking.log_losses(child, [line for line in ends if line["step"] not in scored])


def _known(lines: list[dict[str, Any]], logged_steps: Callable[[str], set[int]]) -> int:
    """How many of the lines MLflow has: those up to the last epoch of which it has a skill."""
    ends = [n for n, line in enumerate(lines, 1) if line["kind"] == "valid" and line["metrics"]]
    if not ends:
        return 0
    steps = logged_steps(f"valid/{next(iter(lines[ends[-1] - 1]['metrics']))}")
    return max((n for n in ends if lines[n - 1]["step"] in steps), default=0)
