"""Component, the exit task: how a run ended → MLflow."""

from kfp import dsl

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record_outcome(
    scenario: str,
    status: dsl.PipelineTaskFinalStatus,
    pipeline_run: str = "",
    job_id: str = "",
    tracking_uri: str = "",
    lease: str = "",
    of: str = "monitoring",
    trainer: str = "",
) -> str:
    """Record what came of a run: skipped, registered, refused by the gate, or failed and why; end its lease.

    Args:
        scenario: The whole scenario as JSON text.
        status: How the steps before ended; the workflow fills it in.
        pipeline_run: Name that ties this run's MLflow runs together. Empty: the workflow's job id.
        job_id: The workflow's job id.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        lease: The lease under which the run trained, as JSON text. Empty: nobody's.
        of: What ran: monitoring or training.
        trainer: Where fine-tuning ran, as JSON text; what a killed step left there is removed. Empty: in its pod.

    Returns:
        The outcome in words.
    """
    from mtrec.stages.execution import run_component

    return str(
        run_component(
            "record",
            inputs={
                "pipeline_run": pipeline_run or job_id,
                "state": status.state,
                "message": status.error_message,
                "tracking_uri": tracking_uri,
                "lease": lease,
                "of": of,
                "trainer": trainer,
            },
            outputs={},
            scenario=scenario,
        )["outcome"]
    )
