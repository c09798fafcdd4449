"""A study: trials of one space on one data set, worked on by any number of processes, now or later.

The storage's lock is held while a trial is claimed, so a budget is kept and a point of a grid is taken once. A
trial whose process died (kill -9, power, a lost machine) is found by the next claim and queued again with the same
values.

The value of a trial is the mean over tasks of the validation skill as a share of a fixed reference: the skill that
trial 0, the scenario's own settings, ended with. So 1 is as good as the scenario as it stands, each task counts the
same whatever its metric, and values of all trials compare. The score that decides when a run stops early would not
do: its unit is what that same run reached. A share lies between 0 and `MAX_SHARE`, and what is above or below a
reference under `MIN_REFERENCE` is measured in that, so that one task that trial 0 hardly learned cannot outweigh
the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mtrec.config import Scenario
from mtrec.errors import ConfigError
from mtrec.processes import is_gone, me
from mtrec.training import sampling, space
from mtrec.training.storage import Storage, TakenOver

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

MIN_REFERENCE = 0.05
MAX_SHARE = 2.0
MAX_DEATHS = 3
"""A point whose process died so often is given up: usually it needs more memory than there is."""
_MARK = "mtrec"

Skills = dict[str, float]


def value_of(skills: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """The value of a trial: mean share of the reference, see above; 1 for the reference itself."""
    shares = [1 + (skills.get(task, 0.0) - base) / max(base, MIN_REFERENCE) for task, base in reference.items()]
    return sum(min(max(share, 0.0), MAX_SHARE) for share in shares) / max(len(shares), 1)


@dataclass(kw_only=True)
class Attempt:
    """A trial that this process has claimed."""

    number: int
    point: space.Point
    reference: Skills | None
    """The skills that values are shares of; None: this trial makes them."""
    trial: optuna.Trial = field(repr=False)
    storage: Storage = field(repr=False)
    epochs: list[Skills] = field(default_factory=list)

    def report(self, skills: Mapping[str, float], *, last: bool) -> float | None:
        """Take the validation skills of an epoch.

        Args:
            skills: task → skill.
            last: no epoch follows.

        Returns:
            The value so far, or None in the reference.

        Raises:
            optuna.TrialPruned: others were better at this epoch; stop here.
            RunError: the storage cannot be reached.
        """
        import optuna

        self.epochs.append(dict(skills))
        if self.reference is None:
            return None
        value = value_of(skills, self.reference)
        with self.storage.reached():
            self.trial.report(value, len(self.epochs))
            if not last and self.trial.should_prune():
                raise optuna.TrialPruned(f"worse than others after epoch {len(self.epochs)}")
        return value

    @property
    def last_value(self) -> float | None:
        """The value after the last epoch that was reported."""
        known = self.reference is not None and bool(self.epochs)
        return value_of(self.epochs[-1], self.reference or {}) if known else None

    def note(self, **values: Any) -> None:
        """Keep plain facts beside the trial."""
        with self.storage.reached():
            for key, value in values.items():
                self.trial.set_user_attr(key, value)


class Study:
    """A study in a storage, made on first use.

    Args:
        storage: where it is kept.
        name: its name there.
        scenario: the settings, the space, sampler, pruner and seed.
        data_version: of the data that is trained on.

    Raises:
        ConfigError: the name is taken by a study of another space, data or settings.
        RunError: the storage cannot be reached.
    """

    def __init__(self, storage: Storage, name: str, scenario: Scenario, data_version: str) -> None:
        import optuna

        space.check_space(scenario)
        self.storage, self.name, self.scenario, self.search = storage, name, scenario, scenario.search
        self._grid = space.grid(scenario) if self.search.sampler == "grid" else None
        identity = {
            "space": {path: parameter.model_dump(mode="json") for path, parameter in self.search.space.items()},
            "grid": self._grid is not None,
            "data_version": data_version,
            "settings": _flat(shared_settings(scenario)),
        }
        with storage.lock(), storage.reached():
            self.optuna = optuna.create_study(
                storage=storage.optuna, study_name=name, direction="maximize", load_if_exists=True
            )
            known = self.optuna.user_attrs.get(_MARK)
            if known is None and not self.optuna.get_trials(deepcopy=False):
                self.optuna.set_user_attr(_MARK, identity)
            else:
                self._check(known, identity)
            self.optuna.pruner = sampling.pruner(self.search.pruner, self._max_epochs())
            self._recover()
            if self.reference() is None and not self.with_states("RUNNING", "WAITING"):
                self.optuna.enqueue_trial(space.start(scenario), user_attrs={"reference": True})

    def _check(self, known: Any, now: dict[str, Any]) -> None:
        where = f"study '{self.name}' in {self.storage.shown}"
        if not isinstance(known, dict):
            raise ConfigError(f"{where}: exists and was not made by mtrec tune; give --study another name")
        if difference := space.changed(known.get("space", {}), now["space"]):
            raise ConfigError(f"{where}: exists with another space ({difference}); give --study another name")
        if known.get("grid") != now["grid"]:
            kind = "is a grid" if known.get("grid") else "is no grid"
            raise ConfigError(f"{where}: {kind}, so its sampler stays; give --study another name")
        if known.get("data_version") != now["data_version"]:
            versions = f"version {known.get('data_version')}, now {now['data_version']}"
            raise ConfigError(f"{where}: exists with other data ({versions}); give --study another name")
        both = known.get("settings", {}).keys() & now["settings"].keys()  # a later version may know more settings
        for key in sorted(both):
            if known["settings"][key] != now["settings"][key]:
                there, here = (json.dumps(settings[key]) for settings in (known["settings"], now["settings"]))
                raise ConfigError(
                    f"{where}: exists with other settings ({key}: {there} there, {here} here), so values would "
                    "not compare; give --study another name"
                )

    # ------------------------------------------------------------------------------------------ claiming

    def claim(self, trials: int | None = None) -> Attempt | Literal["wait", "done"]:
        """Take the next trial, in the name of this process.

        Args:
            trials: how many trials the study should have in all, those that others work on included; None: as many
                as its settings say, of a grid all.

        Returns:
            The trial; `wait` while another process measures the reference; `done` when nothing is left to begin.

        Raises:
            RunError: the storage cannot be reached.
        """
        with self.storage.lock(), self.storage.reached():
            self._recover()
            reference, used = self.reference(), self._used()
            if used >= self.budget(trials):
                return "done"
            if reference is None and self.with_states("RUNNING"):
                return "wait"
            if reference is not None and self._grid is not None:
                self._queue(self._grid)
            self.optuna.sampler = sampling.sampler(self.search.sampler, self.search.seed, used)
            trial = self.optuna.ask(space.distributions(self.scenario))
            trial.set_user_attr("process", me())
            self.storage.optuna.record_heartbeat(trial._trial_id)
        point = space.settled(self.scenario, trial.params)
        return Attempt(number=trial.number, point=point, reference=reference, trial=trial, storage=self.storage)

    def finish(self, attempt: Attempt, skills: Mapping[str, float]) -> float:
        """End a trial with the skills of the model it would keep; the value.

        Raises:
            TakenOver: another process has queued the trial again.
            RunError: the storage cannot be reached.
        """
        reference = dict(skills) if attempt.reference is None else attempt.reference
        value = value_of(skills, reference)
        with self.storage.reached(), _still_mine():
            attempt.note(skills=dict(skills))
            if attempt.reference is None:
                for epoch, told in enumerate(attempt.epochs, 1):
                    attempt.trial.report(value_of(told, reference), epoch)
            self.optuna.tell(attempt.trial, value)
        return value

    def stop(self, attempt: Attempt, state: Literal["pruned", "failed"], why: str) -> None:
        """End a trial without a value: pruned for good, or failed, so that it is queued again.

        Raises:
            TakenOver: another process has queued the trial again.
            RunError: the storage cannot be reached.
        """
        import optuna

        states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
        with self.storage.reached(), _still_mine():
            attempt.note(why=why, **({"interrupted": True} if state == "failed" else {}))
            self.optuna.tell(attempt.trial, state=states[state])

    def unended(self) -> int:
        """How many trials still run, after those whose process is gone were queued again.

        Raises:
            RunError: the storage cannot be reached.
        """
        with self.storage.lock(), self.storage.reached():
            self._recover()
            return len(self.with_states("RUNNING"))

    def budget(self, trials: int | None) -> int:
        """How many trials the study should have in all, where so many are asked for; see `claim`."""
        if self._grid is None:
            return self.search.trials if trials is None else trials
        return len(self._grid) if trials is None else min(trials, len(self._grid))

    def _used(self) -> int:
        """Trials that count: ended, given up or running."""
        given_up = [trial for trial in self.with_states("FAIL") if _given_up(trial)]
        return len(self.with_states("COMPLETE", "PRUNED", "RUNNING")) + len(given_up)

    def _recover(self) -> None:
        """Fail the trials whose process is gone, and queue each failed one again. Safe to be cut off anywhere."""
        import optuna

        optuna.storages.fail_stale_trials(self.optuna)
        for trial in self.with_states("RUNNING"):
            process = trial.user_attrs.get("process")
            if process is None or is_gone(process):  # without one it died while it claimed
                self.optuna.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        again = {trial.user_attrs.get("retry_of") for trial in self.optuna.get_trials(deepcopy=False)}
        for trial in self.with_states("FAIL"):
            if trial.number in again or _given_up(trial):
                continue
            attributes = {
                "retry_of": trial.number,
                "deaths": _deaths(trial),
                **({"reference": True} if trial.user_attrs.get("reference") else {}),
            }
            params = trial.system_attrs.get("fixed_params", trial.params)
            self.optuna.enqueue_trial(params, user_attrs=attributes)

    def _queue(self, points: list[space.Point]) -> None:
        def key(params: Mapping[str, Any]) -> str:
            return json.dumps(params, sort_keys=True)

        trials = self.optuna.get_trials(deepcopy=False)
        known = {key(trial.system_attrs.get("fixed_params", trial.params)) for trial in trials}
        for point in points:
            if key(point) not in known:
                self.optuna.enqueue_trial(point)

    def _max_epochs(self) -> int:
        parameter = self.search.space.get("training.epochs")
        ends = (parameter.choices or [parameter.high]) if parameter else [self.scenario.training.epochs]
        return max(int(end) for end in ends if isinstance(end, (int, float)))

    def with_states(self, *names: str) -> list[FrozenTrial]:
        """Optuna's trials in states such as COMPLETE."""
        from optuna.trial import TrialState

        return self.optuna.get_trials(deepcopy=False, states=tuple(TrialState[name] for name in names))

    def reference(self) -> Skills | None:
        """The skills that values are shares of; None until trial 0 has ended."""
        found = (t for t in self.with_states("COMPLETE") if t.user_attrs.get("reference"))
        return next((dict(trial.user_attrs["skills"]) for trial in found), None)


def shared_settings(scenario: Scenario) -> dict[str, Any]:
    """The settings that all trials share: all but those searched, the gate and the description."""
    raw = {key: value for key, value in scenario.settings.items() if key not in ("gate", "description")}
    for path in scenario.search.space:
        node: Any = raw
        *parents, last = path.split(".")
        for part in parents:
            node = node.get(part) or {}
        node.pop(last, None)
    return raw


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) and value else {path: value}
    return flat


def _deaths(trial: FrozenTrial) -> int:
    """How often a process died over this point, this failed trial included."""
    return int(trial.user_attrs.get("deaths", 0)) + (not trial.user_attrs.get("interrupted", False))


def _given_up(trial: FrozenTrial) -> bool:
    """Whether a failed trial is not queued again. The reference always is: without it there is no study."""
    return _deaths(trial) >= MAX_DEATHS and not trial.user_attrs.get("reference", False)


@contextmanager
def _still_mine() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "Cannot tell" not in str(error):
            raise
        raise TakenOver("another process has taken the trial over") from error
