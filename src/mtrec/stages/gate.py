"""Gate: an evaluation → pass or fail with every reason, and the report for review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.errors import RunError
from mtrec.evaluation.gate import decide
from mtrec.evaluation.report import write_report
from mtrec.tracking import log_judgement


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    evaluation: Path
    losses: Path
    validation: Path | None = None
    """Summary of the validate stage."""
    lineage: dict[str, str]
    """What the candidate was made from. With a pipeline_run in it, a refusal is logged to MLflow."""
    tracking_uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    gate: Path
    report: Path


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Judge a candidate and write its report.

    Returns:
        `verdict` (pass or fail), `rules` and `champion`; see `mtrec.evaluation.gate.decide`.

    Raises:
        ConfigError: a floor names a metric that was not measured.
        RunError: an input is not readable, or MLflow cannot be used.
    """
    evaluation = _read(inputs.evaluation)
    decision = decide(evaluation, scenario.gate)
    write_report(
        outputs.report,
        evaluation=evaluation,
        losses=_read_lines(inputs.losses),
        gate=decision,
        validation=_read(inputs.validation) if inputs.validation else None,
        lineage=inputs.lineage,
    )
    with replacing_file(outputs.gate) as temporary:
        temporary.write_text(json.dumps(decision, indent=1), encoding="utf-8")
    if decision["verdict"] == "fail" and inputs.lineage.get("pipeline_run"):
        log_judgement(
            scenario,
            evaluation=inputs.evaluation,
            gate=outputs.gate,
            report=outputs.report,
            validation=inputs.validation,
            lineage=inputs.lineage,
            tracking_uri=inputs.tracking_uri,
        )
    return decision


def _read(path: Path) -> dict[str, Any]:
    with _readable(path):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with _readable(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not readable ({error}); run the stage that writes it again") from error
