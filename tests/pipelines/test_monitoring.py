"""The monitoring pipeline through the local runner, with small stages: skip, retrain, refusal, failure, a lock."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mtrec.config import load_scenario
from mtrec.errors import InputError, ModelError
from mtrec.lease import Held, holding
from mtrec.tracking import attempts, training_lease
from mtrec.tracking.connection import connected
from pipelines import local
from pipelines.job import StepFailed
from pipelines.local import WATCHING, Monitored, run_monitoring
from pipelines.workspace import Workspace

pytestmark = pytest.mark.usefixtures("small_stages")
Wish = Callable[[str], None]
SHOP = load_scenario("ecommerce")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store; copied, since making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    (folder / ".mtrec").mkdir()
    with connected(_uri(folder)) as client:
        client.search_experiments()
    return folder / ".mtrec" / "mlflow.db"


@pytest.fixture
def folder(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a store that has a champion, as far as the runner looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "check_champion", lambda *_: True)
    monkeypatch.setattr(local, "code_revision", lambda: "a-revision")
    (tmp_path / ".mtrec").mkdir()
    shutil.copy(store, tmp_path / ".mtrec" / "mlflow.db")
    for name in ("quiet", "drifted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows").write_text(name)
    return tmp_path


def _uri(folder: Path) -> str:
    return f"sqlite:///{folder}/.mtrec/mlflow.db"


def _run(drop: str, *settings: str) -> tuple[Monitored, str]:
    output = io.StringIO()
    result = run_monitoring(
        load_scenario("ecommerce", settings),
        Path(drop),
        workspace=Workspace.here(),
        console=Console(file=output, width=200),
    )
    return result, output.getvalue()


def _outcomes(folder: Path) -> list[tuple[str, str]]:
    """Status and outcome of every look that MLflow knows, oldest first."""
    with connected(_uri(folder)) as client:
        experiment = client.get_experiment_by_name("ecommerce-monitoring")
        runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [(run.info.status, run.data.tags["mtrec.outcome"]) for run in runs]


def test_nothing_is_trained_where_the_decision_says_skip(folder: Path) -> None:
    kept = folder / ".mtrec/drift/ecommerce"
    (kept / "tables").mkdir(parents=True)
    (kept / "observed.json").write_text("of another look")
    result, shown = _run("quiet")
    assert {path.name for path in kept.iterdir()} == {"decision.json", "drift.html"}, "files of one look only"
    assert result.training is None
    assert result.decision["verdict"] == "skip"
    assert json.loads((folder / ".mtrec/drift/ecommerce/decision.json").read_text()) == result.decision
    assert (result.run.folder / "drift.html").read_text() == "<p>drift</p>"
    for step in ("monitor_data", "decide_retraining", "record_outcome"):
        assert f"{step:<17} done" in shown
    assert shown.count("skipped") == len(local.STEPS)
    assert _outcomes(folder) == [("FINISHED", "skipped: as told")]
    assert attempts(SHOP, _uri(folder)) == [], "a look is no attempt at training"
    assert result.run.state["state"] == "finished"


def test_where_it_says_retrain_the_training_pipeline_gets_the_monitored_data(folder: Path) -> None:
    result, shown = _run("drifted")
    assert result.training is not None
    assert result.training.registration is not None
    lineage = result.training.registration["lineage"]
    assert lineage["data_version"] == "dvc:2.dir.dir"  # what the small stage makes of its input
    assert lineage["pipeline_run"] == result.run.name
    assert lineage["code_revision"] == "a-revision"
    for step in WATCHING:
        assert f"{step:<17} done" in shown
    assert {"decision.json", "drift.html", "report.html", "registration.json"} < {
        path.name for path in result.run.folder.iterdir()
    }
    assert len(attempts(SHOP, _uri(folder))) == 1


@pytest.mark.slow
def test_a_refusal_by_the_gate_is_a_result(folder: Path) -> None:
    result, shown = _run("drifted", "gate.floors={rating.rmse: 0.5}")
    assert result.training is not None
    assert not result.training.passed
    assert result.training.registration is None
    assert "register_model    skipped" in shown
    assert _outcomes(folder) == [("FINISHED", "refused by the gate")]


@pytest.mark.parametrize(
    ("wish", "tried", "message"),
    [
        ("monitor=explain", 0, "column 'title' is missing"),
        pytest.param("fine_tune=explain", 1, "column 'title' is missing", marks=pytest.mark.slow),
        pytest.param("fine_tune=die", 1, "fine_tune_model ended without a word", marks=pytest.mark.slow),
    ],
)
def test_a_failure_is_recorded_and_only_a_training_that_began_is_an_attempt(
    folder: Path, small_stages: Wish, wish: str, tried: int, message: str
) -> None:
    small_stages(wish)
    with pytest.raises(StepFailed, match=message):
        _run("drifted")
    ((status, outcome),) = _outcomes(folder)
    assert status == "FAILED"
    assert outcome.startswith("failed: ")
    assert message in outcome
    assert len(attempts(SHOP, _uri(folder))) == tried
    small_stages("")
    result, shown = _run("drifted")
    assert shown.startswith("Run ")
    assert result.training is not None
    assert [status for status, _ in _outcomes(folder)] == ["FAILED", "FINISHED"]
    assert len(attempts(SHOP, _uri(folder))) == tried + 1, "each is an attempt of its own"


def test_two_at_once_end_with_one_run_and_one_clear_message(folder: Path) -> None:
    with (
        holding(training_lease("ecommerce", _uri(folder)), "training of ecommerce"),
        pytest.raises(Held, match=r"^training of ecommerce is under way already \(.*process \d+"),
    ):
        _run("drifted")
    assert not (folder / ".mtrec" / "runs").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_is_taken_up_again_at_once(
    folder: Path, small_stages: Wish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its step goes on for a while, and must not register what the next run registers."""
    marker = tmp_path / "marker"
    monkeypatch.setenv("SMALL_STAGES_MARKER", str(marker))
    small_stages("gate=sleep")
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from mtrec.config import load_scenario; from pipelines import local\n"
        "from pipelines.workspace import Workspace\n"
        "local.check_champion = lambda *_: True; local.code_revision = lambda: 'a-revision'\n"
        "local.run_monitoring(load_scenario('ecommerce'), Path('drifted'), workspace=Workspace.here(), "
        "console=Console())"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL)
    while not marker.exists():
        assert run.poll() is None
        time.sleep(0.1)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    small_stages("")
    result, shown = _run("drifted")
    assert shown.startswith("Going on with run")
    assert result.training is not None
    assert len(attempts(SHOP, _uri(folder))) == 1
    os.kill(int(marker.read_text()), signal.SIGKILL)


def test_what_is_not_there_is_told_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        _run("nowhere")
    monkeypatch.setattr(local, "check_champion", lambda *_: False)
    with pytest.raises(ModelError, match="scenario ecommerce has no champion yet"):
        _run("quiet")
    assert not (folder / ".mtrec" / "runs").exists()
