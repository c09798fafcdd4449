"""Record: how a run ended, whatever happened, as the last thing of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from mtrec.config import Scenario
from mtrec.lease import has, leave
from mtrec.progress import report
from mtrec.stages.ending import read_ending
from mtrec.stages.launching import clean_up
from mtrec.tracking import log_outcome, log_training_outcome
from mtrec.training.nodes import Place


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    pipeline_run: str
    state: str
    """How the workflow says that its steps ended, see `mtrec.stages.ending.read_ending`."""
    message: str | None = None
    """What it says of a failure."""
    of: Literal["monitoring", "training"] = "monitoring"
    """What ran."""
    tracking_uri: str | None = None
    lease: str | None = None
    """The lease under which the run trained, which ends with it, see `mtrec.lease.of_run`."""
    trainer: str | None = None
    """Where it trained, see `fine_tune.Inputs`: what a step that was killed has left there is removed."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Nothing: MLflow has it."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Record the outcome.

    Returns:
        outcome: skipped (of monitoring), registered, refused by the gate, or failed, with the reason.

    Raises:
        RunError: MLflow cannot be used, or the cluster refuses to remove a TrainJob.
    """
    ending = read_ending(inputs.state, inputs.message)
    with ExitStack() as whatever_happens:
        whatever_happens.callback(leave, inputs.lease or "", inputs.pipeline_run)
        if inputs.trainer:
            whatever_happens.callback(clean_up, Place.from_text(inputs.trainer), inputs.pipeline_run)
        told = (scenario, inputs.pipeline_run, ending.failure, inputs.tracking_uri)
        if inputs.of == "monitoring":
            outcome = log_outcome(*told, sure=ending.sure)
        else:
            begun = has(inputs.lease or "", inputs.pipeline_run)
            outcome = log_training_outcome(*told, sure=ending.sure, begun=begun)
    report("record", 1.0, outcome)
    return {"outcome": outcome}
