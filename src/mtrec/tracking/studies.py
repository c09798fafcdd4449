"""One MLflow run per study of `mtrec tune`, found by its tag, and a child run per trial."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mtrec.config import Scenario
from mtrec.errors import ConfigError
from mtrec.tracking.connection import connected, locked, resolve_uri
from mtrec.tracking.runs import Run, experiment_of, find_run, flatten, log_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

STUDY = "mtrec.study"
TRIAL = "mtrec.trial"
_PAGE = 1000


def study_run(
    scenario: Scenario,
    name: str,
    *,
    settings: Mapping[str, Any],
    tags: Mapping[str, str],
    pipeline_run: str | None = None,
    tracking_uri: str | None = None,
) -> Run:
    """Find or create the MLflow run of a study, in the experiment named like the scenario, and let it run.

    Args:
        scenario: names the experiment.
        name: the study's name; every process that works on it finds the same run.
        settings: what all trials share: the run's parameters.
        tags: what else to say of the study, e.g. sampler and data version.
        pipeline_run: a pipeline run that works on it, by which `study_of` finds it; None: none does.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        ConfigError: `name` is empty or holds a quote.
        RunError: MLflow cannot be used, or the run is of other settings.
    """
    if not name or "'" in name:
        raise ConfigError(f'study "{name}": a name is needed, and it may hold no quote')
    uri = resolve_uri(tracking_uri)
    with connected(uri) as client, locked(uri):
        experiment = experiment_of(client, scenario.name, uri)
        run_id = find_run(client, experiment, name, STUDY) or _create(client, experiment, name)
        run = Run(tracking_uri=uri, experiment_id=experiment, run_id=run_id, name=name)
        worker = {_searched_by(pipeline_run): pipeline_run} if pipeline_run else {}
        for key, value in {"mtrec.scenario": scenario.name, **tags, **worker}.items():
            client.set_tag(run_id, key, value)
        client.update_run(run_id, status="RUNNING")
        log_settings(client, run, settings)
    return run


def study_of(scenario: Scenario, pipeline_run: str, tracking_uri: str | None = None) -> tuple[str, str] | None:
    """Name and data version of the study that a pipeline run has worked on; None where it came to none.

    Args:
        scenario: names the experiment.
        pipeline_run: the run, which may be one of several that work on it.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(resolve_uri(tracking_uri)) as client:
        experiment = client.get_experiment_by_name(scenario.name)
        found = experiment and find_run(client, experiment.experiment_id, pipeline_run, _searched_by(pipeline_run))
        if not found:
            return None
        tags = client.get_run(found).data.tags
    return tags[STUDY], tags["mtrec.data_version"]


def trial_run(study: Run, number: int, settings: Mapping[str, Any], tags: Mapping[str, str]) -> Run:
    """Open the child run of a trial.

    Args:
        study: the study's run.
        number: the trial's number.
        settings: the searched settings and their values: the run's parameters.
        tags: what else to say of the trial.

    Raises:
        RunError: MLflow cannot be used.
    """
    from mlflow.entities import Param

    name = f"trial {number}"
    with connected(study.tracking_uri) as client:
        marks = {"mlflow.parentRunId": study.run_id, "mtrec.stage": "trial", TRIAL: str(number), **tags}
        run_id = client.create_run(study.experiment_id, tags=marks, run_name=name).info.run_id
        client.log_batch(run_id, params=[Param(key, value) for key, value in flatten(settings).items()])
    return Run(tracking_uri=study.tracking_uri, experiment_id=study.experiment_id, run_id=run_id, name=name)


def tag_run(run: Run, **tags: str) -> None:
    """Set tags `mtrec.<key>`.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(run.tracking_uri) as client:
        for key, value in tags.items():
            client.set_tag(run.run_id, f"mtrec.{key}", value)


def running_trials(study: Run) -> dict[int, Run]:
    """The trials whose child runs have not ended: number → run. A killed process leaves its run so.

    Raises:
        RunError: MLflow cannot be used.
    """
    with connected(study.tracking_uri) as client:
        runs = client.search_runs(
            [study.experiment_id],
            filter_string=f"tags.`mlflow.parentRunId` = '{study.run_id}' and attributes.status = 'RUNNING'",
            max_results=_PAGE,
        )
    return {
        int(run.data.tags[TRIAL]): Run(
            tracking_uri=study.tracking_uri,
            experiment_id=study.experiment_id,
            run_id=run.info.run_id,
            name=f"trial {run.data.tags[TRIAL]}",
        )
        for run in runs
        if TRIAL in run.data.tags
    }


def log_values(study: Run, trials: Iterable[Mapping[str, Any]]) -> None:
    """Log the value of each ended trial and the best so far in the study's run, over the number of the trial.

    What is there already is left alone.

    Args:
        study: the study's run.
        trials: mappings with `number`, `state` and `value`.

    Raises:
        RunError: MLflow cannot be used.
    """
    from mlflow.entities import Metric

    with connected(study.tracking_uri) as client, locked(study.tracking_uri):
        there = {point.step for point in client.get_metric_history(study.run_id, "value")}
        best, metrics, now = float("-inf"), [], int(time.time() * 1000)
        for trial in trials:
            if trial["state"] != "complete":
                continue
            best = max(best, trial["value"])
            if trial["number"] not in there:
                metrics += [
                    Metric("value", trial["value"], now, trial["number"]),
                    Metric("best_value", best, now, trial["number"]),
                ]
        for start in range(0, len(metrics), _PAGE):
            client.log_batch(study.run_id, metrics=metrics[start : start + _PAGE])


def _searched_by(pipeline_run: str) -> str:
    """Tag of a study's run, one for each pipeline run that works on it."""
    return f"mtrec.searched_by.{hashlib.sha256(pipeline_run.encode()).hexdigest()[:12]}"


def _create(client: MlflowClient, experiment: str, name: str) -> str:
    created = client.create_run(experiment, tags={STUDY: name}, run_name=name).info.run_id
    kept = find_run(client, experiment, name, STUDY) or created
    if kept != created:
        client.delete_run(created)
    return str(kept)
