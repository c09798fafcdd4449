import json
import os
from pathlib import Path

import pytest

from mtrec.errors import InputError
from pipelines import workspace as module
from pipelines.workspace import Run, Workspace, shown


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace.here()


def _finished(workspace: Workspace, key: str, age: int) -> Run:
    run = workspace.open_run("shop", key)
    run.update(key=key, state="finished")
    run.outputs.mkdir(parents=True)
    os.utime(run.folder / "run.json", (1e9 - age, 1e9 - age))
    return run


def test_looking_at_a_workspace_creates_nothing(workspace: Workspace) -> None:
    run = workspace.open_run("shop", "abcdef123456")
    assert run.name.startswith("shop-")
    assert run.name.endswith("-abcdef")
    assert run.state == {}
    assert not workspace.root.exists()


def test_an_unfinished_run_with_the_same_key_is_taken_up_again(workspace: Workspace) -> None:
    run = workspace.open_run("shop", "key-one")
    run.update(key="key-one", state="interrupted")
    assert workspace.open_run("shop", "key-one") == run
    assert workspace.open_run("shop", "key-two").name != run.name
    run.update(state="finished")
    assert json.loads((run.folder / "run.json").read_text()) == {"key": "key-one", "state": "finished"}
    assert workspace.open_run("shop", "key-one").state == {}


@pytest.mark.parametrize(("state", "goes_on"), [("running", True), ("interrupted", True), ("failed", False)])
def test_a_failed_run_is_no_run_to_go_on_with_where_so_asked(
    workspace: Workspace, state: str, goes_on: bool
) -> None:
    run = workspace.open_run("shop", "key-one")
    run.update(key="key-one", state=state)
    assert workspace.open_run("shop", "key-one") == run
    assert (workspace.open_run("shop", "key-one", after_failure=False) == run) == goes_on


def test_a_broken_state_file_is_no_run_to_go_on_with(workspace: Workspace) -> None:
    run = workspace.open_run("shop", "key-one")
    run.update(key="key-one", state="failed")
    (run.folder / "run.json").write_text("{half")
    assert run.state == {}
    assert workspace.open_run("shop", "key-one").state == {}


def test_old_step_outputs_are_dropped_and_reports_stay(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_RUNS", 2)
    runs = [_finished(workspace, f"key-{age}", age) for age in range(4)]
    workspace.prune()
    assert [run.outputs.exists() for run in runs] == [True, True, False, False]
    assert all(run.folder.exists() for run in runs)


def test_training_states_of_unfinished_runs_stay(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_RUNS", 1)
    workspace.prune()
    assert not workspace.root.exists()
    _finished(workspace, "f00", 0)
    for key, state in (("a11", "interrupted"), ("b22", "failed"), ("c33", "running"), ("d44", "broken")):
        run = workspace.open_run("shop", key)
        run.update(key=key, state=state)
        os.utime(run.folder / "run.json", (1e9, 1e9))
    (run.folder / "run.json").write_text("{half")
    keys = ("a11", "b22", "c33", "d44", "e55", "f00")
    for name in [form.format(key) for key in keys for form in ("{}", ".{}.0a1b.tmp", ".{}.0a1b.old")]:
        (workspace.checkpoints / name).mkdir(parents=True)
        (workspace.checkpoints / name / "state.json").write_text("{}")
    workspace.prune()
    left = {path.name for path in workspace.checkpoints.iterdir()}
    unfinished = {form.format(key) for key in keys[:3] for form in ("{}", ".{}.0a1b.tmp", ".{}.0a1b.old")}
    assert left == unfinished | {"f00"}, "the last finished run's state stays, its half-written ones do not"


def test_the_training_state_of_a_failed_run_goes_when_the_same_was_finished(workspace: Workspace) -> None:
    failed = workspace.open_run("shop", "old")
    failed.update(key="old", state="failed")
    os.utime(failed.folder / "run.json", (1, 1))
    (workspace.checkpoints / "old").mkdir(parents=True)
    for key, age in (("old", 1), ("new", 0)):
        run = workspace.open_run("shop", key, after_failure=False)
        run.update(key=key, state="finished", scenario="shop")
        os.utime(run.folder / "run.json", (1e9 - age, 1e9 - age))
    workspace.prune()
    assert not (workspace.checkpoints / "old").exists()


def test_the_training_state_of_the_last_finished_run_of_each_scenario_stays(workspace: Workspace) -> None:
    for age, (scenario, key) in enumerate([("shop", "new"), ("shop", "old"), ("video", "one"), ("video", "two")]):
        run = _finished(workspace, key, age)
        run.update(scenario=scenario)
        os.utime(run.folder / "run.json", (1e9 - age, 1e9 - age))
        (workspace.checkpoints / key).mkdir(parents=True)
    workspace.prune()
    assert {path.name for path in workspace.checkpoints.iterdir()} == {"new", "one"}


def test_the_latest_report_is_the_newest_file(workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"\.mtrec/runs: no report yet; make one with 'mtrec run'"):
        workspace.latest_report()
    for age, key in enumerate(("new", "old")):
        report = _finished(workspace, key, age).folder / "report.html"
        report.write_text(key)
        os.utime(report, (1e9 - age, 1e9 - age))
    assert workspace.latest_report().read_text() == "new"


def test_paths_are_shown_from_here_when_they_lie_here(workspace: Workspace, tmp_path: Path) -> None:
    assert shown(workspace.runs) == ".mtrec/runs"
    assert shown(tmp_path.parent / "elsewhere") == str(tmp_path.parent / "elsewhere")
