import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtrec.config import Scenario, load_scenario
from mtrec.errors import ConfigError, RunError
from mtrec.tracking import runs
from mtrec.tracking.connection import connected

LINEAGE = {"data_version": "0" * 32 + ".dir", "code_revision": "abc", "parameters_hash": "123", "image": "local"}


def test_any_stage_may_come_first_and_all_share_one_run(uri: str, scenario: Scenario, tmp_path: Path) -> None:
    first = runs.pipeline_run(scenario, "monday")
    again = runs.pipeline_run(scenario, "monday", lineage=LINEAGE)
    other = runs.pipeline_run(scenario, "tuesday")
    assert first == again
    assert other.run_id != first.run_id
    assert first.tracking_uri == uri
    with connected(uri) as client:
        assert client.get_experiment(first.experiment_id).name == "ecommerce"
        assert (
            client.get_experiment(first.experiment_id).artifact_location == f"file://{tmp_path}/.mtrec/mlartifacts"
        )
        data = client.get_run(first.run_id).data
    assert data.tags["mtrec.pipeline_run"] == "monday"
    assert data.tags["mtrec.data_version"] == LINEAGE["data_version"]
    assert data.params["training.epochs"] == "5"
    assert data.params["tasks.rating.type"] == "regression"
    assert data.params["items.numeric"] == '["price"]'


def test_other_settings_under_the_same_name_are_refused(uri: str, scenario: Scenario, repository: Path) -> None:
    runs.pipeline_run(scenario, "monday")
    changed = load_scenario(repository / "scenarios" / "ecommerce.yaml", ["training.epochs=7"])
    with pytest.raises(
        RunError, match=r"'monday': already started with other settings \(training.epochs=5, now 7\)"
    ):
        runs.pipeline_run(changed, "monday")


def test_settings_with_signs_that_mlflow_refuses(uri: str, scenario: Scenario) -> None:
    wild = {"gate": {"floors": {"next_item.ndcg@10": 0.1}}, "columns": {"price (€) / unit": "Preis", "x" * 400: 1}}
    flat = runs.flatten(wild)
    assert flat["gate.floors.next_item.ndcg_at_10"] == "0.1"
    assert flat["columns.price (_) _ unit".replace("(", "_").replace(")", "_")] == "Preis"
    assert max(map(len, flat)) == 250
    floors = scenario.gate.model_copy(update={"floors": {"next_item.ndcg@10": 0.1}})
    run = runs.pipeline_run(scenario.model_copy(update={"gate": floors}), "monday")
    with connected(uri) as client:
        assert client.get_run(run.run_id).data.params["gate.floors.next_item.ndcg_at_10"] == "0.1"


@pytest.mark.parametrize("name", ["", "it's"])
def test_names_that_mlflow_cannot_search(uri: str, scenario: Scenario, name: str) -> None:
    with pytest.raises(ConfigError, match="a name is needed"):
        runs.pipeline_run(scenario, name)


def test_an_injected_run_is_used(uri: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(uri) as client:
        experiment = client.create_experiment("from-the-workflow")
        injected = client.create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    run = runs.pipeline_run(scenario, "monday")
    assert (run.run_id, run.experiment_id) == (injected, experiment)
    with connected(uri) as client:
        assert client.get_experiment_by_name("ecommerce") is None
        assert client.get_run(injected).data.tags["mtrec.pipeline_run"] == "monday"


def test_of_a_run_per_step_the_one_above_is_the_pipelines(
    uri: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubeflow Pipelines injects them: a run of its own for every step, nested in the pipeline's."""
    with connected(uri) as client:
        experiment = client.create_experiment("from-the-workflow")
        above = client.create_run(experiment).info.run_id
        loop = client.create_run(experiment, tags={"mlflow.parentRunId": above}).info.run_id
        steps = {
            stage: client.create_run(experiment, tags={"mlflow.parentRunId": inside}).info.run_id
            for stage, inside in (("ingest", above), ("fine_tune", loop), ("evaluate", above))
        }
    for stage, injected in steps.items():
        monkeypatch.setenv("MLFLOW_RUN_ID", injected)
        run = runs.pipeline_run(scenario, "monday")
        assert run.run_id == above
        with runs.child_run(run, stage) as child:
            assert child.run_id == injected
        with runs.child_run(run, f"{stage} again") as second:
            assert second.run_id not in (injected, above), "it is taken"
    with connected(uri) as client:
        found = client.search_runs([experiment])
        assert [run.info.run_id for run in found if "mtrec.pipeline_run" in run.data.tags] == [above]
        assert client.get_experiment_by_name("ecommerce") is None


def test_a_deleted_experiment_is_told(uri: str, scenario: Scenario) -> None:
    run = runs.pipeline_run(scenario, "monday")
    with connected(uri) as client:
        client.delete_experiment(run.experiment_id)
    with pytest.raises(
        RunError, match=r"experiment 'ecommerce' was deleted; bring it back with 'mlflow experiments"
    ):
        runs.pipeline_run(scenario, "tuesday")


def test_two_processes_share_one_run(uri: str, repository: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; import mlflow; from mtrec.config import load_scenario\n"
        "from mtrec.tracking import pipeline_run\n"
        "Path(sys.argv[1]).touch()\n"
        "while not Path('go').exists(): time.sleep(0.002)\n"
        "print(pipeline_run(load_scenario(sys.argv[2]), 'monday').run_id)\n"
    )
    scenario = repository / "scenarios" / "ecommerce.yaml"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(n), scenario],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in range(2)
    ]
    while not all((tmp_path / str(n)).exists() for n in range(2)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1, outputs


def test_without_a_lock_the_oldest_run_wins(uri: str, scenario: Scenario) -> None:
    run = runs.pipeline_run(scenario, "monday")
    with connected(uri) as client:
        assert runs._create(client, run.experiment_id, "monday") == run.run_id
        assert len(client.search_runs([run.experiment_id])) == 1


def test_losses_become_curves_of_the_child(uri: str, scenario: Scenario) -> None:
    parent = runs.pipeline_run(scenario, "monday")
    lines = [
        {"kind": "train", "step": step, "loss": 2.0 / step, "losses": {"rating": 1.0 / step}, "lr": 0.002}
        for step in (10, 20, 30)
    ]
    lines.append({"kind": "valid", "step": 30, "epoch": 1, "score": 0.6, "metrics": {"next_item.ndcg@10": 0.05}})
    with runs.child_run(parent, "fine_tune") as child:
        runs.log_losses(child, lines)
    with connected(uri) as client:
        history = client.get_metric_history(child.run_id, "train/rating")
        assert [(point.step, point.value) for point in history] == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
        run = client.get_run(child.run_id)
        assert run.data.metrics["valid/next_item.ndcg_at_10"] == 0.05
        assert run.data.metrics["valid/score"] == 0.6
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id
        assert run.info.status == "FINISHED"
        assert client.get_run(parent.run_id).info.status == "RUNNING"
    assert runs.logged_steps(child, "train/rating") == {10, 20, 30}
    assert runs.logged_steps(child, "valid/next_item.ndcg@10") == {30}
    assert runs.logged_steps(child, "valid/rating") == set()


def test_what_came_before_fine_tuning_has_its_curves(uri: str, scenario: Scenario) -> None:
    run = runs.pipeline_run(scenario, "monday")
    lines = [
        {"kind": "pretrain", "step": 0, "loss": None, "held_out": 7.5},
        {"kind": "pretrain", "step": 4, "loss": 6.5, "held_out": 6.25},
        {"kind": "match", "step": 3, "loss": 0.5},
    ]
    runs.log_losses(run, [line | {"score": None} for line in lines])
    with connected(uri) as client:
        assert client.get_run(run.run_id).data.metrics == {
            "pretrain/loss": 6.5,
            "pretrain/held_out": 6.25,
            "match/loss": 0.5,
        }
    assert runs.logged_steps(run, "pretrain/held_out") == {0, 4}


def test_a_long_curve_fits_in_calls_of_a_thousand(uri: str, scenario: Scenario) -> None:
    run = runs.pipeline_run(scenario, "monday")
    runs.log_losses(run, [{"kind": "train", "step": step, "loss": 1.0, "lr": 0.1} for step in range(1, 702)])
    with connected(uri) as client:
        assert len(client.get_metric_history(run.run_id, "train/loss")) == 701


def test_a_child_that_was_cut_off_is_taken_up_again(uri: str, scenario: Scenario) -> None:
    parent = runs.pipeline_run(scenario, "monday")
    with pytest.raises(ValueError, match="power cut"), runs.child_run(parent, "fine_tune") as first:
        raise ValueError("power cut")
    with connected(uri) as client:
        assert client.get_run(first.run_id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), runs.child_run(parent, "fine_tune") as second:
        raise KeyboardInterrupt
    with connected(uri) as client:
        assert client.get_run(second.run_id).info.status == "KILLED"
    with runs.child_run(parent, "fine_tune") as third:
        pass
    with runs.child_run(parent, "fine_tune") as fourth:
        pass
    assert first == second == third
    assert fourth.run_id != third.run_id


def test_system_metrics_are_recorded(uri: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    parent = runs.pipeline_run(scenario, "monday")
    with runs.child_run(parent, "fine_tune", system_metrics=True) as child:
        time.sleep(1)
    with connected(uri) as client:
        metrics = client.get_run(child.run_id).data.metrics
    assert "system/cpu_utilization_percentage" in metrics
    assert "system/system_memory_usage_megabytes" in metrics


def test_artifacts_and_metrics(uri: str, scenario: Scenario, tmp_path: Path) -> None:
    run = runs.pipeline_run(scenario, "monday")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.html").write_text("<p>")
    (tmp_path / "losses.jsonl").write_text("{}")
    runs.log_artifacts(run, [tmp_path / "docs", tmp_path / "losses.jsonl"], "data")
    runs.log_metrics(run, {"test/rating.rmse": 0.9, "champion/rating.rmse": None})
    with connected(uri) as client:
        assert {item.path for item in client.list_artifacts(run.run_id, "data")} == {
            "data/docs",
            "data/losses.jsonl",
        }
        assert [item.path for item in client.list_artifacts(run.run_id, "data/docs")] == ["data/docs/index.html"]
        assert client.get_run(run.run_id).data.metrics == {"test/rating.rmse": 0.9}
    with pytest.raises(RunError, match=r"nothing\.html: no such file to store"):
        runs.log_artifacts(run, [tmp_path / "nothing.html"])


def test_finishing(uri: str, scenario: Scenario) -> None:
    run = runs.pipeline_run(scenario, "monday")
    runs.finish_run(run, "FAILED")
    with connected(uri) as client:
        assert client.get_run(run.run_id).info.status == "FAILED"
