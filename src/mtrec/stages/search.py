"""Search, a step of the search pipeline: one of several workers on one study, as `mtrec tune` is on a dataset.

The database of studies comes from the environment, MTREC_STUDIES: its URL holds a password, and whoever may look
at a pipeline sees its parameters.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError
from mtrec.stages import tune
from mtrec.training.search import Ended
from mtrec.training.study import shared_settings

STUDIES = "MTREC_STUDIES"
"""The environment variable with the database of studies."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    dataset: Path
    """What preprocess wrote."""
    data_version: str
    data: str | None = None
    """What the user gave as data, for the command that trains with the best settings."""
    study: str | None = None
    """The study's name; None: one that stands for space, settings and data."""
    trials: int | None = None
    """Trials that the study should have in all; None: as many as the scenario's search says."""
    seconds: int | None = None
    """After so many no trial is begun; None: no limit."""
    text_cache: Path | None = None
    tracking_uri: str | None = None
    pipeline_run: str | None = None
    """The pipeline run, by which `report_search` finds the study."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Nothing: what a worker finds is in the study, which `report_search` tells."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Work on the study until it has enough trials; other workers do the same at the same time.

    Returns:
        `study`, its name, and `ended`, how many trials this worker ended.

    Raises:
        ConfigError: MTREC_STUDIES is not set, or as `mtrec.stages.tune.run` raises.
        MtrecError: as `mtrec.stages.tune.run` raises.
    """
    trials = None if inputs.trials is None else str(inputs.trials)
    if trials is not None and not trials.isdecimal():
        raise ConfigError(f"search: trials is '{trials}': write a whole number, or nothing for search.trials")
    name = inputs.study or study_name(scenario, inputs.data_version)
    ended: list[Ended] = []
    with tempfile.TemporaryDirectory() as folder:
        tune.run(
            tune.Inputs(
                dataset=inputs.dataset,
                data_version=inputs.data_version,
                storage=studies(),
                study=name,
                trials=None if trials is None else int(trials),
                timeout=None if inputs.seconds is None else float(inputs.seconds),
                text_cache=inputs.text_cache,
                tracking_uri=inputs.tracking_uri,
                pipeline_run=inputs.pipeline_run,
                command=train_command(scenario, inputs.data),
            ),
            files_in(Path(folder)),
            scenario,
            tune.Listeners(ended=lambda end, best: ended.append(end)),
        )
    return {"study": name, "ended": len(ended)}


def studies() -> str:
    """URL of the database of studies.

    Raises:
        ConfigError: the environment does not name it.
    """
    url = os.environ.get(STUDIES)
    if not url:
        raise ConfigError(
            f"search: {STUDIES} is not set; give it the database of studies, "
            "postgresql://user:password@host/database, from a secret"
        )
    return url


def study_name(scenario: Scenario, data: str) -> str:
    """A name for the study of a scenario: the same space, settings and data have the same one.

    Args:
        scenario: space and settings.
        data: what stands for the data.
    """
    space = {path: parameter.model_dump(mode="json") for path, parameter in scenario.search.space.items()}
    parts = [space, scenario.search.sampler == "grid", shared_settings(scenario), data]
    return f"{scenario.name}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]}"


def train_command(scenario: Scenario, data: str | None) -> list[str]:
    """Words of the command that trains a scenario on a cluster."""
    words = ["mtrec", "submit", "training", "--scenario", scenario.name]
    return [*words, "--data", data] if data else words


def files_in(folder: Path) -> tune.Outputs:
    """The files of a search, by the names that MLflow keeps them under."""
    return tune.Outputs(**{name: folder / f"trials.{kind}" for name, kind in _KINDS.items()})


_KINDS = {"page": "html", "picture": "svg", "summary": "json"}
