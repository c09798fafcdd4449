"""The training pipeline as a cluster runs it: with an exit task, as there nobody stays until the end.

Locally whoever started the run sees to its end and gets its artifacts. Kubeflow Pipelines lets no output leave an
exit handler, so this pipeline has none; all that matters is in MLflow.
"""

import inspect
from typing import Any

from kfp import dsl

from components.record_outcome import record_outcome
from pipelines import training
from pipelines.placing import Placing

SIDE_EFFECTS = (*training.SIDE_EFFECTS, "record-outcome")
"""Tasks that must never be served from a cache."""


def guarded_training_pipeline(placed: Placing) -> Any:
    """Build the training pipeline with its exit task.

    Args:
        placed: where and with what its tasks run.

    Returns:
        The pipeline, ready to compile.
    """
    train = training.training_pipeline(placed)

    parameters = inspect.signature(train.pipeline_func).replace(return_annotation=None)

    def guarded(*values: Any) -> None:
        given = dict(zip(parameters.parameters, values, strict=True))
        run = {name: given[name] for name in ("scenario", "pipeline_run", "tracking_uri", "lease")}
        job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        record = placed(record_outcome(job_id=job_id, of="training", trainer=placed.trainer, **run))
        with dsl.ExitHandler(record, name="whatever-happens"):
            train(**given)

    # the parameters, and what is said of them, are those of the training pipeline; its outputs stay behind
    guarded.__signature__ = parameters  # type: ignore[attr-defined]
    guarded.__doc__ = train.pipeline_func.__doc__
    return dsl.pipeline(name=training.NAME, description=training.DESCRIPTION)(guarded)
