"""What the retraining loop keeps in MLflow: a run per look at the data, and which training runs it began.

Looks are runs of the experiment `<scenario>-monitoring`, each with its decision, its page, and the newest window's
statistics as metrics, so that MLflow draws them over time. Training runs are in the scenario's own experiment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.tracking.connection import connected, locked, resolve_uri
from mtrec.tracking.containing import count_users, holder
from mtrec.tracking.lookup import choose
from mtrec.tracking.runs import (
    LONGEST,
    PIPELINE_RUN,
    REGISTERED,
    UNTOLD,
    Run,
    experiment_of,
    find_run,
    log_artifacts,
    log_metrics,
    pipeline_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

KEY, WHY = "mtrec.retraining_key", "mtrec.retraining_reason"
VERDICT, REASON, OUTCOME = "mtrec.verdict", "mtrec.reason", "mtrec.outcome"
DEAD_AFTER = timedelta(days=1)
"""A run that MLflow calls running for longer was killed, with nobody left to tell."""


def attempts(scenario: Scenario, tracking_uri: str | None = None, *, besides: str | None = None) -> list[datetime]:
    """Look up when the pipeline runs of a scenario's experiment were started, oldest first.

    Trials of a search and runs below another run do not count.

    Args:
        scenario: names the experiment.
        tracking_uri: see `connection.resolve_uri`.
        besides: a pipeline run that does not count.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        found = [run for run in _runs(client, scenario.name) if run.data.tags[PIPELINE_RUN] != besides]
    return sorted(datetime.fromtimestamp(run.info.start_time / 1000, UTC) for run in found)


def running(scenario: Scenario, tracking_uri: str | None = None, *, besides: str | None = None) -> str | None:
    """Look up a pipeline run of a scenario's experiment that MLflow says is running, the newest one.

    One that was started more than `DEAD_AFTER` ago does not count.

    Args:
        scenario: names the experiment.
        tracking_uri: see `connection.resolve_uri`.
        besides: a pipeline run that does not count.

    Raises:
        RunError: MLflow cannot be used.
    """
    since = (datetime.now(UTC) - DEAD_AFTER).timestamp() * 1000
    with connected(resolve_uri(tracking_uri)) as client:
        found = _runs(
            client, scenario.name, f"attributes.status = 'RUNNING' and attributes.start_time > {since:.0f}"
        )
    names = [str(run.data.tags[PIPELINE_RUN]) for run in found]
    return next((name for name in names if name != besides), None)


def trained_in(scenario: Scenario, key: str, tracking_uri: str | None = None) -> str | None:
    """The pipeline run that retrained under a key and came to its end, accepted by the gate or not.

    Args:
        scenario: names the experiment.
        key: see `begin_training`.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        found = _runs(client, scenario.name, f"tags.`{KEY}` = '{key}' and attributes.status = 'FINISHED'")
    return found[0].data.tags[PIPELINE_RUN] if found else None


def forgotten_in(reference: str, root: Path, tracking_uri: str | None = None) -> str | None:
    """What a registered version has of forgotten users, or may have, for people; None where it has none.

    Args:
        reference: `name/version`.
        root: DVC repository with the list of the forgotten and the data versions.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        DataError: the list of the forgotten cannot be read.
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        found = holder(client, choose(client, reference), root)
    if found is None or not (found.users or found.unknown):
        return None
    if found.users:
        return f"learned from {count_users(found.users)} since"
    return f"may have learned from users who were forgotten since: {found.unknown}"


def begin_training(scenario: Scenario, name: str, *, key: str, why: str, tracking_uri: str | None = None) -> None:
    """Open the training run of a retraining, which counts as an attempt from now on.

    Args:
        scenario: names the experiment.
        name: the pipeline run.
        key: hash of what it trains on and from.
        why: the decision's reason.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: MLflow cannot be used.
    """
    run = pipeline_run(scenario, name, tracking_uri=tracking_uri)
    with connected(run.tracking_uri) as client:
        client.update_run(run.run_id, status="RUNNING")  # also where it was stopped and is taken up again
        client.set_tag(run.run_id, KEY, key)
        client.set_tag(run.run_id, WHY, why[:LONGEST])


def log_decision(
    scenario: Scenario,
    name: str,
    told: Mapping[str, Any],
    files: Mapping[str, Path],
    tracking_uri: str | None = None,
) -> None:
    """Keep a decision in the experiment `<scenario>-monitoring`.

    Args:
        scenario: the scenario.
        name: the pipeline run.
        told: what the stage decide tells.
        files: name among the run's artifacts → file.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: MLflow cannot be used.
    """
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client, locked(uri):
        experiment = experiment_of(client, _monitoring(scenario), uri)
        run_id = find_run(client, experiment, name)
        if run_id is None:
            run_id = client.create_run(experiment, tags={PIPELINE_RUN: name}, run_name=name).info.run_id
        for tag, value in ((VERDICT, told["verdict"]), (REASON, told["reason"][:LONGEST])):
            client.set_tag(run_id, tag, value)
    run = Run(tracking_uri=uri, experiment_id=experiment, run_id=run_id, name=name)
    newest = told["windows"][-1]["statistics"] if told["windows"] else []
    log_metrics(run, {f"drift/{statistic['name']}": statistic["value"] for statistic in newest})
    with tempfile.TemporaryDirectory() as temporary:
        for file, path in files.items():  # a workflow names its files without an ending
            shutil.copy(path, Path(temporary) / file)
        log_artifacts(run, sorted(Path(temporary).iterdir()))


def log_outcome(
    scenario: Scenario, name: str, failure: str | None, tracking_uri: str | None = None, *, sure: bool = True
) -> str:
    """End the run of a look with what came of it; after a failure its training run counts as failed too.

    Args:
        scenario: the scenario.
        name: the pipeline run.
        failure: what went wrong, be it after the training run was ended; None where nothing is known to have.
        tracking_uri: see `connection.resolve_uri`.
        sure: whether every step came to its end where there is no failure; else what MLflow has says so.

    Returns:
        The outcome in words: skipped, failed, refused by the gate, or registered.

    Raises:
        RunError: MLflow cannot be used.
    """
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client, locked(uri):
        experiment = experiment_of(client, _monitoring(scenario), uri)
        own = _named(client, _monitoring(scenario), name)
        run_id = own.info.run_id if own else client.create_run(experiment, tags={PIPELINE_RUN: name}).info.run_id
        trained = _named(client, scenario.name, name)
        failure = failure or (None if sure else _unfinished_look(own, trained))
        outcome = _outcome(own, trained, failure)
        if failure and trained is not None and trained.info.status != "FAILED":
            client.set_terminated(trained.info.run_id, status="FAILED")
        client.set_tag(run_id, OUTCOME, outcome[:LONGEST])
        client.set_terminated(run_id, status="FAILED" if failure else "FINISHED")
    return outcome


def log_training_outcome(
    scenario: Scenario,
    name: str,
    failure: str | None,
    tracking_uri: str | None = None,
    *,
    sure: bool = True,
    begun: bool = True,
) -> str:
    """End the run of a training that nobody stays to watch, with what came of it.

    Args:
        scenario: names the experiment.
        name: the pipeline run.
        failure: what went wrong; None where nothing is known to have.
        tracking_uri: see `connection.resolve_uri`.
        sure: as in `log_outcome`.
        begun: whether it holds its lease; one that was refused because another trained has no run and gets none.

    Returns:
        The outcome in words: failed, refused by the gate, or registered.

    Raises:
        RunError: MLflow cannot be used.
    """
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client:
        if begun:
            trained = client.get_run(pipeline_run(scenario, name, tracking_uri=uri).run_id)
        elif (found := _named(client, scenario.name, name)) is not None:
            trained = found
        else:
            return f"failed: {failure or UNTOLD}"
        failure = failure or (None if sure else _unfinished(trained))
        outcome = f"failed: {failure}" if failure else _judged(trained)
        client.set_tag(trained.info.run_id, OUTCOME, outcome[:LONGEST])
        client.set_terminated(trained.info.run_id, status="FAILED" if failure else "FINISHED")
    return outcome


def _unfinished_look(own: MlflowRun | None, trained: MlflowRun | None) -> str | None:
    verdict = own.data.tags.get(VERDICT) if own else None
    if verdict == "retrain":
        return _unfinished(trained)
    return None if verdict else UNTOLD


def _unfinished(trained: MlflowRun | None) -> str | None:
    """What to say of a training that was neither refused by the gate nor registered."""
    tags = trained.data.tags if trained else {}
    return None if tags.get("mtrec.gate") == "fail" or REGISTERED in tags else UNTOLD


def _judged(trained: MlflowRun) -> str:
    return "registered" if trained.data.tags.get("mtrec.gate") == "pass" else "refused by the gate"


def _outcome(own: MlflowRun | None, trained: MlflowRun | None, failure: str | None) -> str:
    if failure:
        return f"failed: {failure}"
    told = own.data.tags if own else {}
    if trained is None or told.get(VERDICT) != "retrain":  # a run that was taken up again may decide otherwise
        return f"skipped: {told.get(REASON, 'no decision was made')}"
    return _judged(trained)


def _monitoring(scenario: Scenario) -> str:
    return f"{scenario.name}-monitoring"


def _named(client: MlflowClient, experiment: str, name: str) -> MlflowRun | None:
    found = _runs(client, experiment, f"tags.`{PIPELINE_RUN}` = '{name}'")
    return found[0] if found else None


def _runs(client: MlflowClient, experiment: str, matching: str = "") -> list[MlflowRun]:
    """Pipeline runs of an experiment that are below no other run."""
    found: list[MlflowRun] = []
    known, token = client.get_experiment_by_name(experiment), None
    while known is not None:
        page = client.search_runs([known.experiment_id], filter_string=matching, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return [run for run in found if PIPELINE_RUN in run.data.tags and "mlflow.parentRunId" not in run.data.tags]
