"""The training pipeline: pure wiring, no logic.

ingest → validate → preprocess → fine_tune → evaluate → gate → register, the last only when the gate says pass.

What writes outside its own outputs, or reads what changes, is never cached: ingest pushes to DVC's remote,
fine_tune and the gate log to MLflow, evaluate compares with the champion of the moment, register writes the
registry. Validate and preprocess are pure; the data version and the code revision are among their parameters,
so the cache follows both.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.evaluate_model import evaluate_model
from components.fine_tune_model import fine_tune_model
from components.gate_model import gate_model
from components.register_model import register_model
from pipelines.placing import Placing
from pipelines.preparation import prepared

NAME = "mtrec-training"
DESCRIPTION = "From interaction data to a registered, gated multi-task recommender."
SIDE_EFFECTS = ("ingest-data", "fine-tune-model", "evaluate-model", "gate-model", "register-model")
"""Tasks that must never be served from a cache."""


class Results(NamedTuple):
    """What a run hands back."""

    validation: dsl.Artifact
    data_docs: dsl.Artifact
    quarantine: dsl.Dataset
    losses: dsl.Artifact
    evaluation: dsl.Artifact
    gate: dsl.Artifact
    report: dsl.HTML


def training_pipeline(placed: Placing) -> Any:
    """Build the training pipeline.

    Args:
        placed: where and with what its tasks run.

    Returns:
        The pipeline, ready to compile or to call.
    """

    @dsl.pipeline(name=NAME, description=DESCRIPTION)
    def training(
        scenario: str,
        data: str = "",
        code_revision: str = "",
        pipeline_run: str = "",
        tracking_uri: str = "",
        dvc_root: str = "",
        checkpoints: str = "",
        text_cache: str = "",
        lease: str = "",
    ) -> Results:
        """From interaction data to a registered, gated multi-task recommender.

        Args:
            scenario: The whole scenario as JSON text (`mtrec compile --scenario` fills it in).
            data: Folder of raw data, or dvc: and a data version. Empty: the scenario's simulator makes the data.
            code_revision: Revision of the code. Empty: asked from the image.
            pipeline_run: Name of this run in MLflow. Empty: the workflow's job id.
            tracking_uri: MLflow tracking server. Empty: the environment's.
            dvc_root: Folder of the DVC repository. Empty: the tables are hashed but not pushed; for a data
                version the one around the working directory.
            checkpoints: Folder to resume from (same code, data and scenario) and to save to. Empty: none are kept.
            text_cache: Folder that keeps the work of the encoder's frozen layers for later runs. Empty: in memory.
            lease: The lease under which the run trains, as JSON text. Empty: nobody's.
        """
        ingest, validate, dataset, made_from = prepared(
            placed,
            scenario=scenario,
            data=data,
            dvc_root=dvc_root,
            code_revision=code_revision,
            pipeline_run=pipeline_run,
            lease=lease,
        )
        run = ingest.outputs["pipeline_run"]
        fine_tune = placed(
            fine_tune_model(
                pipeline_run=run,
                dataset=dataset,
                tracking_uri=tracking_uri,
                checkpoints=checkpoints,
                text_cache=text_cache,
                lease=lease,
                trainer=placed.trainer,
                **made_from,
            )
        )
        model = fine_tune.outputs["model"]
        evaluate = placed(
            evaluate_model(
                scenario=scenario,
                dataset=dataset,
                model=model,
                tracking_uri=tracking_uri,
                lease=lease,
                pipeline_run=run,
            )
        )
        candidate = {**made_from, "pipeline_run": run, "image": placed.image}
        gate = placed(
            gate_model(
                evaluation=evaluate.outputs["evaluation"],
                losses=fine_tune.outputs["losses"],
                validation=validate.outputs["summary"],
                tracking_uri=tracking_uri,
                lease=lease,
                **candidate,
            )
        )
        with dsl.If(gate.outputs["Output"] == "pass", name="gate-passed"):
            placed(
                register_model(
                    model=model,
                    evaluation=evaluate.outputs["evaluation"],
                    gate=gate.outputs["gate"],
                    report=gate.outputs["report"],
                    validation=validate.outputs["summary"],
                    tracking_uri=tracking_uri,
                    lease=lease,
                    dvc_root=dvc_root,
                    **candidate,
                )
            )
        return Results(
            validate.outputs["summary"],
            validate.outputs["data_docs"],
            validate.outputs["quarantine"],
            fine_tune.outputs["losses"],
            evaluate.outputs["evaluation"],
            gate.outputs["gate"],
            gate.outputs["report"],
        )

    return training
