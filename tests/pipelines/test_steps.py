import json

import pytest

from pipelines.display import PlainView, elapsed_text
from pipelines.steps import Step, Steps, plain


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _steps() -> tuple[Steps, Clock]:
    clock = Clock()
    return Steps(["ingest_data", "validate_data", "fine_tune_model"], clock=clock), clock


def _states(steps: Steps) -> list[str]:
    return [step.state for step in steps.steps.values()]


def test_the_lines_of_kfp_move_the_steps() -> None:
    steps, clock = _steps()
    steps.read(plain("05:34:59.222 - INFO - Executing task \x1b[96m'ingest-data'\x1b[0m"))
    assert _states(steps) == ["running", "waiting", "waiting"]
    clock.now += 2.5
    assert steps.steps["ingest_data"].elapsed(clock.now) == 2.5
    steps.read(plain("Task \x1b[96m'ingest-data'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m"))
    steps.read("Task validate-data cache hit (key=0123456789ab); skipping execution.")
    steps.read("Executing task 'fine-tune-model'")
    steps.read("Task 'fine-tune-model' finished with status FAILURE")
    assert _states(steps) == ["done", "cached", "failed"]
    assert steps.steps["ingest_data"].seconds == 2.5
    assert steps.failed is not None
    assert steps.failed.name == "fine_tune_model"


def test_progress_goes_to_the_running_step_and_ends_with_it() -> None:
    steps, _ = _steps()
    changes: list[tuple[str, float | None]] = []
    steps.changed = lambda step: changes.append((step.name, step.fraction))
    line = "mtrec-progress " + json.dumps({"stage": "fine_tune", "fraction": 0.5, "message": "epoch 1"})
    steps.read(line)
    steps.read("Executing task 'fine-tune-model'")
    steps.read(line)
    steps.read("Task 'fine-tune-model' finished with status SUCCESS")
    assert changes == [("fine_tune_model", None), ("fine_tune_model", 0.5), ("fine_tune_model", None)]


def test_what_the_user_stopped_has_not_failed() -> None:
    steps, clock = _steps()
    steps.read("Executing task 'ingest-data'")
    steps.read("Task 'ingest-data' finished with status FAILURE")
    steps.read("Executing task 'fine-tune-model'")
    clock.now += 737
    steps.close(succeeded=False, stopped=True)
    assert _states(steps) == ["stopped", "waiting", "stopped"]
    assert elapsed_text(steps.steps["fine_tune_model"], clock.now) == "12 min 17 s"


def test_what_a_step_said_when_it_failed_is_kept() -> None:
    steps, _ = _steps()
    failure = {"message": "no title", "exit_code": 2, "expected": True, "traceback": "Traceback"}
    steps.read("    mtrec-error " + json.dumps(failure))
    assert steps.failure is not None
    assert (steps.failure.message, steps.failure.exit_code) == ("no title", 2)


def test_other_lines_and_other_tasks_change_nothing() -> None:
    steps, _ = _steps()
    for line in ("", "hello", "Executing task 'somebody-else'", "Task 'x' finished with status SUCCESS"):
        steps.read(line)
    assert _states(steps) == ["waiting"] * 3


@pytest.mark.parametrize(("succeeded", "states"), [(True, ["failed", "skipped"]), (False, ["failed", "waiting"])])
def test_the_end_of_a_run_settles_every_step(succeeded: bool, states: list[str]) -> None:
    steps, _ = _steps()
    steps.read("Task validate-data cache hit")
    steps.read("Executing task 'ingest-data'")
    steps.close(succeeded=succeeded)
    assert _states(steps) == [states[0], "cached", states[1]]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step("a"), ""),
        (Step("a", state="cached"), ""),
        (Step("a", state="done", seconds=4.25), "4.2 s"),
        (Step("a", state="running", started=10.0), "90.0 s"),
        (Step("a", state="done", seconds=185.0), "3 min 05 s"),
    ],
)
def test_elapsed_time_for_people(step: Step, text: str) -> None:
    shown = elapsed_text(step, 100.0)
    assert shown == ("1 min 30 s" if text == "90.0 s" else text)


def test_plain_lines_tell_beginnings_ends_and_some_progress() -> None:
    lines: list[str] = []

    class Console:
        def print(self, line: str, **options: object) -> None:
            lines.append(line)

    clock = Clock()
    view = PlainView(Console(), clock)  # type: ignore[arg-type]
    step = Step("fine_tune_model", state="running", started=100.0, message="epoch 2")
    view.step_changed(step)
    assert lines == ["fine_tune_model  started  epoch 2"]
    for second in range(1, 1000):
        clock.now, step.fraction = 100.0 + second, second / 1000
        view.step_changed(step)
    shares = [line.split()[2] for line in lines[1:]]
    assert shares == [f"{percent}%" for percent in range(6, 100, 6)], "one line per minute when that is sooner"
    assert lines[-1].endswith("epoch 2")
    view, lines[:] = PlainView(Console(), clock), []  # type: ignore[arg-type]
    for step.fraction in (n / 300 for n in range(300)):
        clock.now += 1
        view.step_changed(step)
    shares = [line.split()[2] for line in lines[1:]]
    assert shares == [f"{percent}%" for percent in range(10, 100, 10)], "one line per tenth when that is sooner"
    step.fraction = None
    view, lines[:] = PlainView(Console(), clock), []  # type: ignore[arg-type]
    for _ in range(130):
        clock.now += 1
        view.step_changed(step)
    assert len(lines) == 3, "a share that nobody knows is told per minute"
    step.state, step.seconds = "done", 3.0
    view.step_changed(step)
    assert lines[-1] == "fine_tune_model  done 3.0 s"
