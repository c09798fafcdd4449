"""`mtrec tune`: the data goes once through ingest, validate and preprocess, then trials work on it.

State lies in .mtrec/search/<study>/: dataset/, validation.json, data_docs/, quarantine/, trials.html, trials.svg,
trials.json and log.txt. The studies themselves are in .mtrec/search.db unless --storage names another database.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.errors import ConfigError, InputError
from mtrec.lineage import code_revision, data_fingerprint
from mtrec.progress import Listener, Progress, listening
from mtrec.stages import tune
from mtrec.stages.execution import run_stage
from mtrec.tracking import resolve_uri
from mtrec.training.space import check_space, moved
from mtrec.training.storage import Storage
from mtrec.training.study import shared_settings
from pipelines.kfp_session import Interrupted, stoppable
from pipelines.tuning_view import View
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console

_NAME = re.compile(r"[\w][\w.-]{0,99}")
_NOT_DATA = ("training", "model", "gate", "search", "description")


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The end of a search."""

    summary: dict[str, Any]
    """What `mtrec.stages.tune.run` returns."""
    folder: Path
    page: Path
    picture: Path
    storage: str
    """URL of the studies, without a password."""
    tracking_uri: str
    seconds: float


def run_search(
    scenario: Scenario,
    *,
    workspace: Workspace,
    console: Console,
    command: Sequence[str],
    data: Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    tracking_uri: str | None = None,
) -> Searched:
    """Work on a study until it has enough trials.

    Args:
        scenario: settings, data and the search's space.
        workspace: where state is kept.
        console: where people watch.
        command: words of the `mtrec run` that trains with these settings and this data.
        data: raw data; None lets the scenario make it.
        storage: URL of the studies; None: the workspace's SQLite file.
        study: the study's name; None: one that stands for space, settings and data.
        trials: trials that the study should have in all; None: as many as the scenario says.
        timeout: seconds after which no trial is begun.
        tracking_uri: MLflow's; None means MLFLOW_TRACKING_URI, else the workspace's SQLite file.

    Raises:
        InputError: the data is not there or does not pass, or the space or the study's name is wrong.
        RunError: storage or MLflow cannot be used, or the scenario's own settings cannot be trained.
        Interrupted: Ctrl-C or SIGTERM; the trial that ran is queued again.
    """
    started = time.monotonic()
    if data is not None and not data.exists():
        raise InputError(f"--data {data}: no such file or folder")
    data = data.resolve() if data else None
    check_space(scenario)
    name = study or _default_name(scenario, data)
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--study {name}: letters, digits, '.', '_' and '-' only, 100 at most")
    kept = Storage(storage or f"sqlite:///{workspace.root / 'search.db'}")
    folder = workspace.root / "search" / name
    uri = resolve_uri(tracking_uri)
    page, picture, written = (folder / f"trials.{kind}" for kind in ("html", "svg", "json"))
    outputs = tune.Outputs(page=page, picture=picture, summary=written)
    folder.mkdir(parents=True, exist_ok=True)
    with View(console) as view, _aside(folder / "log.txt"), stoppable() as asked, listening(_or_stop(view, asked)):
        try:
            view.opened(name, kept.shown, moved(scenario))
            version = _prepare(scenario, data, folder, view)
            inputs = tune.Inputs(
                dataset=folder / "dataset",
                data_version=version,
                storage=kept.url,
                study=name,
                trials=trials,
                timeout=timeout,
                text_cache=workspace.texts,
                tracking_uri=uri,
                command=command,
            )
            listeners = tune.Listeners(begun=view.begun, ended=view.ended, waiting=view.waiting)
            summary = tune.run(inputs, outputs, scenario, listeners)
        except KeyboardInterrupt as error:
            raise Interrupted("stopped; ended trials are kept, the one that ran is queued again") from error
    return Searched(
        summary=summary,
        folder=folder,
        page=outputs.page,
        picture=outputs.picture,
        storage=kept.shown,
        tracking_uri=uri,
        seconds=time.monotonic() - started,
    )


def _or_stop(view: View, asked: Event) -> Listener:
    """Show progress, or stop where somebody has asked for it and it got lost."""

    def heard(said: Progress) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        view.heard(said)

    return heard


def _default_name(scenario: Scenario, data: Path | None) -> str:
    """The same space, settings and data have the same study."""
    space = {path: parameter.model_dump(mode="json") for path, parameter in scenario.search.space.items()}
    parts = [space, scenario.search.sampler == "grid", shared_settings(scenario), data_fingerprint(data)]
    return f"{scenario.name}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]}"


def _prepare(scenario: Scenario, data: Path | None, folder: Path, view: View) -> str:
    """Make the dataset, unless the same code has made it from the same data and settings; its data version."""
    from filelock import FileLock

    wanted = {key: value for key, value in scenario.settings.items() if key not in _NOT_DATA}
    for task in wanted["tasks"].values():
        task.pop("weight")
    parts = [json.dumps(wanted, sort_keys=True), data_fingerprint(data), code_revision()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    state, work = folder / "data.json", folder / "work"
    with FileLock(folder / "data.lock"):
        known = _read(state)
        if known.get("key") == key and (folder / "dataset").is_dir():
            view.step("data", "done (made before)")
            return str(known["data_version"])
        state.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)
        with view.timed("ingest"):
            said = run_stage(
                "ingest",
                inputs={"data": str(data or "")},
                outputs={"tables": work / "tables", "summary": work / "ingest.json"},
                scenario=scenario,
            )
        with view.timed("validate"):
            outputs = {name: folder / name for name in ("quarantine", "data_docs")}
            run_stage(
                "validate",
                inputs={"tables": work / "tables"},
                outputs={**outputs, "validated": work / "validated", "summary": folder / "validation.json"},
                scenario=scenario,
            )
        with view.timed("preprocess"):
            run_stage(
                "preprocess",
                inputs={"tables": work / "validated"},
                outputs={"dataset": folder / "dataset"},
                scenario=scenario,
            )
        shutil.rmtree(work, ignore_errors=True)
        with replacing_file(state) as temporary:
            temporary.write_text(json.dumps({"key": key, "data_version": said["data_version"]}), encoding="utf-8")
    return str(said["data_version"])


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _aside(log: Path) -> Iterator[None]:
    """Send what libraries print to a file; the console has its own hold on the terminal."""
    with (
        log.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
