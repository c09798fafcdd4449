"""The search as a whole: what it tries, that a kill loses nothing, that processes share the work."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtrec.errors import ConfigError, Diverged, RunError
from mtrec.training.search import Ended, search
from mtrec.training.study import Attempt, Skills, Study
from mtrec.training.trials import best_of, trials_of
from tests.unit.training.search_worker import EPOCHS, FREE, POINTS, skills_at, study_at, train

Url = Callable[[str], str]
Worker = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/search.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A study of this test alone, in a database that tests share."""
    return tmp_path.name


@pytest.fixture
def worker(tmp_path: Path, repository: Path) -> Worker:
    def start(log: str = "log", **wish: Any) -> subprocess.Popen[str]:
        script = repository / "tests" / "unit" / "training" / "search_worker.py"
        paths = os.pathsep.join([str(repository), str(repository / "src")])
        return subprocess.Popen(
            [sys.executable, script, json.dumps({"log": str(tmp_path / log), **wish})],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def trained(tmp_path: Path, log: str = "log") -> list[dict[str, Any]]:
    """The points that a worker trained to the end."""
    path = tmp_path / log
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def complete(study: Study) -> list[dict[str, Any]]:
    return [trial for trial in trials_of(study) if trial["state"] == "complete"]


def points(study: Study) -> list[dict[str, Any]]:
    return [trial["point"] for trial in complete(study)]


# ------------------------------------------------------------------------------------------------ one process


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_and_space_give_the_same_suggestions_whether_cut_off_or_not(
    sqlite: str, sampler: str
) -> None:
    whole, halves, other = (
        study_at(sqlite, name, FREE, sampler=sampler, seed=seed)
        for name, seed in (("whole", 0), ("halves", 0), ("other", 1))
    )
    search(whole, train, trials=12)
    search(halves, train, trials=5)
    again = study_at(sqlite, "halves", FREE, sampler=sampler)
    search(again, train, trials=12)
    search(other, train, trials=3)
    assert len(points(whole)) == 12
    assert points(again) == points(whole)
    assert points(other)[0] == points(whole)[0], "the scenario's own settings"
    assert points(other)[1] != points(whole)[1]
    assert len({tuple(point.values()) for point in points(whole)}) == 12


def test_tpe_finds_better_settings_than_the_scenario_has(sqlite: str) -> None:
    study = study_at(sqlite, "study", FREE)
    ends: list[Ended] = []
    search(study, train, trials=30, ended=lambda attempt, end: ends.append(end))
    best = best_of(trials_of(study))
    assert best is not None
    first = complete(study)[0]
    assert (first["value"], first["point"]["training.lr"], first["reference"]) == (1.0, 0.002, True)
    assert best["value"] > 1.2
    assert 0.005 < best["point"]["training.lr"] < 0.2
    assert best["skills"] == skills_at(best["point"])
    assert [end.number for end in ends] == list(range(30))
    assert max(end.value or 0 for end in ends) == best["value"]
    assert best["epochs"][-1] == pytest.approx(best["value"])


def test_a_study_that_has_enough_begins_nothing(sqlite: str) -> None:
    study = study_at(sqlite, "study", FREE, trials=3)
    search(study, train, trials=0)
    search(study, train, timeout=0)
    assert complete(study) == []
    search(study, train)
    search(study, train)
    assert len(complete(study)) == 3


def test_no_trial_begins_after_the_time_is_over_and_the_running_one_ends(sqlite: str) -> None:
    study = study_at(sqlite, "study", FREE)
    search(study, lambda attempt: train(attempt, 0.2), trials=100, timeout=0.5)
    assert len(complete(study)) == len(trials_of(study)) == 1


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_stop_early(sqlite: str, pruner: str) -> None:
    study = study_at(sqlite, "study", FREE, pruner=pruner)
    ran: dict[int, int] = {}

    def objective(attempt: Attempt) -> Skills:
        ran[attempt.number] = 0
        for epoch in range(1, 7):
            ran[attempt.number] += 1
            skills = {task: skill / 2 for task, skill in skills_at(attempt.point, epoch).items()}
            attempt.report(skills, last=epoch == 6)
        return skills

    search(study, objective, trials=15)
    trials = trials_of(study)
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert len(pruned) + len(complete(study)) == 15
    assert all(ran[trial["number"]] < 6 for trial in pruned)
    assert all(ran[trial["number"]] == 6 for trial in complete(study))
    assert all("worse than others after epoch" in trial["why"] for trial in pruned)
    assert complete(study)[0]["number"] == 0, "the reference is never pruned"
    best = max(trial["value"] for trial in complete(study))
    assert all(trial["value"] < best for trial in pruned)


def test_without_a_pruner_every_trial_is_trained_to_the_end(sqlite: str) -> None:
    study = study_at(sqlite, "study", FREE, pruner="none")
    search(study, train, trials=12)
    assert [len(trial["epochs"]) for trial in complete(study)] == [EPOCHS] * 12


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (Diverged("loss of rating is nan"), "loss of rating is nan"),
        (ConfigError("width: no"), "width: no"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory on the device"),
    ],
)
def test_a_trial_that_cannot_be_trained_is_left_aside_with_the_reason(
    sqlite: str, error: Exception, why: str
) -> None:
    study = study_at(sqlite, "study", FREE)

    def objective(attempt: Attempt) -> Skills:
        if attempt.number == 2:
            raise error
        return train(attempt)

    search(study, objective, trials=5)
    assert [trial["state"] for trial in trials_of(study)] == ["complete"] * 2 + ["pruned"] + ["complete"] * 2
    assert trials_of(study)[2]["why"] == why


def test_without_a_reference_there_is_no_search_and_the_next_one_tries_it_again(sqlite: str) -> None:
    study = study_at(sqlite, "study", FREE)

    def diverging(attempt: Attempt) -> Skills:
        raise Diverged("loss of rating is nan")

    for _ in range(4):
        with pytest.raises(RunError, match="the scenario's own settings, cannot be trained: loss of rating is nan"):
            search(study, diverging, trials=3)
    assert complete(study) == []
    search(study, train, trials=3)
    assert len(complete(study)) == 3
    assert complete(study)[0]["value"] == 1.0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RunError("MLflow is away"), ZeroDivisionError("a bug")])
def test_a_trial_that_was_broken_off_is_tried_again(sqlite: str, error: BaseException) -> None:
    whole, study = (study_at(sqlite, name, FREE) for name in ("whole", "study"))
    search(whole, train, trials=6)

    def broken(attempt: Attempt) -> Skills:
        if attempt.number >= 3:
            raise error
        return train(attempt)

    for _ in range(4):  # more often than a trial may die
        with pytest.raises(type(error)):
            search(study, broken, trials=6)
    search(study_at(sqlite, "study", FREE), train, trials=6)
    assert points(study) == points(whole)
    failed = [trial for trial in trials_of(study) if trial["state"] == "failed"]
    assert [trial["number"] for trial in failed] == [3, 4, 5, 6]
    assert {tuple(trial["point"].items()) for trial in failed} == {tuple(points(whole)[3].items())}


# ------------------------------------------------------------------------------------------------ several


def test_a_killed_process_loses_one_trial_which_is_tried_again(
    url: str, name: str, worker: Worker, tmp_path: Path
) -> None:
    whole = study_at(url, f"{name}-whole", FREE)
    search(whole, train, trials=7)
    dead = worker(url=url, study=name, space=FREE, search={"pruner": "none"}, trials=7, die_at=3)
    assert dead.wait(120) == -signal.SIGKILL
    assert len(trained(tmp_path)) == 3
    study = study_at(url, name, FREE)
    states = [trial["state"] for trial in trials_of(study)]
    assert states == ["complete"] * 3 + ["failed", "waiting"], "found at once, without waiting for a heartbeat"
    search(study, train, trials=7)
    trials = trials_of(study)
    assert [trial["state"] for trial in trials] == ["complete"] * 3 + ["failed"] + ["complete"] * 4
    assert trials[4]["retry_of"] == 3
    assert points(study) == points(whole), "as if nothing had happened"


def test_a_point_that_kills_every_process_is_given_up(sqlite: str, worker: Worker) -> None:
    for number in (2, 3, 4):  # the second point, and twice its retry
        dead = worker(url=sqlite, study="study", space=FREE, trials=4, die_at=number)
        assert dead.wait(120) == -signal.SIGKILL
    study = study_at(sqlite, "study", FREE)
    search(study, train, trials=4)
    states = [trial["state"] for trial in trials_of(study)]
    assert states == ["complete"] * 2 + ["failed"] * 3 + ["complete"], "the budget counts it once"
    assert complete(study)[2]["point"] != trials_of(study)[4]["point"]


def test_two_processes_try_every_point_of_a_grid_exactly_once(
    url: str, name: str, worker: Worker, tmp_path: Path
) -> None:
    both = [
        worker(
            f"log{n}",
            url=url,
            study=name,
            space=POINTS,
            search={"sampler": "grid"},
            seconds=0.05,
            go=f"{tmp_path}/go",
        )
        for n in range(2)
    ]
    while not all((tmp_path / f"log{n}.ready").exists() for n in range(2)):
        assert all(process.poll() is None for process in both), [process.communicate() for process in both]
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    logs = [trained(tmp_path, f"log{n}") for n in range(2)]
    assert all(logs), "both worked"
    found = [tuple(point.values()) for log in logs for point in log]
    wanted = {(lr, dropout) for lr in (0.001, 0.002, 0.01) for dropout in (0.0, 0.1, 0.2, 0.3)}
    assert sorted(found) == sorted(wanted)
    study = study_at(url, name, POINTS, sampler="grid")
    assert [trial["state"] for trial in trials_of(study)] == ["complete"] * 12
    assert complete(study)[0]["point"] == {"training.lr": 0.002, "model.dropout": 0.2}


def test_a_grid_is_covered_once_although_a_process_is_killed_in_it(sqlite: str, worker: Worker) -> None:
    dead = worker(url=sqlite, study="study", space=POINTS, search={"sampler": "grid"}, die_at=5)
    assert dead.wait(120) == -signal.SIGKILL
    study = study_at(sqlite, "study", POINTS, sampler="grid")
    search(study, train, trials=8)
    assert len(complete(study)) == 8
    search(study, train)
    found = [tuple(point.values()) for point in points(study)]
    assert len(found) == len(set(found)) == 12


def test_two_processes_keep_the_budget_and_draw_different_points(
    sqlite: str, worker: Worker, tmp_path: Path
) -> None:
    wish = {"url": sqlite, "study": "study", "space": FREE, "search": {"sampler": "random"}, "seconds": 0.05}
    both = [worker(f"log{n}", **wish, trials=9, go=f"{tmp_path}/go") for n in range(2)]
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    study = study_at(sqlite, "study", FREE, sampler="random")
    assert len(trials_of(study)) == len(complete(study)) == 9
    assert len({tuple(point.values()) for point in points(study)}) == 9


def test_a_second_process_waits_for_the_reference_and_takes_it_over_when_the_first_one_dies(
    sqlite: str, worker: Worker, tmp_path: Path
) -> None:
    first = worker(url=sqlite, study="study", space=FREE, trials=3, seconds=120)
    study = study_at(sqlite, "study", FREE)
    while [trial["state"] for trial in trials_of(study)] != ["running"]:
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    waits = []

    def waiting() -> None:
        waits.append(trials_of(study))
        if len(waits) == 2:
            first.kill()
            first.wait()

    search(study, train, trials=3, waiting=waiting)
    assert len(waits) >= 2
    assert all(len(trials) == 1 for trials in waits), "nothing else began"
    assert [trial["state"] for trial in trials_of(study)] == ["failed", "complete", "complete", "complete"]
    assert complete(study)[0]["value"] == 1.0
