import json
from pathlib import Path
from typing import Any

from components.evaluate_model import evaluate_model


def test_every_task_is_measured_twice(run_component: Any, made: Any, scenario: Any, tmp_path: Path) -> None:
    artifacts = {"dataset": made.dataset, "model": made.fine_tune("model")}
    done = run_component(evaluate_model, artifacts, tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    evaluation = json.loads(done.path("evaluation").read_text())
    assert set(evaluation["tasks"]) == set(scenario.tasks)
    assert evaluation["champion"] is None
    rmse = evaluation["tasks"]["rating"]["metrics"]["rmse"]
    assert rmse["before"] > 0
    assert rmse["after"] > 0
    assert done.metadata("metrics")["rating.rmse"] == rmse["after"]
    assert json.loads(done.path("metrics").read_text()) == done.metadata("metrics")
    assert any(done.path("predictions").glob("*.parquet"))
