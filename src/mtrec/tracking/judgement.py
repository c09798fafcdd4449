"""What was measured and decided about a candidate, logged to its MLflow run."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.errors import RunError
from mtrec.tracking.connection import connected
from mtrec.tracking.runs import Run, finish_run, log_artifacts, log_metrics, metric_name, pipeline_run
from mtrec.tracking.stored import FILES, FOLDER


def log_judgement(
    scenario: Scenario,
    *,
    evaluation: Path,
    gate: Path,
    report: Path,
    lineage: Mapping[str, str],
    validation: Path | None = None,
    tracking_uri: str | None = None,
) -> Run:
    """Log what was measured and decided to the pipeline run's MLflow run, and end it.

    `register` does it too; a run that the gate refused needs it to show why.

    Args:
        scenario: names the experiment.
        evaluation: evaluation.json, whose metrics become the run's: test, before and champion.
        gate: gate.json; its verdict becomes the tag mtrec.gate.
        report: the HTML report; the files become artifacts.
        lineage: what the run works from, with pipeline_run.
        validation: what the validate stage said of the data.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: a file is not JSON, or MLflow cannot be used.
    """
    measured, judged = read(evaluation), read(gate)
    run = pipeline_run(scenario, lineage["pipeline_run"], tracking_uri=tracking_uri, lineage=lineage)
    given = {"evaluation": evaluation, "gate": gate, "report": report, "validation": validation}
    with tempfile.TemporaryDirectory() as temporary:
        # A workflow names its files without an ending; MLflow's page shows a file by its ending.
        for name, path in given.items():
            if path is None:
                continue
            if not path.is_file():
                raise RunError(f"{path}: no such file to store in MLflow")
            shutil.copy(path, Path(temporary) / FILES[name])
        log_artifacts(run, sorted(Path(temporary).iterdir()), FOLDER)
    log_metrics(run, _metrics(measured))
    with connected(run.tracking_uri) as client:
        client.set_tag(run.run_id, "mtrec.gate", judged["verdict"])
    finish_run(run)
    return run


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Raises:
        RunError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: a mapping is expected, found {type(content).__name__}")
    return content


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics of the run: `test/<task>.<metric>`, and the same before fine-tuning and of the champion."""
    return {
        metric_name(f"{prefix}/{task}.{metric}"): values.get(key)
        for task, result in evaluation.get("tasks", {}).items()
        for metric, values in result.get("metrics", {}).items()
        for prefix, key in (("test", "after"), ("before", "before"), ("champion", "champion"))
    }
