"""How the steps of a workflow ended, as its exit task is told."""

from __future__ import annotations

from dataclasses import dataclass

from mtrec.tracking import UNTOLD

_WELL = ("SUCCEEDED", "COMPLETE", "CACHED")
_BADLY = ("FAILED", "CANCELED", "CANCELLED", "ERROR")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the steps ended."""

    failure: str | None = None
    """What went wrong; None where nothing is known to have."""
    sure: bool = True
    """Whether that is certain; otherwise it is for what the steps have left to show."""


def read_ending(state: str, message: str | None) -> Ending:
    """Understand the final status of the steps before an exit task.

    kfp's local runner says SUCCEEDED or FAILED. A server hands over what ML Metadata has, COMPLETE or FAILED
    (kubeflow/pipelines#11826), but RUNNING where the end of a loop or of a condition does not reach the steps
    around it (kubeflow/pipelines#13321), and without a message.

    Args:
        state: of `dsl.PipelineTaskFinalStatus`.
        message: its error message.
    """
    if state.upper() in _BADLY:
        return Ending(failure=message or UNTOLD)
    return Ending(sure=state.upper() in _WELL)
