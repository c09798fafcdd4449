"""When training runs of a scenario were started, whether they succeeded or failed."""

from __future__ import annotations

from datetime import UTC, datetime

from mtrec.config import Scenario
from mtrec.tracking.connection import connected, resolve_uri
from mtrec.tracking.runs import PIPELINE_RUN


def attempts(scenario: Scenario, tracking_uri: str | None = None) -> list[datetime]:
    """Look up when the pipeline runs of a scenario's experiment were started, oldest first.

    Trials of a search and runs below another run do not count.

    Args:
        scenario: names the experiment.
        tracking_uri: see `connection.resolve_uri`.

    Raises:
        RunError: MLflow cannot be used.
    """
    found, token = [], None
    with connected(resolve_uri(tracking_uri)) as client:
        experiment = client.get_experiment_by_name(scenario.name)
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], page_token=token)
            found += [run for run in page if PIPELINE_RUN in run.data.tags]
            token = page.token
            if not token:
                break
    own = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    return sorted(datetime.fromtimestamp(run.info.start_time / 1000, UTC) for run in own)
