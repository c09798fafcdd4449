"""`mtrec tune`: the data goes once through ingest, validate and preprocess, then trials work on it.

State lies in .mtrec/search/<study>/: dataset/, validation.json, data_docs/, quarantine/, trials.html, trials.svg,
trials.json and log.txt. The studies themselves are in .mtrec/search.db unless --storage names another database.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError, InputError
from mtrec.lineage import data_fingerprint
from mtrec.progress import listening
from mtrec.stages import tune
from mtrec.stages.search import study_name
from mtrec.tracking import resolve_uri
from mtrec.training.space import check_space, moved
from mtrec.training.storage import Storage
from pipelines.following import aside, or_stop
from pipelines.kfp_session import Interrupted, stoppable
from pipelines.preparing import prepare
from pipelines.tuning_view import View
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from rich.console import Console

_NAME = re.compile(r"[\w][\w.-]{0,99}")


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
    name = study or study_name(scenario, data_fingerprint(data))
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--study {name}: letters, digits, '.', '_' and '-' only, 100 at most")
    kept = Storage(storage or f"sqlite:///{workspace.root / 'search.db'}")
    folder = workspace.root / "search" / name
    uri = resolve_uri(tracking_uri)
    page, picture, written = (folder / f"trials.{kind}" for kind in ("html", "svg", "json"))
    outputs = tune.Outputs(page=page, picture=picture, summary=written)
    folder.mkdir(parents=True, exist_ok=True)
    with View(console) as view, aside(folder / "log.txt"), stoppable() as asked, listening(or_stop(view, asked)):
        try:
            view.opened(name, kept.shown, moved(scenario))
            version = prepare(scenario, data, folder, view, workspace.dvc_root)
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
