"""Record: how a look at the data ended, whatever happened, as the last thing of a monitoring run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtrec.config import Scenario
from mtrec.progress import report
from mtrec.tracking import log_outcome


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    pipeline_run: str
    failure: str | None = None
    """What went wrong; None where every step came to its end."""
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Nothing: MLflow has it."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Record the outcome.

    Returns:
        outcome: skipped, registered, refused by the gate, or failed, with the reason.

    Raises:
        RunError: MLflow cannot be used.
    """
    outcome = log_outcome(scenario, inputs.pipeline_run, inputs.failure, inputs.tracking_uri)
    report("record", 1.0, outcome)
    return {"outcome": outcome}
