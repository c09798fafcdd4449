"""The search: claim a trial of a study, train it, tell how it went, until the study has enough.

What training is, this module does not know: an objective is called with each trial and answers with the skills of
the model it would keep. `mtrec.stages.tune` has the one that trains.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtrec.errors import ConfigError, Diverged, RunError
from mtrec.training.space import Point
from mtrec.training.storage import TakenOver
from mtrec.training.study import Attempt, Skills, Study

_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that this process has ended."""

    number: int
    state: Literal["complete", "pruned", "lost"]
    """lost: another process has taken it over."""
    value: float | None
    point: Point
    seconds: float
    why: str = ""


Objective = Callable[[Attempt], Skills]
"""Trains a trial, reporting the skills of each epoch to it; gives the skills of the model it would keep."""


def search(
    study: Study,
    objective: Objective,
    *,
    trials: int | None = None,
    timeout: float | None = None,
    begun: Callable[[Attempt, int], None] = lambda attempt, total: None,
    ended: Callable[[Attempt, Ended], None] = lambda attempt, ended: None,
    waiting: Callable[[], None] = lambda: None,
) -> None:
    """Work on a study. Other processes may work on it at the same time.

    A trial that diverges, runs out of memory or has settings that do not go together is pruned, with the reason
    beside it. What else goes wrong ends the search; its trial is queued again for the next one.

    Args:
        study: the study.
        objective: trains one trial.
        trials: trials that the study should have in all; None: as many as its settings say.
        timeout: seconds after which no trial is begun.
        begun: called with each trial before it is trained, and how many the study should have in all.
        ended: called with each trial after.
        waiting: called every second while another process measures the reference.

    Raises:
        RunError: the storage cannot be reached, or the scenario's own settings, the reference, cannot be trained.
        MtrecError: whatever the objective raises.
    """
    start = time.monotonic()
    while timeout is None or time.monotonic() - start < timeout:
        attempt = study.claim(trials)
        if attempt == "done":
            return
        if attempt == "wait":
            waiting()
            time.sleep(_WAIT_SECONDS)
            continue
        begun(attempt, study.budget(trials))
        ended(attempt, _run(study, attempt, objective))


def _run(study: Study, attempt: Attempt, objective: Objective) -> Ended:
    import optuna

    clock = time.monotonic()

    def told(state: Literal["complete", "pruned", "lost"], value: float | None = None, why: str = "") -> Ended:
        seconds = time.monotonic() - clock
        return Ended(number=attempt.number, state=state, value=value, point=attempt.point, seconds=seconds, why=why)

    try:
        with attempt.storage.alive(attempt.trial._trial_id):
            try:
                return told("complete", study.finish(attempt, objective(attempt)))
            except optuna.TrialPruned as pruned:
                why = str(pruned)
            except _out_of_memory():
                why = _unless_reference(attempt, "not enough memory on the device")
            except (Diverged, ConfigError) as error:
                why = _unless_reference(attempt, str(error))
            study.stop(attempt, "pruned", why)
            return told("pruned", attempt.last_value, why)
    except TakenOver as error:
        return told("lost", why=str(error))
    except BaseException as error:
        _give_back(study, attempt, error)
        raise


def _out_of_memory() -> tuple[type[Exception], ...]:
    """The device's error, where anything has used a device."""
    torch = sys.modules.get("torch")
    return (torch.OutOfMemoryError,) if torch else ()


def _unless_reference(attempt: Attempt, why: str) -> str:
    if attempt.reference is None:
        raise RunError(f"trial {attempt.number}, the scenario's own settings, cannot be trained: {why}")
    return why


def _give_back(study: Study, attempt: Attempt, error: BaseException) -> None:
    """Queue the trial again; where that fails too, the next claim finds that this process is gone."""
    try:
        study.stop(attempt, "failed", str(error) or type(error).__name__)
    except RunError:
        return
