import json
from typing import Any

from components.gate_model import gate_model


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
