"""Where a machine keeps its state: the folder .mtrec under the working directory.

.mtrec/mlflow.db      MLflow's tracking store and registry (SQLite)
.mtrec/mlartifacts/   MLflow's files
.mtrec/dvc/           DVC repository of ingested tables; its remote is .mtrec/dvc-remote
.mtrec/pipelines/     outputs of each step, one folder per run, and the cache of the pure steps
.mtrec/checkpoints/   training states: of runs that have not ended, and of each scenario's last finished run
.mtrec/texts/         what frozen layers of encoders give for texts, within training.cache_mb; may be deleted
.mtrec/search.db      studies of mtrec tune (SQLite)
.mtrec/search/<study>/  dataset, plots and log of a study
.mtrec/drift/<scenario>/  the newest decision about retraining, and the joined tables
.mtrec/runs/<run>/    what people look at: report.html, gate.json, evaluation.json, log.txt …
"""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtrec.data.contract import replacing_file
from mtrec.errors import InputError, RunError

FOLDER = ".mtrec"
_KEPT_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The state folder of one working directory. Creating the object creates nothing."""

    root: Path
    """Absolute path of .mtrec."""

    @classmethod
    def here(cls) -> Workspace:
        """The workspace of the working directory."""
        return cls(root=Path.cwd() / FOLDER)

    @property
    def dvc_root(self) -> Path:
        """DVC repository of the ingested tables."""
        return self.root / "dvc"

    @property
    def pipelines(self) -> Path:
        """Outputs of the steps."""
        return self.root / "pipelines"

    @property
    def checkpoints(self) -> Path:
        """Training states."""
        return self.root / "checkpoints"

    @property
    def texts(self) -> Path:
        """What frozen layers of encoders give for texts, for all runs."""
        return self.root / "texts"

    @property
    def drift(self) -> Path:
        """One folder per scenario with the newest decision about retraining."""
        return self.root / "drift"

    @property
    def runs(self) -> Path:
        """One folder per run, for people."""
        return self.root / "runs"

    def latest_report(self) -> Path:
        """The report of the newest run that made one.

        Raises:
            InputError: there is none yet.
        """
        reports = sorted(self.runs.glob("*/report.html"), key=lambda path: path.stat().st_mtime_ns)
        if not reports:
            raise InputError(f"{shown(self.runs)}: no report yet; make one with 'mtrec run'")
        return reports[-1]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workspace for one run; the lock goes when the process ends, however it ends.

        Raises:
            RunError: another run holds it.
        """
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "run.lock"
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunError(
                f"{shown(path)}: another run is going on in this folder; wait for its end, or run elsewhere"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def open_run(self, scenario: str, key: str, *, after_failure: bool = True) -> Run:
        """Begin a run, or go on with an unfinished one that has the same key.

        Args:
            scenario: name of the scenario; becomes part of the run's name.
            key: hash over scenario, data and code.
            after_failure: whether to go on with one that failed, too.
        """
        ended = {"finished"} if after_failure else {"finished", "failed"}
        for run in self._runs_by_age():
            if run.state.get("key") == key and run.state.get("state") not in ended:
                return run
        stem = f"{scenario}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{key[:6]}"
        names = (stem if number == 1 else f"{stem}-{number}" for number in itertools.count(1))
        name = next(name for name in names if not (self.runs / name).exists())
        return Run(name=name, folder=self.runs / name, outputs=self.pipelines / name)

    def prune(self) -> None:
        """Drop step outputs of all but the newest runs, and training states that no run will go on with.

        Reports and registered models stay, and so does the training state of every unfinished run, however old: it
        may hold hours of work. That of a scenario's last finished run stays too: the same run again need not train.
        """
        runs = self._runs_by_age()
        for run in runs[_KEPT_RUNS:]:
            shutil.rmtree(run.outputs, ignore_errors=True)
        states = [run.state for run in runs]
        newest = {state.get("key"): state.get("state") for state in reversed(states)}
        unfinished = {key for key, state in newest.items() if state != "finished"}
        finished = [state for state in reversed(states) if state.get("state") == "finished"]
        last = {state.get("scenario"): state.get("key") for state in finished}.values()
        for folder in self.checkpoints.glob("*"):
            key = folder.name.removeprefix(".").partition(".")[0]  # a half-written one: .<key>.<random>.tmp
            if key not in unfinished and folder.name not in last:
                shutil.rmtree(folder, ignore_errors=True)

    def _runs_by_age(self) -> list[Run]:
        """Known runs, newest first."""
        folders = sorted(
            (path.parent for path in self.runs.glob("*/run.json")),
            key=lambda folder: (folder / "run.json").stat().st_mtime_ns,
            reverse=True,
        )
        return [Run(name=f.name, folder=f, outputs=self.pipelines / f.name) for f in folders]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the pipeline."""

    name: str
    """Also the tag mtrec.pipeline_run in MLflow."""
    folder: Path
    """Files for people."""
    outputs: Path
    """Outputs of the steps."""

    @property
    def log(self) -> Path:
        """Everything the steps and the workflow engine printed."""
        return self.folder / "log.txt"

    @property
    def state(self) -> dict[str, Any]:
        """What run.json says; empty for a run that has not begun or whose file is broken."""
        try:
            content = json.loads((self.folder / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def update(self, **values: Any) -> None:
        """Write values into run.json."""
        content = {**self.state, **values}
        with replacing_file(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def callable_as(command: str) -> str:
    """How people call a command of this environment here: its name where PATH finds this one, else its path."""
    own = Path(sysconfig.get_path("scripts")) / command
    found = shutil.which(command)
    if not own.exists() or (found is not None and Path(found).samefile(own)):
        return command
    return shlex.quote(shown(own))


def shown(path: Path) -> str:
    """A path as people see it: relative to the working directory when it lies inside."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
