import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from components.fine_tune_model import fine_tune_model
from mtrec.config import Scenario
from mtrec.stages import fine_tune
from mtrec.tracking.connection import connected


def test_the_model_is_written_and_the_curves_are_in_mlflow(
    run_component: Any, made: Any, scenario: Scenario, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = run_component(
        fine_tune_model,
        {"dataset": made.dataset},
        data_version="1.dir",
        code_revision="abc",
        pipeline_run="run-1",
        tracking_uri=uri,
        checkpoints=str(tmp_path / "checkpoints"),
        text_cache=str(tmp_path / "texts"),
    )
    (weights,) = done.path("model").glob("model*.safetensors")
    with safe_open(weights, framework="numpy") as tensors:
        assert len(list(tensors.keys())) > 10
    assert not list(done.path("model").rglob("*.pkl"))
    assert list((tmp_path / "texts").rglob("*.safetensors"))
    kinds = [json.loads(line)["kind"] for line in done.path("losses").read_text().splitlines()]
    assert "train" in kinds
    assert kinds.count("valid") == done.metadata("model")["epochs"] == 1
    with connected(uri) as client:
        (experiment,) = [e for e in client.search_experiments() if e.name == "ecommerce"]
        runs = client.search_runs([experiment.experiment_id])
    assert "run-1" in {run.data.tags.get("mtrec.pipeline_run") for run in runs}
    assert len(runs) == 2, "one run for the pipeline and a child for the curves"
    key = json.loads((tmp_path / "checkpoints" / "state.json").read_text())["key"]
    same, other = (fine_tune.Inputs(dataset=made.dataset, code_revision=revision) for revision in ("abc", "abd"))
    assert fine_tune._key(same, scenario) == key != fine_tune._key(other, scenario)


def test_a_dataset_of_another_data_version_is_refused(
    run_component: Any, made: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError):
        run_component(
            fine_tune_model,
            {"dataset": made.dataset},
            made_from="0.dir",
            data_version="1.dir",
            code_revision="abc",
            pipeline_run="r",
        )
    message = "mtrec: the dataset was made from data version 0.dir, this run ingested 1.dir"
    assert message in capfd.readouterr().out


def test_where_to_train_reaches_the_stage(run_component: Any, made: Any, capfd: pytest.CaptureFixture[str]) -> None:
    given = {"data_version": "1.dir", "code_revision": "abc", "pipeline_run": "r", "trainer": '{"num_nodes": 2}'}
    with pytest.raises(RuntimeError):
        run_component(fine_tune_model, {"dataset": made.dataset}, **given)
    assert "mtrec: trainer: work: Field required" in capfd.readouterr().out
