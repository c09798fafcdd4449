"""Fine-tuning in several processes: what they need goes to a folder that all see, what they made comes back.

The step's own process starts them, repeats their log and progress, raises what made them fail, and cleans up.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.errors import DataError, InputError, MtrecError, RunError, Unavailable
from mtrec.progress import read_line, report
from mtrec.stages.execution import Failure, read_failure
from mtrec.training.nodes import LOCAL, End, Job, Lost, Place, follow, job_name, run_label, stoppable

if TYPE_CHECKING:
    from mtrec.stages.fine_tune import Inputs, Outputs

_INJECTED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_URI")
"""Where Kubeflow Pipelines gave this step a run in MLflow, `tracking.pipeline_run` finds the pipeline's run through
it, and the first node, which logs the curves, would otherwise open a second one."""

_SEEN_AFTER = 60.0
"""Seconds after which every file server shows one node what another one wrote."""


def launch(place: Place, inputs: Inputs, outputs: Outputs, scenario: Scenario, key: str) -> dict[str, Any]:
    """Fine-tune on the nodes of a place.

    Args:
        place: where.
        inputs: of the stage. Checkpoints and cached texts are used where they are; the nodes must see them.
        outputs: of the stage, written here when the nodes have done well.
        scenario: the whole scenario.
        key: names code, scenario and data; another attempt with the same one goes on with what this one started.

    Returns:
        The stage's summary, as the first node wrote it.

    Raises:
        InputError: the nodes say that what they were given is wrong, or `place` does not fit the cluster.
        RunError: the training failed there, or the nodes could not be started.
        Lost: the nodes failed: out of memory, evicted, out of time.
    """
    run = inputs.pipeline_run or ""
    name = job_name(run, f"{key}{place.as_text()}")
    folder = place.work / run_label(run) / name.rpartition("-")[2]
    job = Job(
        name=name,
        label=run_label(run),
        place=place,
        arguments=_arguments(inputs, folder),
        env=_injected(),
    )
    ears = _Ears()
    with stoppable():
        claim = _Claim(folder)
        try:
            known = (folder / "dataset").is_dir()
            if not known:
                _bring(inputs, scenario, folder)
                claim.check()
            report("fine_tune", None, f"starting {place.num_nodes} × {place.processes} processes")
            end = follow(job, ears.hear, adopt=known, owned=claim.holds)
            if not end.complete:
                ears.tell(end)
            return _fetch(folder, outputs, place)
        except MtrecError as error:
            claim.check(error)
            raise
        finally:
            if claim.holds():
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another training of the run has its folder there
                    folder.parent.rmdir()


def clean_up(place: Place, pipeline_run: str) -> list[str]:
    """Remove what a step that was killed has left running and lying; for the run's exit handler.

    Args:
        place: that of the run's fine-tuning.
        pipeline_run: the run.

    Returns:
        The names of the TrainJobs that were deleted.

    Raises:
        RunError: the cluster refused, or cannot be reached.
    """
    names: list[str] = []
    if place.distributed and place.runtime != LOCAL:
        from mtrec.training.trainjob import delete_trainjobs

        names = delete_trainjobs(run_label(pipeline_run), place.namespace)
    shutil.rmtree(place.work / run_label(pipeline_run), ignore_errors=True)
    return names


def _injected() -> dict[str, str]:
    """The run that the workflow gave this step. Credentials stay: the nodes have their own."""
    if not os.environ.get("MLFLOW_RUN_ID"):
        return {}
    return {name: value for name in _INJECTED if (value := os.environ.get(name)) and "@" not in value}


def _arguments(inputs: Inputs, folder: Path) -> tuple[str, ...]:
    given = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
    given |= {"dataset": folder / "dataset", "trainer": None}
    paths = {"model": folder / "model", "losses": folder / "losses.jsonl"}
    options = ["--marked", "--scenario", str(folder / "scenario.yaml"), "--summary", str(folder / "summary.json")]
    for name, value in given.items():
        options += ["--input", f"{name}={value}"] if value is not None else []
    for name, path in paths.items():
        options += ["--output", f"{name}={path}"]
    return tuple(options)


def _bring(inputs: Inputs, scenario: Scenario, folder: Path) -> None:
    if not (inputs.dataset / "encoding.json").is_file():
        raise DataError(f"{inputs.dataset}: no dataset of the stage preprocess")
    with replacing_file(folder / "scenario.yaml") as temporary:  # JSON is YAML
        temporary.write_text(json.dumps(scenario.as_dict()), encoding="utf-8")
    with replacing_folder(folder / "dataset") as temporary:
        shutil.copytree(inputs.dataset, temporary, dirs_exist_ok=True)


def _fetch(folder: Path, outputs: Outputs, place: Place) -> dict[str, Any]:
    give_up = time.monotonic() + _SEEN_AFTER
    while not (folder / "summary.json").is_file():
        if time.monotonic() > give_up:
            raise RunError(
                f"fine_tune: the nodes have ended, but wrote nothing to {folder}; {place.work} must be on a volume "
                "that they and this step mount at the same place"
            )
        time.sleep(1)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    with replacing_folder(outputs.model) as temporary:
        shutil.copytree(folder / "model", temporary, dirs_exist_ok=True)
    with replacing_file(outputs.losses) as temporary:
        shutil.copyfile(folder / "losses.jsonl", temporary)
    return summary


class _Claim:
    """Says which attempt a folder, and the nodes that work in it, belong to: the last one that came.

    A machine that was given up may come back, and end the attempt that it ran after the next one has begun.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._own = folder / "attempt", uuid.uuid4().hex
        with replacing_file(self._path) as temporary:
            temporary.write_text(self._own, encoding="utf-8")

    def holds(self) -> bool:
        """Whether nobody came after this attempt, for certain."""
        return self._own_still() is True

    def check(self, cause: Exception | None = None) -> None:
        """Go on, unless somebody came after this attempt, or has removed the folder.

        Raises:
            Lost: that is so.
        """
        if self._own_still() is False:
            raise Lost("fine_tune: another attempt at this step has taken its nodes over") from cause

    def _own_still(self) -> bool | None:
        """None: the volume does not tell."""
        try:
            return self._path.read_text(encoding="utf-8") == self._own
        except FileNotFoundError:
            return False
        except OSError:
            return None


class _Ears:
    """Hears what the nodes say: repeats their log and their progress, and keeps what made them fail."""

    def __init__(self) -> None:
        self._failure: Failure | None = None
        self._said = ""

    def hear(self, node: int, line: str) -> None:
        """One line of a node's log."""
        if progress := read_line(line):
            report(progress.stage, progress.fraction, progress.message)
        elif failure := read_failure(line):
            self._failure = self._failure or failure
        else:
            self._said = line.removeprefix("mtrec: ") if line.startswith("mtrec: ") else self._said
            print(f"node {node}: {line}", file=sys.stderr, flush=True)

    def tell(self, end: End) -> None:
        """Raise what the nodes failed of.

        Raises:
            InputError: what they were given is wrong.
            RunError: the training failed.
            Lost: they failed themselves.
            Unavailable: a server was away that the training needs.
            RuntimeError: a bug, or a broken machine.
        """
        failure = self._failure
        if failure is None:  # Python always says something: they were ended, or never began
            raise Lost(f"fine_tune: the nodes failed: {'; '.join(filter(None, [self._said, end.reason]))}")
        # A process that lost another one can only say so; those who run the nodes know what became of it.
        if end.lost or "another process was lost" in failure.message:
            raise Lost("; ".join([failure.message, *([end.reason] if end.lost else [])]))
        if failure.passing:
            raise Unavailable(failure.message)
        if not failure.expected:
            raise RuntimeError(failure.message) from _Elsewhere(failure.traceback)
        kind = InputError if failure.exit_code == InputError.exit_code else RunError
        raise kind(failure.message)


class _Elsewhere(Exception):
    """Shows the traceback of a node above that of the step."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"
