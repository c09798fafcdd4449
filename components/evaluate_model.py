"""Component: model and dataset → metrics per task, before and after, against the champion."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate_model(
    scenario: str,
    dataset: Input[Dataset],
    model: Input[Model],
    evaluation: Output[dsl.Artifact],
    predictions: Output[Dataset],
    metrics: Output[dsl.Metrics],
    tracking_uri: str = "",
    lease: str = "",
    pipeline_run: str = "",
) -> None:
    """Measure every task on the test part, before and after fine-tuning, by slice, and against the champion.

    Args:
        scenario: The whole scenario as JSON text.
        dataset: Encoded dataset.
        model: The fine-tuned model.
        evaluation: JSON file with everything that was measured and the protocol of each metric.
        predictions: Folder with the predictions on the test part.
        metrics: Each task's primary metric.
        tracking_uri: MLflow tracking server, where the champion is. Empty: the environment's.
        lease: The lease that the run holds and this step renews, as JSON text. Empty: none, or somebody else does.
        pipeline_run: Name of the pipeline run, which holds the lease.
    """
    import json
    from pathlib import Path

    from mtrec.stages.execution import run_component

    result = run_component(
        "evaluate",
        inputs={"dataset": dataset.path, "model": model.path, "tracking_uri": tracking_uri},
        outputs={"evaluation": evaluation.path, "predictions": predictions.path},
        scenario=scenario,
        lease=lease,
        pipeline_run=pipeline_run,
    )
    for name, value in result.items():
        if value is not None:
            metrics.log_metric(name, value)
    Path(metrics.path).write_text(json.dumps(metrics.metadata), encoding="utf-8")
