"""Why a run on a cluster failed, from the best source that there is.

The server's own answer rarely has it: the errors of tasks are empty in all versions up to 2.17.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.kfp_server import RunView


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a run failed."""

    text: str
    """One line; empty where nobody tells."""
    task: str = ""
    """As named in the pipeline; empty where it is not known."""
    source: str = ""
    """Where the text is from, for people."""
    exit_code: int = 1


def reason(run: RunView) -> Reason:
    """The reason of a failed run, as far as it can be found out."""
    failed = [task for task in run.tasks if task.state in ("FAILED", "ERROR")]
    told = next((task for task in failed if task.error), None)
    if told is not None:
        return Reason(text=told.error, task=told.name, source="the server")
    if run.error:
        return Reason(text=run.error, source="the server")
    return Reason(text="")
