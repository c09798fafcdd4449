"""Tune: trials of a search space on one preprocessed dataset, each like fine_tune but without a model at the end.

`mtrec tune` calls it after ingest, validate and preprocess, and so does each worker of the search pipeline (see
`mtrec.stages.search`). Every trial is trained by the trainer of fine_tune, its validation skills go to the study
after each epoch, and MLflow keeps a run per study with a child run per trial.
"""

from __future__ import annotations

import contextlib
import gc
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import ConfigError, MtrecError
from mtrec.evaluation.trial_report import write_trials
from mtrec.lineage import code_revision
from mtrec.progress import report
from mtrec.stages.ending import Ending
from mtrec.stages.fine_tune import trainer_for
from mtrec.training import space
from mtrec.training.loop import Progress
from mtrec.training.search import Ended, search
from mtrec.training.storage import GRACE_SECONDS, HEARTBEAT_SECONDS, Storage
from mtrec.training.study import Attempt, Skills, Study, shared_settings, value_of
from mtrec.training.trials import best_of, importance_of, trials_of

_PAUSE_SECONDS = 2.0
"""Between two looks at the trials that have not ended."""


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which study it is."""

    data_version: str
    storage: str
    """URL of the database of studies, see `mtrec.training.storage`."""
    study: str
    tracking_uri: str | None = None
    pipeline_run: str | None = None
    """The pipeline run that works on it, by which `mtrec.tracking.studies.study_of` finds it; None: none."""
    command: Sequence[str] = ("mtrec", "run")
    """Words of the command that trains with the scenario; the best settings are added to it."""


@dataclass(frozen=True, kw_only=True)
class Inputs(Which):
    """What the search works on."""

    dataset: Path
    """What preprocess wrote."""
    trials: int | None = None
    """Trials that the study should have in all; None: as many as the scenario's search says."""
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    text_cache: Path | None = None
    """Folder that keeps the work of the encoder's frozen layers from trial to trial; None: each does it anew."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the search writes, anew after every trial."""

    page: Path
    """HTML: the trials drawn and listed."""
    picture: Path
    """SVG: the drawings alone."""
    summary: Path
    """JSON: what `run` returns."""


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Who hears how the search goes."""

    begun: Callable[[Attempt, int], None] = lambda attempt, total: None
    """Called with a trial that begins, and how many the study should have in all."""
    ended: Callable[[Ended, dict[str, Any] | None], None] = lambda ended, best: None
    """Called with the end of a trial and the best trial of the study so far."""
    waiting: Callable[[], None] = lambda: None
    """Called every second while another process measures the reference."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario, listeners: Listeners = Listeners()) -> dict[str, Any]:
    """Work on a study until it has enough trials; other processes may do the same at the same time.

    Returns:
        name, sampler, pruner, space, trials, best (a trial or None), importance, settings (of the best trial, as
        arguments of --set), command, mlflow_run and made_from.

    Raises:
        ConfigError: the space is wrong, the study exists with another space, data or settings, or trials should
            start from the champion.
        DataError: the dataset folder is not whole.
        ModelError: the encoder cannot be loaded.
        RunError: the storage or MLflow cannot be used, or the scenario's own settings cannot be trained.
    """
    if scenario.training.start == "champion":
        raise ConfigError("training.start: a search trains from the pretrained encoder; set it to pretrained")
    study, parent = _opened(inputs, scenario)
    _end_lost(study, parent)
    trials = _Trials(study, parent, inputs)

    def ended(attempt: Attempt, end: Ended) -> None:
        trials.end(attempt, end)
        listeners.ended(end, _write(study, parent, inputs, outputs)["best"])

    def close(status: str) -> dict[str, Any]:
        trials.close(status)
        summary = _write(study, parent, inputs, outputs)
        tracking.log_artifacts(parent, [outputs.page, outputs.picture])
        if not any(trial["state"] == "running" for trial in summary["trials"]):
            tracking.finish_run(parent, status)
        return summary

    try:
        search(
            study,
            trials.train,
            trials=inputs.trials,
            timeout=inputs.timeout,
            begun=listeners.begun,
            ended=ended,
            waiting=listeners.waiting,
        )
    except BaseException as error:
        with contextlib.suppress(MtrecError):
            close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    return close("FINISHED")


def conclude(inputs: Which, outputs: Outputs, scenario: Scenario, ending: Ending) -> dict[str, Any]:
    """Write what a study came to, after those who worked on it; MLflow gets the files and the best settings.

    Trials of workers that were killed are queued again for whoever goes on with the study, and their runs ended,
    once they have given no sign of life for long enough. A trial of somebody else's goes on.

    Args:
        inputs: which study.
        outputs: what to write.
        scenario: the scenario that was searched.
        ending: how the workers ended; where that is not sure, a trial that has not ended was a failed worker's.

    Returns:
        What `run` returns.

    Raises:
        ConfigError: the space is wrong, or the study exists with another space, data or settings.
        RunError: the storage or MLflow cannot be used.
    """
    study, parent = _opened(inputs, scenario)
    give_up = time.monotonic() + GRACE_SECONDS + HEARTBEAT_SECONDS
    while (unended := study.unended()) and time.monotonic() < give_up:
        report("report_search", None, f"waiting for a sign of life of {unended} trials")
        time.sleep(_PAUSE_SECONDS)
    _end_lost(study, parent)
    summary = _write(study, parent, inputs, outputs)
    if summary["best"]:
        settings = shlex.join(word for setting in summary["settings"] for word in ("--set", setting))
        tracking.tag_run(parent, best_trial=str(summary["best"]["number"]), best_settings=settings)
    open_trials = any(trial["state"] in ("running", "waiting") for trial in summary["trials"])
    failure = ending.failure or (tracking.UNTOLD if open_trials and not ending.sure else None)
    tracking.tag_run(parent, outcome=f"failed: {failure}"[: tracking.LONGEST] if failure else "searched")
    tracking.log_artifacts(parent, [outputs.page, outputs.picture, outputs.summary])
    if not unended:
        tracking.finish_run(parent, "FAILED" if failure else "FINISHED")
    return summary


def _opened(inputs: Which, scenario: Scenario) -> tuple[Study, tracking.Run]:
    """The study and its run in MLflow, each made where there is none."""
    study = Study(Storage(inputs.storage), inputs.study, scenario, inputs.data_version)
    parent = tracking.study_run(
        scenario,
        inputs.study,
        settings=shared_settings(scenario),
        tags={
            "mtrec.sampler": scenario.search.sampler,
            "mtrec.data_version": inputs.data_version,
        },
        pipeline_run=inputs.pipeline_run,
        tracking_uri=inputs.tracking_uri,
    )
    return study, parent


class _Trials:
    """Trains trials, each with a child run in MLflow."""

    def __init__(self, study: Study, parent: tracking.Run, inputs: Inputs) -> None:
        self.study, self.parent, self.text_cache = study, parent, inputs.text_cache
        self.dataset = Dataset.read(inputs.dataset)
        self.encoding = Encoding.read(inputs.dataset / "encoding.json")
        self.revision = code_revision()
        self.open: dict[int, tracking.Run] = {}

    def train(self, attempt: Attempt) -> Skills:
        """Train one trial; the skills of its best epoch, which is the one that fine_tune would keep."""
        _free()
        scenario = space.at(self.study.scenario, attempt.point)
        tags = {"mtrec.study": self.study.name, "mtrec.code_revision": self.revision}
        child = tracking.trial_run(self.parent, attempt.number, attempt.point, tags)
        self.open[attempt.number] = child
        attempt.note(mlflow_run=child.run_id, code_revision=self.revision)
        watch = _watch(attempt, child, scenario.training.epochs)
        end = trainer_for(self.dataset, self.encoding, scenario, text_cache=self.text_cache, watch=watch)[1].fit()
        attempt.note(best_epoch=end.best_epoch)
        return end.best_skills

    def end(self, attempt: Attempt, end: Ended) -> None:
        """Tell MLflow how a trial ended."""
        child = self.open.pop(attempt.number, None)
        if child is None:
            return
        if attempt.reference is None and end.state == "complete":  # its values could not be known before
            reference = self.study.reference() or {}
            for epoch, skills in enumerate(attempt.epochs, 1):
                tracking.log_metrics(child, {"valid/value": value_of(skills, reference)}, epoch)
        tracking.log_metrics(child, {"value": end.value})
        tracking.tag_run(child, trial_state=end.state, **({"why": end.why} if end.why else {}))
        tracking.finish_run(child, "KILLED" if end.state == "lost" else "FINISHED")

    def close(self, status: str) -> None:
        """End the runs of trials that were broken off."""
        for child in self.open.values():
            tracking.tag_run(child, trial_state="failed")
            tracking.finish_run(child, status)
        self.open.clear()


def _watch(attempt: Attempt, child: tracking.Run, epochs: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        report("tune", progress.fraction, f"epoch {min(progress.epoch + 1, epochs)} of {epochs}")
        if progress.epoch <= len(attempt.epochs):
            return
        skills = next(line["metrics"] for line in reversed(progress.lines) if line["kind"] == "valid")
        try:
            attempt.report(skills, last=progress.stopped or progress.epoch >= epochs)
        finally:
            curves = {f"valid/{task}": skill for task, skill in skills.items()}
            tracking.log_metrics(child, {**curves, "valid/value": attempt.last_value}, progress.epoch)

    return watch


def _free() -> None:
    """Give the memory of the trial before back."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _end_lost(study: Study, parent: tracking.Run) -> None:
    """End the runs of trials whose process was killed. MLflow is asked first: what it has was claimed before."""
    runs = tracking.running_trials(parent)
    alive = {trial["number"] for trial in trials_of(study) if trial["state"] == "running"} if runs else set()
    for number, child in runs.items():
        if number not in alive:
            tracking.tag_run(child, trial_state="failed")
            tracking.finish_run(child, "KILLED")


def _write(study: Study, parent: tracking.Run, inputs: Which, outputs: Outputs) -> dict[str, Any]:
    trials = trials_of(study)
    best = best_of(trials)
    settings = space.as_settings(best["point"]) if best else []
    summary = {
        "name": study.name,
        "scenario": study.scenario.name,
        "sampler": study.search.sampler,
        "pruner": study.search.pruner,
        "space": {path: p.model_dump(mode="json") for path, p in study.search.space.items()},
        "trials": trials,
        "best": best,
        "importance": importance_of(study),
        "settings": settings,
        "command": [*inputs.command, *(word for setting in settings for word in ("--set", setting))],
        "mlflow_run": parent.run_id,
        "made_from": {"data_version": inputs.data_version, "storage": study.storage.shown},
    }
    tracking.log_values(parent, trials)
    write_trials(outputs.page, outputs.picture, summary)
    with replacing_file(outputs.summary) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary
