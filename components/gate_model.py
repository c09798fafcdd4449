"""Component: evaluation → pass or fail with every reason, and the report for people."""

from kfp import dsl
from kfp.dsl import HTML, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate_model(
    scenario: str,
    data_version: str,
    code_revision: str,
    pipeline_run: str,
    image: str,
    evaluation: Input[dsl.Artifact],
    losses: Input[dsl.Artifact],
    validation: Input[dsl.Artifact],
    gate: Output[dsl.Artifact],
    report: Output[HTML],
    tracking_uri: str = "",
    lease: str = "",
) -> str:
    """Decide by floors and by no regression against the champion; one string says pass or fail.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables, for the report.
        code_revision: Revision of the code, for the report.
        pipeline_run: Name of the pipeline run, for the report.
        image: Container image, for the report.
        evaluation: What was measured.
        losses: Training curves.
        validation: Summary of the data validation.
        gate: JSON file with the verdict and every rule, its value and its verdict.
        report: One self-contained HTML page.
        tracking_uri: MLflow tracking server, where a refusal is logged. Empty: the environment's.
        lease: The lease that the run holds and this step renews, as JSON text. Empty: none, or somebody else does.
    """
    from mtrec.stages.execution import lineage, run_component

    result = run_component(
        "gate",
        inputs={
            "evaluation": evaluation.path,
            "losses": losses.path,
            "validation": validation.path,
            "lineage": lineage(scenario, data_version, code_revision, image, pipeline_run),
            "tracking_uri": tracking_uri,
        },
        outputs={"gate": gate.path, "report": report.path},
        scenario=scenario,
        lease=lease,
        pipeline_run=pipeline_run,
    )
    return result["verdict"]
