"""Report a search, whatever happened, as the last of it: page, picture, summary, the best settings in MLflow."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.stages import tune
from mtrec.stages.ending import read_ending
from mtrec.stages.search import files_in, studies, train_command
from mtrec.tracking import study_of


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    pipeline_run: str
    """The pipeline run, whose workers have said in MLflow which study it was."""
    state: str
    """How the workflow says that its steps ended, see `mtrec.stages.ending.read_ending`."""
    message: str | None = None
    """What it says of a failure."""
    data: str | None = None
    """As in `mtrec.stages.search`."""
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes; nothing where no worker has begun."""

    page: Path
    """HTML: the trials drawn and listed."""
    picture: Path
    """SVG: the drawings alone."""
    summary: Path
    """JSON: what `run` returns."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Write what the study came to, and end its run in MLflow.

    Returns:
        What `mtrec.stages.tune.run` returns; nothing where no worker has begun.

    Raises:
        ConfigError: MTREC_STUDIES is not set, or the study exists with another space, data or settings.
        RunError: the storage or MLflow cannot be used.
    """
    storage, known = studies(), study_of(scenario, inputs.pipeline_run, inputs.tracking_uri)
    if known is None:
        return {}
    name, data_version = known
    which = tune.Which(
        data_version=data_version,
        storage=storage,
        study=name,
        tracking_uri=inputs.tracking_uri,
        pipeline_run=inputs.pipeline_run,
        command=train_command(scenario, inputs.data),
    )
    with tempfile.TemporaryDirectory() as folder:
        written = files_in(Path(folder))
        summary = tune.conclude(which, written, scenario, read_ending(inputs.state, inputs.message))
        for field in fields(outputs):
            with replacing_file(getattr(outputs, field.name)) as temporary:
                shutil.copyfile(getattr(written, field.name), temporary)
    return summary
