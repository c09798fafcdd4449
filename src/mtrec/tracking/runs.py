"""One MLflow run per pipeline run, found by its tag, so that any stage may come first; child runs below it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError, RunError
from mtrec.tracking.connection import artifact_root, connected, locked, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

PIPELINE_RUN = "mtrec.pipeline_run"
REGISTERED = "mtrec.registered"
"""Tag of a pipeline run whose candidate is in the registry: its name and version."""
UNTOLD = "a step failed"
"""The outcome of a run that failed where nothing says why."""
LONGEST = 4000
"""Characters of a tag that every store takes."""
LINEAGE = ("data_version", "code_revision", "parameters_hash", "image")
"""The lineage keys that say what a model was made from; with `pipeline_run` they are tags of its run."""
PARENTS = ("teacher", "started_from_sha256")
"""Lineage keys that only some models have: sha256 of the weights of a student's teacher, or of a warm start's."""
_METRICS_PER_CALL, _PARAMS_PER_CALL, _KEY_LENGTH, _PARAM_LENGTH = 1000, 100, 250, 6000


@dataclass(frozen=True, kw_only=True)
class Run:
    """An MLflow run."""

    tracking_uri: str
    experiment_id: str
    run_id: str
    name: str


def pipeline_run(
    scenario: Scenario,
    name: str,
    *,
    tracking_uri: str | None = None,
    lineage: Mapping[str, str] | None = None,
) -> Run:
    """Find or create the MLflow run of a pipeline run, in the experiment named like the scenario.

    Where the workflow injected a run (MLFLOW_RUN_ID), the outermost run above it is used instead of a new one:
    Kubeflow Pipelines gives each step a run of its own below the pipeline's. The scenario's settings become the
    run's parameters, written once.

    Args:
        scenario: names the experiment and gives the parameters.
        name: the pipeline run, the same in every stage.
        tracking_uri: see `connection.resolve_uri`.
        lineage: what the run works from; added as tags.

    Raises:
        ConfigError: `name` is empty or holds a quote.
        RunError: MLflow cannot be used, the experiment was deleted there, or `name` was used with other settings.
    """
    if not name or "'" in name:
        raise ConfigError(f'pipeline run "{name}": a name is needed, and it may hold no quote')
    uri = resolve_uri(tracking_uri)
    tags = {PIPELINE_RUN: name, "mtrec.scenario": scenario.name}
    tags |= {f"mtrec.{key}": value for key in (*LINEAGE, "started_from") if (value := (lineage or {}).get(key))}
    with connected(uri) as client, locked(uri):
        if _injected():
            above = _with_parents(client, _injected())[-1].info
            experiment, run_id = above.experiment_id, above.run_id
        else:
            experiment = experiment_of(client, scenario.name, uri)
            run_id = find_run(client, experiment, name) or _create(client, experiment, name)
        run = Run(tracking_uri=uri, experiment_id=experiment, run_id=run_id, name=name)
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        log_settings(client, run, scenario.settings)
    return run


@contextmanager
def child_run(parent: Run, name: str, *, system_metrics: bool = False) -> Iterator[Run]:
    """Work in a child run, ended as finished, failed or killed with the block.

    A child of that name that was cut off is taken up again, so that resumed training continues its curves. Else a
    run that the workflow injected below the parent (MLFLOW_RUN_ID) becomes the child.

    Args:
        parent: the pipeline run's run.
        name: the child's name, e.g. fine_tune.
        system_metrics: record processor, memory, disk and network use every ten seconds.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(parent.tracking_uri) as client, locked(parent.tracking_uri):
        child = _open_child(client, parent, name)
    status = "KILLED"
    try:
        with _system_metrics(child, system_metrics):
            yield child
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        finish_run(child, status)


def finish_run(run: Run, status: str = "FINISHED") -> None:
    """End a run.

    Args:
        run: the run.
        status: FINISHED, FAILED or KILLED.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(run.tracking_uri) as client:
        client.set_terminated(run.run_id, status=status)


def log_losses(run: Run, lines: Iterable[Mapping[str, Any]]) -> None:
    """Log lines of losses.jsonl as curves over optimiser steps.

    A train line gives `train/loss`, `train/<task>` and `train/lr`; a valid line gives `valid/score` and
    `valid/<task>.<metric>`, where `@` is written `_at_` because MLflow allows no `@`. What came before fine-tuning
    gives `pretrain/loss`, `pretrain/held_out` and `match/loss`.

    Args:
        run: usually the child run of fine-tuning.
        lines: one mapping per line, each with kind and step.

    Raises:
        RunError: MLflow cannot be used.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(metric_name(key), value, now, int(line["step"]))
        for line in lines
        for key, value in _curves(line).items()
        if value is not None
    ]
    with connected(run.tracking_uri) as client:
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            client.log_batch(run.run_id, metrics=metrics[start : start + _METRICS_PER_CALL])


def logged_steps(run: Run, name: str) -> set[int]:
    """The steps at which a run has a number of that name, e.g. `valid/rating`.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(run.tracking_uri) as client:
        return {point.step for point in client.get_metric_history(run.run_id, metric_name(name))}


def log_metrics(run: Run, metrics: Mapping[str, float | None], step: int = 0) -> None:
    """Log numbers, leaving out None.

    Raises:
        RunError: MLflow cannot be used.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    given = [Metric(metric_name(k), float(v), now, step) for k, v in metrics.items() if v is not None]
    with connected(run.tracking_uri) as client:
        for start in range(0, len(given), _METRICS_PER_CALL):
            client.log_batch(run.run_id, metrics=given[start : start + _METRICS_PER_CALL])


def log_artifacts(run: Run, paths: Iterable[Path], folder: str | None = None) -> None:
    """Store files, or folders with their content, as artifacts of a run.

    Args:
        run: the run.
        paths: what to store; a folder keeps its name.
        folder: folder among the run's artifacts.

    Raises:
        RunError: MLflow cannot be used, or a path does not exist.
    """
    with connected(run.tracking_uri) as client:
        for path in paths:
            if path.is_dir():
                client.log_artifacts(run.run_id, str(path), "/".join(filter(None, (folder, path.name))))
            elif path.is_file():
                client.log_artifact(run.run_id, str(path), folder)
            else:
                raise RunError(f"{path}: no such file to store in MLflow")


def metric_name(name: str) -> str:
    """The name as MLflow accepts it: `next_item.ndcg@10` → `next_item.ndcg_at_10`, any other sign → `_`."""
    return re.sub(r"[^/\w.\- :]", "_", name.replace("@", "_at_"))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as dotted keys that MLflow accepts, with text values; a list becomes JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{metric_name(key).replace('/', '_')}"[:_KEY_LENGTH]
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def _curves(line: Mapping[str, Any]) -> dict[str, float | None]:
    if line["kind"] == "train":
        tasks = {f"train/{task}": loss for task, loss in line.get("losses", {}).items()}
        return {"train/loss": line.get("loss"), "train/lr": line.get("lr")} | tasks
    if line["kind"] in ("pretrain", "match"):
        return {f"{line['kind']}/{name}": line.get(name) for name in ("loss", "held_out")}
    metrics = {f"valid/{name}": value for name, value in line.get("metrics", {}).items()}
    return {"valid/score": line.get("score")} | metrics


def experiment_of(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment's id; it is created where absent, also when another process does the same."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_root(uri)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    if experiment.lifecycle_stage == "deleted":
        raise RunError(
            f"MLflow experiment '{name}' was deleted; bring it back with "
            f"'mlflow experiments restore --experiment-id {experiment.experiment_id}'"
        )
    return str(experiment.experiment_id)


def find_run(client: MlflowClient, experiment: str, name: str, tag: str = PIPELINE_RUN) -> str | None:
    """The oldest run with that tag: every process picks the same one."""
    runs = client.search_runs(
        [experiment],
        filter_string=f"tags.`{tag}` = '{name}'",
        order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        max_results=1,
    )
    return runs[0].info.run_id if runs else None


def _create(client: MlflowClient, experiment: str, name: str) -> str:
    created = client.create_run(experiment, tags={PIPELINE_RUN: name}, run_name=name).info.run_id
    kept = find_run(client, experiment, name) or created
    if kept != created:
        client.delete_run(created)
    return str(kept)


def _open_child(client: MlflowClient, parent: Run, name: str) -> Run:
    runs = client.search_runs(
        [parent.experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{parent.run_id}' and tags.`mtrec.stage` = '{name}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if runs and runs[0].info.status != "FINISHED":
        run_id = runs[0].info.run_id
        client.update_run(run_id, status="RUNNING")
    elif run_id := _injected_child(client, parent):
        client.set_tag(run_id, "mtrec.stage", name)
        client.update_run(run_id, status="RUNNING")
    else:
        tags = {"mlflow.parentRunId": parent.run_id, "mtrec.stage": name}
        run_id = client.create_run(parent.experiment_id, tags=tags, run_name=name).info.run_id
    return Run(tracking_uri=parent.tracking_uri, experiment_id=parent.experiment_id, run_id=run_id, name=name)


def _injected() -> str:
    return os.environ.get("MLFLOW_RUN_ID", "")


def _with_parents(client: MlflowClient, run_id: str) -> list[Any]:
    """A run, the one it is nested in, and so on."""
    runs = [client.get_run(run_id)]
    while above := runs[-1].data.tags.get("mlflow.parentRunId"):
        runs.append(client.get_run(above))
    return runs


def _injected_child(client: MlflowClient, parent: Run) -> str:
    """The injected run, if it lies below the parent and no child has taken it yet; else nothing."""
    if not _injected():
        return ""
    own, *above = _with_parents(client, _injected())
    free = "mtrec.stage" not in own.data.tags and parent.run_id in (run.info.run_id for run in above)
    return _injected() if free else ""


def log_settings(client: MlflowClient, run: Run, given: Mapping[str, Any]) -> None:
    """Write settings as the run's parameters, where they are not there yet.

    Raises:
        RunError: the run has other ones.
    """
    from mlflow.entities import Param

    settings = flatten(given)
    known = client.get_run(run.run_id).data.params
    wanted = {key: value[:_PARAM_LENGTH] for key, value in settings.items() if value}
    changed = [key for key, value in wanted.items() if key in known and known[key] != value]
    if changed:
        raise RunError(
            f"pipeline run '{run.name}': already started with other settings "
            f"({changed[0]}={known[changed[0]]}, now {wanted[changed[0]]}); give the run another name"
        )
    params = [Param(key, value) for key, value in wanted.items() if key not in known]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        client.log_batch(run.run_id, params=params[start : start + _PARAMS_PER_CALL])


@contextmanager
def _system_metrics(run: Run, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    with connected(run.tracking_uri):
        monitor = SystemMetricsMonitor(run.run_id, resume_logging=True, tracking_uri=run.tracking_uri)
        monitor.start()
    try:
        yield
    finally:
        with connected(run.tracking_uri):
            monitor.finish()
