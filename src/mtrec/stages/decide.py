"""Decide: what the monitor observed → retrain or skip, with every rule told.

The deciding itself is `mtrec.drift.decision`, a pure function; here it gets what it needs to know from MLflow and
from the lock. With a pipeline run the decision has consequences: it is kept in MLflow, and where it says retrain,
the data goes to DVC's remote and the attempt counts from this moment.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import replacing_file
from mtrec.data.versioning import push, repository
from mtrec.drift.decision import Known, decide
from mtrec.drift.windows import Window
from mtrec.errors import RunError
from mtrec.evaluation.drift_report import write_drift
from mtrec.lease import Lease
from mtrec.lineage import code_revision
from mtrec.progress import report
from mtrec.tracking import (
    attempts,
    begin_training,
    forgotten_in,
    log_decision,
    resolve_uri,
    running,
    trained_in,
    training_lease,
)
from mtrec.tracking.connection import database_of


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    observed: Path
    """What `monitor` wrote."""
    tables: Path | None = None
    """The tables that `monitor` wrote, where it wrote any."""
    tracking_uri: str | None = None
    """MLflow with the past attempts."""
    dvc_root: Path | None = None
    """DVC repository whose remote gets the tables to retrain on; by default as for `monitor`."""
    code_revision: str | None = None
    """Revision of the code; asked from the installation when not given."""
    image: str | None = None
    """Container image that would train."""
    pipeline_run: str | None = None
    """The run that would train. None: only tell what would be decided."""
    lease: str | None = None
    """The lease under which the run trains, see `mtrec.lease.Lease.as_text`; None: nobody's."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    decision: Path
    """JSON file: the verdict, every rule with value and threshold, and all that was observed."""
    report: Path
    """One HTML page for people."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Decide whether to retrain.

    Returns:
        The decision as it is written: `verdict`, `reason`, `at`, `rules`, `key`, `attempts`, `settings`, and what
        the monitor observed.

    Raises:
        DataError: the list of forgotten users cannot be read.
        Held: another has begun to train since this was decided.
        RunError: what was observed cannot be read, the tables changed since, or MLflow or the DVC remote cannot be
            used.
    """
    try:
        observed = json.loads(inputs.observed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{inputs.observed}: what the monitor observed cannot be read ({error})") from error
    uri = resolve_uri(inputs.tracking_uri)
    key = _key(inputs, observed, scenario)
    now = datetime.fromisoformat(observed["now"])
    tried = attempts(scenario, uri, besides=inputs.pipeline_run)
    if not observed["now_given"]:  # what began since the monitor looked at the clock counts, as does a clock ahead
        now = max(now, datetime.now(UTC))
        tried = [min(at, now) for at in tried]
    decision = decide(
        Known(
            now=now,
            champion_until=datetime.fromisoformat(observed["champion"]["until"]),
            data_problems=observed["data"]["problems"],
            windows=[Window.from_dict(window) for window in observed["windows"]],
            new_rows=observed["data"]["new_rows"],
            attempts=tried,
            under_way=_under_way(inputs, scenario, uri),
            trained_in=trained_in(scenario, key, uri),
            forgotten=_forgotten(inputs, observed, scenario, uri),
        ),
        scenario.retraining,
    )
    told = decision.as_dict() | observed | {
        "key": key,
        "attempts": [at.isoformat() for at in tried],
        "settings": scenario.retraining.model_dump(mode="json"),
    }  # fmt: skip
    with replacing_file(outputs.decision) as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_drift(outputs.report, told)
    if inputs.pipeline_run:
        if decision.verdict == "retrain":
            _hand_over(inputs, scenario, uri, told)
        files = {"decision.json": outputs.decision, "drift.html": outputs.report}
        log_decision(scenario, inputs.pipeline_run, told, files, uri)
    report("decide", 1.0, f"{decision.verdict}: {decision.reason}")
    return told


def _hand_over(inputs: Inputs, scenario: Scenario, uri: str, told: dict[str, Any]) -> None:
    """Put the data where training finds it, and count the attempt."""
    assert inputs.pipeline_run is not None
    if inputs.tables is None:
        raise RunError("decide: tables are needed to retrain; only telling needs none")
    version = push(inputs.tables, inputs.dvc_root or repository())
    if version != told["data"]["version"]:
        raise RunError(f"{inputs.tables}: data version {version}, but {told['data']['version']} was monitored")
    if inputs.lease and (lease := Lease.join(inputs.lease, inputs.pipeline_run)).token is None:
        lease.acquire(f"retraining of {scenario.name}")
    begin_training(scenario, inputs.pipeline_run, key=told["key"], why=told["reason"], tracking_uri=uri)


def _under_way(inputs: Inputs, scenario: Scenario, uri: str) -> str | None:
    held = training_lease(scenario.name, uri).holding()
    own = Lease.join(inputs.lease, inputs.pipeline_run or "").holder if inputs.lease else None
    if held is not None and held.holder != own:
        return f"{held.what} ({held.holder})"
    if database_of(uri) is not None:  # all who train with this store hold its lease, and it knows who has died
        return None
    other = running(scenario, uri, besides=inputs.pipeline_run)
    return None if other is None else f"run {other}"


def _forgotten(inputs: Inputs, observed: dict[str, Any], scenario: Scenario, uri: str) -> str | None:
    if scenario.training.start != "champion":
        return None
    champion = observed["champion"]
    return forgotten_in(f"{champion['name']}/{champion['version']}", inputs.dvc_root or repository(), uri)


def _key(inputs: Inputs, observed: dict[str, Any], scenario: Scenario) -> str:
    """Names a retraining: the same data, parameters, image, code and champion never train twice."""
    champion = observed["champion"]
    parts = [
        observed["data"]["version"] or "",
        scenario.digest,
        inputs.image or "",
        inputs.code_revision or code_revision(),
        f"{champion['name']}/{champion['version']}",
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
