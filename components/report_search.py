"""Component, after the workers of a search: its page, and the best settings."""

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def report_search(
    scenario: str,
    data_version: str,
    ended: list[int],
    page: Output[HTML],
    picture: Output[dsl.Artifact],
    summary: Output[dsl.Artifact],
    metrics: Output[Metrics],
    data: str = "",
    study: str = "",
    tracking_uri: str = "",
) -> str:
    """Draw and list the trials of a study; the best settings are logged to MLflow.

    The database of studies is read from the environment variable MTREC_STUDIES.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables.
        ended: How many trials each worker ended.
        page: One self-contained HTML page.
        picture: The drawings alone, SVG.
        summary: JSON file with every trial and the best settings.
        metrics: Value of the best trial, and how many trials there are.
        data: What was given as data, for the command that trains with the best settings.
        study: Name of the study. Empty: one that stands for space, settings and data.
        tracking_uri: MLflow tracking server. Empty: the environment's.

    Returns:
        The command that trains with the best settings.
    """
    import shlex

    from mtrec.stages.execution import run_component

    result = run_component(
        "report_search",
        inputs={"data_version": data_version, "data": data, "study": study, "tracking_uri": tracking_uri},
        outputs={"page": page.path, "picture": picture.path, "summary": summary.path},
        scenario=scenario,
    )
    states = [trial["state"] for trial in result["trials"]]
    metrics.log_metric("trials", sum(state in ("complete", "pruned") for state in states))
    metrics.log_metric("complete", states.count("complete"))
    if result["best"]:
        metrics.log_metric("best value", result["best"]["value"])
    summary.metadata["study"] = result["name"]
    summary.metadata["trials of each worker"] = ended
    return shlex.join(result["command"])
