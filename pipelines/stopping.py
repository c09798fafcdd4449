"""What a run on a cluster holds, given back when it is stopped: its lease, a TrainJob, its run in MLflow.

The exit task does it for a run that ends. Argo ends a stopped one without it: the pods of an exit handler count as
past their deadline (kubeflow/pipelines#6101).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from mtrec.config import parse_scenario
from mtrec.errors import MtrecError
from mtrec.lease import leave
from mtrec.training.nodes import run_label
from pipelines.following_cluster import ENDED
from pipelines.kfp_server import RunView, Server


def stopped(server: Server, run_id: str, *, patience_seconds: float = 60.0, pause_seconds: float = 2.0) -> bool:
    """Wait until a run that is asked to stop has ended: as long as one of its steps runs, it may take its lease.

    Args:
        server: that has it.
        run_id: the run.
        patience_seconds: how long to wait.
        pause_seconds: between two looks.

    Returns:
        Whether it has ended.
    """
    give_up = time.monotonic() + patience_seconds
    while server.run(run_id).state not in ENDED:
        if time.monotonic() > give_up:
            return False
        time.sleep(pause_seconds)
    return True


def close(run: RunView) -> Iterator[str]:
    """End in MLflow the run of a training or of a look that was stopped, which its exit task cannot do any more.

    As long as it is open the monitor starts no training, for a day.

    Args:
        run: a run that is asked to stop.

    Yields:
        What was done, or why not, for people; nothing for a run that MLflow does not know.
    """
    name = str(run.parameters.get("pipeline_run") or run.id)
    if not (text := run.parameters.get("scenario")):
        return
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield "MLFLOW_TRACKING_URI is not set: its run in MLflow stays open, and the monitor waits for it for a day"
        return
    from mtrec.tracking import log_outcome, log_training_outcome

    try:
        scenario = parse_scenario(json.loads(str(text)), where="scenario")
        if run.parameters.get("drop"):
            log_outcome(scenario, name, "stopped")
        else:
            log_training_outcome(scenario, name, "stopped", begun=False)
        yield "its run in MLflow is ended"
    except MtrecError as error:
        yield f"its run in MLflow could not be ended, and the monitor waits for it for a day: {error}"


def give_back(run: RunView) -> Iterator[str]:
    """Give back what a run holds, as far as the rights of the kubeconfig or of the pod allow.

    Args:
        run: a run that is asked to stop.

    Yields:
        What was done, or why not, for people; nothing for a run without a lease.
    """
    lease, holder = str(run.parameters.get("lease") or ""), str(run.parameters.get("pipeline_run") or run.id)
    if not lease:
        return
    try:
        leave(lease, holder)
        yield "its lease is given back"
    except MtrecError as error:
        yield f"its lease could not be given back and ends by itself: {error}"
    try:
        from mtrec.training.trainjob import delete_trainjobs

        namespace = str(json.loads(lease).get("kubernetes", {}).get("namespace", ""))
        for name in delete_trainjobs(run_label(holder), namespace):
            yield f"TrainJob {name} is deleted"
    except MtrecError as error:
        yield f"whether it left a TrainJob could not be found out; its deadline ends it: {error}"
