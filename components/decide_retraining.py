"""Component: what the monitor observed → retrain or skip, with the explanation."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def decide_retraining(
    scenario: str,
    code_revision: str,
    image: str,
    pipeline_run: str,
    observed: Input[dsl.Artifact],
    tables: Input[Dataset],
    decision: Output[dsl.Artifact],
    report: Output[HTML],
    dvc_root: str = "",
    tracking_uri: str = "",
    lease: str = "",
) -> str:
    """Decide whether to retrain, keep the decision in MLflow, and version the data where the answer is yes.

    Args:
        scenario: The whole scenario as JSON text.
        code_revision: Revision of the code that would train.
        image: Container image that would train.
        pipeline_run: Name that ties this run's MLflow runs together.
        observed: What the monitor observed.
        tables: The tables to retrain on.
        decision: JSON file with the verdict and every rule with its value and threshold.
        report: The decision for people.
        dvc_root: Folder of the DVC repository whose remote gets the tables. Empty: the one around the working
            directory.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        lease: The lease under which the run trains, as JSON text. Empty: nobody's.

    Returns:
        retrain or skip.
    """
    from mtrec.stages.execution import run_component

    told = run_component(
        "decide",
        inputs={
            "observed": observed.path,
            "tables": tables.path,
            "dvc_root": dvc_root,
            "tracking_uri": tracking_uri,
            "code_revision": code_revision,
            "image": image,
            "pipeline_run": pipeline_run,
            "lease": lease,
        },
        outputs={"decision": decision.path, "report": report.path},
        scenario=scenario,
    )
    decision.metadata["reason"] = told["reason"]
    return str(told["verdict"])
