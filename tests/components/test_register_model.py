import json
from pathlib import Path
from typing import Any

from components.register_model import register_model
from mtrec.tracking import list_models


def test_the_model_is_registered_with_its_lineage(
    run_component: Any, made: Any, scenario: Any, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    artifacts = {
        "model": made.fine_tune("model"),
        "evaluation": made.evaluation,
        "gate": made.gate("gate"),
        "report": made.gate("report"),
        "validation": made.validate("summary"),
    }
    given = {"data_version": "1.dir", "code_revision": "abc", "image": "image:1", "tracking_uri": uri}
    done = run_component(register_model, artifacts, pipeline_run="run-1", **given)
    registration = json.loads(done.path("registration").read_text())
    assert registration["name"] == "ecommerce-candidate"
    assert done.metadata("registration") == {"name": "ecommerce-candidate", "version": registration["version"]}
    versions = [model for model in list_models(uri) if model.name == "ecommerce-candidate"]
    assert [version.version for version in versions] == [registration["version"]]
    assert scenario.digest in versions[0].tags.values()
    assert {"1.dir", "abc", "image:1"} <= set(versions[0].tags.values())
