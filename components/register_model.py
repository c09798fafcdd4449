"""Component: a candidate that passed the gate → a version in MLflow's registry."""

from kfp import dsl
from kfp.dsl import HTML, Input, Model, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register_model(
    scenario: str,
    data_version: str,
    code_revision: str,
    pipeline_run: str,
    image: str,
    model: Input[Model],
    evaluation: Input[dsl.Artifact],
    gate: Input[dsl.Artifact],
    report: Input[HTML],
    validation: Input[dsl.Artifact],
    registration: Output[dsl.Artifact],
    tracking_uri: str = "",
    lease: str = "",
    dvc_root: str = "",
) -> None:
    """Register the candidate with its lineage; the same lineage twice makes one version.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables.
        code_revision: Revision of the code.
        pipeline_run: Name that ties this run's MLflow run together.
        image: Container image.
        model: The fine-tuned model.
        evaluation: What was measured.
        gate: The gate's verdict and rules.
        report: The report for people.
        validation: Summary of the data validation.
        registration: JSON file with the registered name, version and aliases.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        lease: The lease under which the run trains, as JSON text. Empty: nobody's.
        dvc_root: Folder of the DVC repository with the list of forgotten users. Empty: the one around the working
            directory.
    """
    from mtrec.stages.execution import lineage, run_component

    result = run_component(
        "register",
        inputs={
            "model": model.path,
            "evaluation": evaluation.path,
            "gate": gate.path,
            "report": report.path,
            "validation": validation.path,
            "tracking_uri": tracking_uri,
            "lease": lease,
            "dvc_root": dvc_root,
            "pipeline_run": pipeline_run,
            "lineage": lineage(scenario, data_version, code_revision, image, pipeline_run),
        },
        outputs={"registration": registration.path},
        scenario=scenario,
    )
    registration.metadata["name"] = result["name"]
    registration.metadata["version"] = result["version"]
