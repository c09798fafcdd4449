"""Component, the exit task of a search: its page, and the best settings."""

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report_search(
    scenario: str,
    status: dsl.PipelineTaskFinalStatus,
    page: Output[HTML],
    picture: Output[dsl.Artifact],
    summary: Output[dsl.Artifact],
    metrics: Output[Metrics],
    pipeline_run: str = "",
    job_id: str = "",
    data: str = "",
    tracking_uri: str = "",
) -> str:
    """Draw and list the trials of the run's study; MLflow gets them, the best settings, and how the run ended.

    The database of studies is read from the environment variable MTREC_STUDIES.

    Args:
        scenario: The whole scenario as JSON text.
        status: How the steps before ended; the workflow fills it in.
        page: One self-contained HTML page.
        picture: The drawings alone, SVG.
        summary: JSON file with every trial and the best settings.
        metrics: Value of the best trial, and how many trials there are.
        pipeline_run: Name of the pipeline run, by which the study is found. Empty: the workflow's job id.
        job_id: The workflow's job id.
        data: What was given as data, for the command that trains with the best settings.
        tracking_uri: MLflow tracking server. Empty: the environment's.

    Returns:
        The command that trains with the best settings; empty where no trial has begun.
    """
    import shlex

    from mtrec.stages.execution import run_component

    result = run_component(
        "report_search",
        inputs={
            "pipeline_run": pipeline_run or job_id,
            "state": status.state,
            "message": status.error_message,
            "data": data,
            "tracking_uri": tracking_uri,
        },
        outputs={"page": page.path, "picture": picture.path, "summary": summary.path},
        scenario=scenario,
    )
    if not result:
        return ""
    states = [trial["state"] for trial in result["trials"]]
    metrics.log_metric("trials", sum(state in ("complete", "pruned") for state in states))
    metrics.log_metric("complete", states.count("complete"))
    if result["best"]:
        metrics.log_metric("best value", result["best"]["value"])
    summary.metadata["study"] = result["name"]
    return shlex.join(result["command"])
