"""The local runner, with small stages: what it does when a step fails, is killed, is cached, is interrupted."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mtrec.config import load_scenario
from mtrec.data.forgotten import remember
from mtrec.errors import ConfigError, InputError, RunError
from pipelines import local
from pipelines.job import Job, StepFailed, as_given
from pipelines.local import STEPS, run_training
from pipelines.results import RunResult
from pipelines.steps import Steps
from pipelines.workspace import Workspace

pytestmark = pytest.mark.usefixtures("small_stages")
Wish = Callable[[str], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that kfp alone would not get along with."""
    path = tmp_path / "a folder of python3 & more"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def steady_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code keep its revision while somebody edits it during the tests."""
    monkeypatch.setattr(local, "code_revision", lambda: "a-revision")


def _run(**arguments: object) -> tuple[RunResult, str]:
    output = io.StringIO()
    settings = arguments.pop("settings", [])
    result = run_training(
        load_scenario("ecommerce", settings),  # type: ignore[arg-type]
        workspace=Workspace.here(),
        console=Console(file=output, width=200),
        **arguments,  # type: ignore[arg-type]
    )
    return result, output.getvalue()


def _take_signals() -> None:
    """A shell that runs the tests in the background may have told them to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _state(result: RunResult) -> dict[str, object]:
    return dict(json.loads((result.run.folder / "run.json").read_text()))


def test_a_run_goes_through_all_steps_and_hands_back_everything(folder: Path) -> None:
    data = folder / "python3 data.csv"
    data.write_text("some rows")
    environment, executable = dict(os.environ), sys.executable
    result, shown = _run(data=data)
    assert result.passed
    assert result.registration is not None
    assert result.registration["version"] == "1"
    assert result.registration["lineage"]["data_version"] == "some rows.dir"
    assert result.registration["lineage"]["pipeline_run"] == result.run.name
    assert result.registration["lineage"]["parameters_hash"] == load_scenario("ecommerce").digest
    assert result.tracking_uri == f"sqlite:///{folder / '.mtrec' / 'mlflow.db'}"
    for step in STEPS:
        assert f"{step:<16} started" in shown
        assert f"{step:<16} done" in shown
    kept = {path.name for path in result.run.folder.iterdir()}
    expected = ["evaluation", "gate", "registration", "validation", "run"]
    assert {f"{name}.json" for name in expected} < kept
    assert {"report.html", "losses.jsonl", "log.txt", "pipeline.yaml", "data_docs", "quarantine"} < kept
    assert _state(result)["state"] == "finished"
    assert (dict(os.environ), sys.executable) == (environment, executable)
    (kept_state,) = (folder / ".mtrec" / "checkpoints").iterdir()
    assert kept_state.name == _state(result)["key"], "the same run again takes the finished training"


@pytest.mark.usefixtures("steady_code")
@pytest.mark.slow
def test_pure_steps_are_taken_from_the_cache_until_data_code_or_scenario_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder / "rows.csv"
    data.write_text("1")
    first, _ = _run(data=data)
    second, shown = _run(data=data)
    assert second.run.name != first.run.name
    assert "validate_data    done (cached)" in shown
    assert "preprocess_data  done (cached)" in shown
    assert shown.count("cached") == 2, "a step with side effects must never be cached"
    assert second.validation == first.validation
    data.write_text("22")
    third, shown = _run(data=data)
    assert "cached" not in shown
    assert third.registration is not None
    assert third.registration["lineage"]["data_version"] == "22.dir"
    assert "cached" not in _run(data=data, settings=["training.epochs=2"])[1]
    state = folder / ".mtrec" / "checkpoints" / str(_state(_run(data=data)[0])["key"])
    (state / "earlier").touch()
    assert _run(data=data)[1].count("cached") == 2
    assert (state / "earlier").exists(), "a finished training is taken again"
    assert "cached" not in _run(data=data, cache=False)[1]
    assert not (state / "earlier").exists()
    assert _run(data=data)[1].count("cached") == 2
    monkeypatch.setattr(local, "code_revision", lambda: "another-revision")
    assert "cached" not in _run(data=data)[1]


@pytest.mark.usefixtures("steady_code")
def test_after_a_user_was_forgotten_nothing_of_an_earlier_training_is_taken(folder: Path) -> None:
    data = folder / "rows.csv"
    data.write_text("1")
    first, _ = _run(data=data)
    assert "cached" in _run(data=data)[1]
    remember(Workspace.here().dvc_root, "another", ["u1"])
    assert _state(_run(data=data)[0])["key"] == _state(first)["key"], "that was another scenario's user"
    remember(Workspace.here().dvc_root, "ecommerce", ["u1"])
    after, shown = _run(data=data)
    assert "cached" not in shown
    (kept_state,) = (folder / ".mtrec" / "checkpoints").iterdir()
    assert kept_state.name == _state(after)["key"] != _state(first)["key"], "the state that knows the user is gone"


def test_a_refusal_by_the_gate_registers_nothing_and_says_why(folder: Path) -> None:
    result, shown = _run(settings=["gate.floors={rating.rmse: 0.5}"])
    assert not result.passed
    assert result.registration is None
    assert result.reasons == ["rating.rmse must be at most 0.5: 0.93 > 0.5"]
    assert "register_model   skipped" in shown
    assert not (result.run.folder / "registration.json").exists()
    assert _state(result)["verdict"] == "fail"


@pytest.mark.usefixtures("steady_code")
@pytest.mark.parametrize(
    ("wish", "message", "code"),
    [
        ("explain", "data/items.csv: column 'title' is missing. Map it in shop.yaml", 2),
        ("crash", "fine_tune_model failed: ZeroDivisionError: a bug; the whole story is in .mtrec/runs/", 1),
        ("die", "fine_tune_model ended without a word (killed? memory is the usual reason)", 1),
    ],
)
def test_a_failed_step_is_one_line_and_the_next_run_goes_on(
    folder: Path, small_stages: Wish, wish: str, message: str, code: int
) -> None:
    small_stages(f"fine_tune={wish}")
    with pytest.raises(StepFailed) as caught:
        _run()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == code
    assert ("Traceback" in caught.value.log_text) == (wish != "die")
    (failed,) = (folder / ".mtrec" / "runs").iterdir()
    assert json.loads((failed / "run.json").read_text())["state"] == "failed"
    assert not (failed / "report.html").exists()
    small_stages("")
    result, shown = _run()
    assert result.run.name == failed.name
    assert shown.startswith("Going on with run")
    assert shown.count("(cached)") == 2


def test_progress_and_noise_of_a_step_are_read_from_its_log(
    folder: Path, small_stages: Wish, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float | None, str]] = []
    original = Steps.read

    def read(self: Steps, line: str) -> None:
        original(self, line)
        seen.extend((s.name, s.fraction, s.message) for s in self.steps.values() if s.state == "running")

    monkeypatch.setattr(Steps, "read", read)
    small_stages("evaluate=noise")
    result, _ = _run()
    assert ("evaluate_model", 0.5, "half of it") in seen
    log = result.run.log.read_text()
    assert "coloured" in log
    assert "\x1b" not in log


def test_verbose_shows_what_the_steps_print(folder: Path) -> None:
    assert "small stage fine_tune: None" in _run(verbose=True)[1]
    assert "small stage fine_tune: None" not in _run()[1]


def test_wrong_input_stops_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(InputError, match="--data nowhere: no such file or folder"):
        _run(data=Path("nowhere"))
    with pytest.raises(ConfigError, match="characters as JSON, at most"):
        _run(settings=[f"description={'x' * 200_000}"])
    assert list(folder.iterdir()) == []


def test_a_second_run_at_the_same_time_is_refused(folder: Path) -> None:
    with Workspace.here().locked(), pytest.raises(RunError, match="another run is going on in this folder"):
        _run()


@pytest.mark.usefixtures("steady_code")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_every_process_and_says_how_to_go_on(
    folder: Path, small_stages: Wish, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    marker = folder / "marker"
    monkeypatch.setenv("SMALL_STAGES_MARKER", str(marker))
    small_stages("fine_tune=sleep")
    command = [sys.executable, "-m", "pipelines.cli", "run", "--set", "training.epochs=3"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_take_signals,
    )
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    step = int(marker.read_text())
    process.send_signal(number)
    shown, error = process.communicate(timeout=60)
    assert process.returncode == 130
    again = "mtrec run --set training.epochs=3"
    assert re.search(rf"mtrec: stopped; what is finished is kept; go on with: (\S+/)?{again}$", error, re.M)
    assert "fine_tune_model  stopped" in shown
    assert "failed" not in shown
    assert "Traceback" not in error
    assert marker.read_text() == "cleaned up"
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)
    small_stages("")
    result, shown = _run(settings=["training.epochs=3"])
    assert shown.startswith("Going on with run")
    assert shown.count("(cached)") == 2
    assert result.passed


def test_a_run_that_broke_off_is_ended_in_mlflow(folder: Path) -> None:
    uri = f"sqlite:///{folder / '.mtrec' / 'mlflow.db'}"
    heard: list[tuple[str, ...]] = []
    job = Job(
        scenario=load_scenario("ecommerce"),
        workspace=Workspace.here(),
        console=Console(),
        tracking_uri=uri,
        key="a-key",
        names=STEPS,
        broke_off=lambda *told: heard.append(told),
    )
    with job.begun("training", "ecommerce", None) as run:
        job._end("failed", "FAILED", "a bug")
        assert heard == [], "a store that was never made stays so"
        Path(".mtrec/mlflow.db").touch()
        job._end("interrupted", "KILLED", "stopped")
    assert heard == [(run.name, "KILLED", "stopped")]
    assert run.state["state"] == "interrupted"


@pytest.mark.parametrize(("data", "given"), [("/x/my shop", "/x/my shop"), ("", "scenario 'ecommerce'")])
def test_what_a_step_says_about_the_ingested_tables_names_what_was_given(
    folder: Path, data: str, given: str
) -> None:
    run = Workspace.here().open_run("ecommerce", "abcdef")
    run.update(data=data, scenario="ecommerce")
    tables = f"{run.outputs}/mtrec-training-1/ingest-data/tables"
    assert as_given(f"{tables}: interactions.parquet: 3 rows", run) == f"{given}: interactions.parquet: 3 rows"
    for other in (f"cannot write {tables}: the disk is full", f"{tables}/items.parquet: no such file"):
        assert as_given(other, run) == other
