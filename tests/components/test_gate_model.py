import json
from pathlib import Path
from typing import Any

from components.gate_model import gate_model
from mtrec.tracking.connection import connected


def test_the_verdict_is_the_one_output_and_the_report_whole(run_component: Any, made: Any, scenario: Any) -> None:
    artifacts = {
        "evaluation": made.evaluation,
        "losses": made.fine_tune("losses"),
        "validation": made.validate("summary"),
    }
    done = run_component(
        gate_model, artifacts, data_version="1.dir", code_revision="abc", pipeline_run="run-1", image="image:1"
    )
    decision = json.loads(done.path("gate").read_text())
    assert done.parameters == {"Output": decision["verdict"]}
    assert decision["verdict"] == "pass"
    page = done.path("report").read_text()
    assert "<html" in page
    for value in ("1.dir", "abc", "run-1", "image:1", scenario.digest[:12]):
        assert value in page


def test_a_refusal_is_explained_in_mlflow(run_component: Any, made: Any, scenario: Any, tmp_path: Path) -> None:
    strict = scenario.model_copy(update={"gate": scenario.gate.model_copy(update={"floors": {"rating.rmse": 0.0}})})
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    artifacts = {
        "evaluation": made.evaluation,
        "losses": made.fine_tune("losses"),
        "validation": made.validate("summary"),
    }
    done = run_component(
        gate_model,
        artifacts,
        scenario=json.dumps(strict.as_dict()),
        data_version="1.dir",
        code_revision="abc",
        pipeline_run="run-1",
        image="image:1",
        tracking_uri=uri,
    )
    assert done.parameters == {"Output": "fail"}
    with connected(uri) as client:
        (experiment,) = [e for e in client.search_experiments() if e.name == "ecommerce"]
        (run,) = client.search_runs([experiment.experiment_id])
        files = {item.path for item in client.list_artifacts(run.info.run_id, "evaluation")}
    assert run.info.status == "FINISHED"
    assert run.data.tags["mtrec.gate"] == "fail"
    assert "evaluation/report.html" in files
