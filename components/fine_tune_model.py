"""Component: dataset → a fine-tuned multi-task model."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fine_tune_model(
    scenario: str,
    data_version: str,
    code_revision: str,
    pipeline_run: str,
    dataset: Input[Dataset],
    model: Output[Model],
    losses: Output[dsl.Artifact],
    tracking_uri: str = "",
    checkpoints: str = "",
    text_cache: str = "",
    trainer: str = "",
    lease: str = "",
) -> None:
    """Fine-tune the shared language model on all tasks together; curves go to MLflow.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables; must be the version that the dataset was made from.
        code_revision: Revision of the code; a checkpoint of another one is not resumed.
        pipeline_run: Name that ties this run's MLflow run together.
        dataset: Encoded dataset.
        model: Folder with the weights (safetensors) and what serving needs.
        losses: JSON lines, one per logged step and per epoch.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        checkpoints: Folder to resume from (same code, data and scenario) and to save to. Empty: none are kept.
        text_cache: Folder that keeps the work of the encoder's frozen layers for later runs. Empty: in memory.
        trainer: Nodes, GPUs and processes to train on, as JSON text. Empty: this step's own process.
        lease: The lease that the run holds and this step renews, as JSON text. Empty: none, or somebody else does.
    """
    from mtrec.stages.execution import check_data_version, run_component

    check_data_version(dataset.metadata, data_version)
    result = run_component(
        "fine_tune",
        inputs={
            "dataset": dataset.path,
            "checkpoints": checkpoints,
            "text_cache": text_cache,
            "code_revision": code_revision,
            "tracking_uri": tracking_uri,
            "pipeline_run": pipeline_run,
            "trainer": trainer,
        },
        outputs={"model": model.path, "losses": losses.path},
        scenario=scenario,
        lease=lease,
        pipeline_run=pipeline_run,
    )
    for key in ("epochs", "best_epoch", "seconds"):
        model.metadata[key] = result[key]
