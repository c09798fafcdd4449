"""Report a search, after its workers: the page, the picture, the summary, and the best settings in MLflow."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.stages import tune
from mtrec.stages.search import files_in, studies, study_name, train_command


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    data_version: str
    data: str | None = None
    """As in `mtrec.stages.search`, like the rest."""
    study: str | None = None
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    page: Path
    """HTML: the trials drawn and listed."""
    picture: Path
    """SVG: the drawings alone."""
    summary: Path
    """JSON: what `run` returns."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Write what the study came to.

    Returns:
        What `mtrec.stages.tune.run` returns.

    Raises:
        ConfigError: MTREC_STUDIES is not set, or the study exists with another space, data or settings.
        RunError: the storage or MLflow cannot be used.
    """
    which = tune.Which(
        data_version=inputs.data_version,
        storage=studies(),
        study=inputs.study or study_name(scenario, inputs.data_version),
        tracking_uri=inputs.tracking_uri,
        command=train_command(scenario, inputs.data),
    )
    with tempfile.TemporaryDirectory() as folder:
        written = files_in(Path(folder))
        summary = tune.conclude(which, written, scenario)
        for field in fields(outputs):
            with replacing_file(getattr(outputs, field.name)) as temporary:
                shutil.copyfile(getattr(written, field.name), temporary)
    return summary
