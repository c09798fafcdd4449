"""What a study has to tell: its trials as plain data, the best one, and which parameters matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mtrec.training import space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from mtrec.training.study import Study

MIN_IMPORTANCE = 8
"""Complete trials from which the importance of parameters is worth a look."""
_STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
_NOTES = ("reference", "skills", "best_epoch", "why", "retry_of", "mlflow_run", "code_revision")


def trials_of(study: Study) -> list[dict[str, Any]]:
    """Every trial: number, state, value, point, values after each epoch, seconds, and what was noted beside it.

    The state is complete, pruned, failed (and queued again), running or waiting.

    Raises:
        RunError: the storage cannot be reached.
    """
    with study.storage.reached():
        return [_told(study, trial) for trial in study.optuna.get_trials(deepcopy=False)]


def best_of(trials: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The complete trial of the highest value, the earlier of equal ones; None when there is none."""
    complete = [dict(trial) for trial in trials if trial["state"] == "complete"]
    return max(complete, key=lambda trial: (trial["value"], -trial["number"]), default=None)


def importance_of(study: Study) -> dict[str, float]:
    """How much each parameter decides whether a trial is among the best, as shares of 1; highest first.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255). Empty below `MIN_IMPORTANCE` complete trials.

    Raises:
        RunError: the storage cannot be reached.
    """
    from optuna.importance import get_param_importances

    with study.storage.reached():
        if len(study.with_states("COMPLETE")) < MIN_IMPORTANCE:
            return {}
        return dict(get_param_importances(study.optuna))


def _told(study: Study, trial: FrozenTrial) -> dict[str, Any]:
    params = trial.params or trial.system_attrs.get("fixed_params", {})
    whole = set(params) == set(study.search.space)
    return {
        "number": trial.number,
        "state": _STATES[trial.state.name],
        "value": trial.value if trial.values else None,
        "point": space.settled(study.scenario, params) if whole else dict(params),
        "epochs": [value for _, value in sorted(trial.intermediate_values.items())],
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        **{key: trial.user_attrs[key] for key in _NOTES if key in trial.user_attrs},
    }
