import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import load_scenario
from mtrec.errors import ConfigError, DataError, Diverged, RunError, Unavailable
from mtrec.lease import Away, Held
from mtrec.stages import execution, retrying
from mtrec.stages.execution import read_failure, run_component

NODE = "mtrec-training-x7.root.whatever-happens.gate-model.executor({})"


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Be a try of one step, as Argo numbers them."""
    monkeypatch.setenv("MTREC_FAILURES", str(tmp_path / "failures"))

    def become(number: int, node: str = NODE) -> None:
        monkeypatch.setenv("MTREC_NODE", node.format(number))

    return become


class Stage:
    """Runs a component whose stage fails as told, and counts how often it worked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked, self.error = 0, None
        monkeypatch.setattr(execution, "run_stage", self.run)

    def run(self, name: str, **_: Any) -> dict[str, Any]:
        self.worked += 1
        if self.error:
            raise self.error
        return {"verdict": "pass"}

    def __call__(self, error: BaseException | None = None) -> int:
        """The exit code; 0 where it ended well."""
        self.error = error
        try:
            run_component("gate", inputs={}, outputs={}, scenario=json.dumps(load_scenario("ecommerce").as_dict()))
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_what_would_come_again_is_not_done_again(
    attempt: Callable[..., None], stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(0)
    assert stage(DataError("items: column 'title' is missing")) == 2
    capsys.readouterr()
    for number in (1, 2):
        attempt(number)
        assert stage() == 2
        told = capsys.readouterr().err
        (failure,) = [found for line in told.splitlines() if (found := read_failure(line))]
        assert (failure.message, failure.exit_code) == ("items: column 'title' is missing", 2)
        assert told.endswith("mtrec: items: column 'title' is missing\n")
    assert stage.worked == 1


@pytest.mark.parametrize(
    "error", [Unavailable("MLflow: no answer"), Away("no API server"), ConnectionResetError("peer"), None]
)
def test_what_the_machine_broke_is_done_again(
    attempt: Callable[..., None], stage: Stage, error: Exception | None, tmp_path: Path
) -> None:
    attempt(0)
    if error is not None:  # else the pod was lost: the step had no time to say anything
        assert stage(error) == 1
    attempt(1)
    assert stage() == 0
    assert not list(tmp_path.rglob("*.json"))


def test_a_person_who_tries_a_failed_run_again_begins_anew(attempt: Callable[..., None], stage: Stage) -> None:
    attempt(0)
    assert stage(RunError("no")) == 1
    attempt(0)
    assert stage() == 0
    attempt(1)
    assert stage() == 0


def test_steps_do_not_mind_each_other(attempt: Callable[..., None], stage: Stage) -> None:
    attempt(0)
    assert stage(ConfigError("no")) == 2
    attempt(1, NODE.replace("gate-model", "evaluate-model"))
    assert stage() == 0
    attempt(1, NODE.replace("x7", "x8"))
    assert stage() == 0
    attempt(1)
    assert stage() == 2


@pytest.mark.parametrize("node", ["", "mtrec-training-x7.root.gate-model.executor", "for-loop(0:a).executor"])
def test_where_the_number_of_the_try_is_not_told_every_try_works(
    attempt: Callable[..., None], stage: Stage, node: str, tmp_path: Path
) -> None:
    for _ in range(2):
        attempt(0, node)
        assert stage(RunError("no")) == 1
    assert stage.worked == 2
    assert not list(tmp_path.rglob("*.json"))


def test_a_storage_that_cannot_be_written_hides_no_failure(
    attempt: Callable[..., None], stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "failures").write_text("a file where the folder should be")
    attempt(0)
    assert stage(RunError("the reason")) == 1
    assert "mtrec: the reason" in capsys.readouterr().err
    attempt(1)
    assert stage() == 0


def test_a_damaged_note_is_no_note(attempt: Callable[..., None], stage: Stage, tmp_path: Path) -> None:
    attempt(0)
    stage(RunError("no"))
    (note,) = (tmp_path / "failures").iterdir()
    note.write_text("{")
    attempt(1)
    assert stage() == 0


def test_notes_of_weeks_ago_are_removed(attempt: Callable[..., None], stage: Stage, tmp_path: Path) -> None:
    attempt(0, "old.executor({})")
    stage(RunError("no"))
    (old,) = (tmp_path / "failures").iterdir()
    os.utime(old, (time.time() - 8 * 24 * 3600,) * 2)
    attempt(0)
    stage(RunError("no"))
    (kept,) = (tmp_path / "failures").iterdir()
    assert kept != old


@pytest.mark.parametrize("error", [Diverged("nan"), Held("another trains"), KeyError("a bug"), MemoryError()])
def test_comes_again(error: BaseException) -> None:
    assert retrying.comes_again(error)


def test_a_full_disk_may_be_another_one_next_time(
    tmp_path: Path, stage: Stage, attempt: Callable[..., None]
) -> None:
    attempt(0)
    assert stage(OSError(28, "No space left on device", str(tmp_path / "model"))) == 1
    attempt(1)
    assert stage() == 0


def test_a_broken_gpu_is_the_machine() -> None:
    import torch

    assert not retrying.comes_again(torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"))
    assert not retrying.comes_again(torch.distributed.DistNetworkError("node lost"))
    assert retrying.comes_again(torch.cuda.OutOfMemoryError("CUDA out of memory"))
