"""A study: its value, its identity, and trials of processes that went silent."""

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from mtrec.errors import ConfigError
from mtrec.training import storage as storage_module
from mtrec.training.search import search
from mtrec.training.storage import Storage, TakenOver
from mtrec.training.study import MAX_SHARE, MIN_REFERENCE, Attempt, Study, shared_settings, value_of
from mtrec.training.trials import MIN_IMPORTANCE, best_of, importance_of, trials_of
from tests.unit.training.search_worker import FREE, POINTS, searching, skills_at, study_at, train


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/search.db"


# ------------------------------------------------------------------------------------------------ value


def test_the_value_is_the_mean_share_of_the_reference() -> None:
    reference = {"rating": 0.2, "category": 0.8}
    assert value_of(reference, reference) == 1
    assert value_of({"rating": 0.3, "category": 0.8}, reference) == pytest.approx(1.25)
    assert value_of({"rating": 0.1, "category": 0.4}, reference) == pytest.approx(0.5)
    assert value_of({"rating": 0.2}, reference) == pytest.approx(0.5), "a task that is missing counts 0"


def test_one_task_can_neither_sink_nor_save_a_trial() -> None:
    reference = {"rating": 0.2, "category": 0.8}
    assert value_of({"rating": 0.9, "category": 0.8}, reference) == (MAX_SHARE + 1) / 2
    assert value_of({"rating": -30.0, "category": 0.8}, reference) == 0.5


@pytest.mark.parametrize("base", [-0.3, 0.0, 0.001, MIN_REFERENCE])
def test_a_task_that_the_reference_did_not_learn_counts_by_a_fixed_unit(base: float) -> None:
    assert value_of({"rating": base}, {"rating": base}) == 1
    assert value_of({"rating": base + MIN_REFERENCE / 2}, {"rating": base}) == pytest.approx(1.5)


def test_the_reference_knows_its_value_at_the_end_and_then_for_every_epoch(url: str) -> None:
    study = study_at(url, "study", FREE)
    attempt = study.claim()
    assert isinstance(attempt, Attempt)
    assert [attempt.report(skills_at(attempt.point, epoch), last=epoch == 3) for epoch in (1, 2, 3)] == [None] * 3
    assert study.reference() is None
    assert study.finish(attempt, skills_at(attempt.point, 2)) == 1.0
    assert study.reference() == skills_at(attempt.point, 2)
    assert trials_of(study)[0]["epochs"] == pytest.approx([0.5, 1.0, 1.5])
    following = study.claim()
    assert isinstance(following, Attempt)
    assert following.report(skills_at(attempt.point, 1), last=False) == pytest.approx(0.5)


# ------------------------------------------------------------------------------------------------ identity


@pytest.mark.parametrize(
    ("space", "data", "said"),
    [
        (FREE | {"training.lr": {"low": 0.1, "high": 1}}, "v1", "exists with another space (training.lr: {low: "),
        ({"training.lr": FREE["training.lr"]}, "v1", "space (model.dropout: {low: 0.0, high: 0.5} there, nothing "),
        (FREE | {"training.epochs": {"low": 1, "high": 2}}, "v1", "space (training.epochs: nothing there, {low: "),
        (FREE, "v2", "exists with other data (version v1, now v2)"),
    ],
)
def test_a_study_of_something_else_is_not_gone_on_with(
    url: str, space: dict[str, Any], data: str, said: str
) -> None:
    study_at(url, "study", FREE)
    with pytest.raises(ConfigError) as caught:
        Study(Storage(url), "study", searching(space), data)
    assert str(caught.value).startswith("study 'study' in sqlite:///")
    assert said in str(caught.value)
    assert str(caught.value).endswith("give --study another name")
    assert "\n" not in str(caught.value)


def test_a_study_of_other_settings_is_not_gone_on_with(url: str) -> None:
    study_at(url, "study", FREE)
    scenario = searching(FREE)
    training = scenario.training.model_copy(update={"epochs": 9})
    with pytest.raises(ConfigError, match=r"other settings \(training\.epochs: 2 there, 9 here\)"):
        Study(Storage(url), "study", scenario.model_copy(update={"training": training}), "v1")
    # What the search sets itself may differ, and so may what trials do not depend on.
    training = scenario.training.model_copy(update={"lr": 0.5})
    gate = scenario.gate.model_copy(update={"floors": {"rating.rmse": 1.0}})
    Study(Storage(url), "study", scenario.model_copy(update={"training": training, "gate": gate}), "v1")
    assert "lr" not in shared_settings(scenario)["training"]
    assert "lr_ids" in shared_settings(scenario)["training"]


def test_a_grid_stays_a_grid_and_samplers_may_change_otherwise(url: str) -> None:
    study_at(url, "grid", POINTS, sampler="grid")
    with pytest.raises(ConfigError, match="is a grid, so its sampler stays"):
        study_at(url, "grid", POINTS)
    study_at(url, "tpe", POINTS)
    study_at(url, "tpe", POINTS, sampler="random", pruner="hyperband", seed=3, trials=99)
    with pytest.raises(ConfigError, match="is no grid, so its sampler stays"):
        study_at(url, "tpe", POINTS, sampler="grid")


def test_studies_of_others_are_left_alone(url: str) -> None:
    theirs = optuna.create_study(storage=url, study_name="theirs")
    theirs.enqueue_trial({"x": 1})
    with pytest.raises(ConfigError, match="exists and was not made by mtrec tune"):
        study_at(url, "theirs", FREE)
    assert len(theirs.trials) == 1


# ------------------------------------------------------------------------------------------------ silence


def test_a_trial_of_another_machine_that_went_silent_is_tried_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is only slow: what it says afterwards does not count."""
    monkeypatch.setattr(storage_module, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage_module, "GRACE_SECONDS", 2)
    study = study_at(url, "study", FREE)
    search(study, train, trials=1)
    slow = study.claim()
    assert isinstance(slow, Attempt)
    slow.note(process={"host": "another machine", "pid": 1, "started": 0.0})
    with study.storage.alive(slow.trial._trial_id):
        time.sleep(3)
        study_at(url, "study", FREE)
        assert [trial["state"] for trial in trials_of(study)] == ["complete", "running"], "it gives signs of life"
    time.sleep(3.5)
    again = study_at(url, "study", FREE)
    assert [trial["state"] for trial in trials_of(again)] == ["complete", "failed", "waiting"]
    search(again, train, trials=2)
    assert trials_of(again)[2]["point"] == slow.point
    for late in (
        lambda: slow.report(skills_at(slow.point), last=True),
        lambda: study.finish(slow, skills_at(slow.point)),
        lambda: study.stop(slow, "pruned", "late"),
    ):
        with pytest.raises(TakenOver):
            late()
    assert [trial["state"] for trial in trials_of(again)] == ["complete", "failed", "complete"]


def test_a_search_whose_trial_was_taken_over_goes_on_with_the_next(url: str) -> None:
    study = study_at(url, "study", FREE)
    ends = []

    def objective(attempt: Attempt) -> dict[str, float]:
        if attempt.number == 1:
            study.optuna.tell(1, state=optuna.trial.TrialState.FAIL)
        return train(attempt)

    search(study, objective, trials=3, ended=lambda attempt, end: ends.append(end.state))
    assert ends == ["complete", "lost", "complete", "complete"]
    assert [trial["state"] for trial in trials_of(study)] == ["complete", "failed", "complete", "complete"]


def test_a_process_that_died_while_it_claimed_leaves_nothing_running(url: str) -> None:
    study = study_at(url, "study", FREE)
    with study.storage.reached():
        study.optuna.ask()  # and then the power went
    assert [trial["state"] for trial in trials_of(study)] == ["running"]
    search(study_at(url, "study", FREE), train, trials=2)
    assert [trial["state"] for trial in trials_of(study)] == ["failed", "complete", "complete"]
    assert trials_of(study)[1]["value"] == 1.0


# ------------------------------------------------------------------------------------------------ telling


def test_importance_is_told_once_there_is_enough_to_tell(url: str) -> None:
    study = study_at(url, "study", FREE, sampler="random")

    def objective(attempt: Attempt) -> dict[str, float]:
        return {"rating": 1 / (1 + attempt.point["training.lr"])}  # type: ignore[operator]

    search(study, objective, trials=MIN_IMPORTANCE - 1)
    assert importance_of(study) == {}
    search(study, objective, trials=20)
    importance = importance_of(study)
    assert set(importance) == set(FREE)
    assert sum(importance.values()) == pytest.approx(1)
    assert next(iter(importance)) == "training.lr"
    assert list(importance.values()) == sorted(importance.values(), reverse=True)


def test_importance_of_a_setting_with_one_value_is_no_error(url: str) -> None:
    study = study_at(url, "study", {"training.lr": {"choices": [0.01]}, "model.dropout": {"choices": [0.1]}})
    search(study, train, trials=MIN_IMPORTANCE)
    assert set(importance_of(study)) == {"training.lr", "model.dropout"}


def test_the_best_is_the_first_of_the_highest() -> None:
    values = [("complete", 1.0), ("pruned", 9.0), ("complete", 1.2), ("complete", 1.2), ("failed", None)]
    trials = [{"number": n, "state": state, "value": value} for n, (state, value) in enumerate(values)]
    assert best_of(trials) == trials[2]
    assert best_of(trials[1:2]) is None
