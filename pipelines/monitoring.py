"""The monitoring pipeline: pure wiring, no logic.

monitor → decide → the training pipeline, only when the decision says retrain; at the end, whatever happened, the
outcome is recorded. Nothing of it is cached but what the training pipeline caches itself.

Training gets its data by version, from DVC's remote: the version is in the decision, and what is trained on is what
was monitored.
"""

from typing import Any

from kfp import dsl

from components.decide_retraining import decide_retraining
from components.monitor_data import monitor_data
from components.record_outcome import record_outcome
from pipelines import training
from pipelines.placing import Placing

NAME = "mtrec-monitoring"
SIDE_EFFECTS = ("monitor-data", "decide-retraining", "record-outcome", *training.SIDE_EFFECTS)
"""Tasks that must never be served from a cache."""


def monitoring_pipeline(placed: Placing) -> Any:
    """Build the monitoring pipeline.

    Args:
        placed: where and with what its tasks run.

    Returns:
        The pipeline, ready to compile or to call.
    """
    train = training.training_pipeline(placed)

    @dsl.pipeline(name=NAME, description="From a data drop to a decision, and where it says so to a new candidate.")
    def monitoring(
        scenario: str,
        drop: str,
        now: str = "",
        code_revision: str = "",
        pipeline_run: str = "",
        tracking_uri: str = "",
        dvc_root: str = "",
        checkpoints: str = "",
        text_cache: str = "",
        lease: str = "",
    ) -> None:
        """From a data drop to a decision, and where it says so to a new candidate.

        Args:
            scenario: The whole scenario as JSON text (`mtrec compile --scenario` fills it in).
            drop: A data drop, or a folder of drops.
            now: ISO time that counts as the present. Empty: the clock.
            code_revision: Revision of the code. Empty: asked from the image.
            pipeline_run: Name of this run in MLflow. Empty: the workflow's job id.
            tracking_uri: MLflow tracking server. Empty: the environment's.
            dvc_root: Folder of the DVC repository with the champion's data, which gets the new version.
            checkpoints: Folder to resume from (same code, data and scenario) and to save to. Empty: none are kept.
            text_cache: Folder that keeps the work of the encoder's frozen layers for later runs. Empty: in memory.
            lease: The lease under which the run trains, as JSON text. Empty: nobody's.
        """
        job_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        record = placed(
            record_outcome(
                scenario=scenario,
                pipeline_run=pipeline_run,
                job_id=job_id,
                tracking_uri=tracking_uri,
                lease=lease,
                trainer=placed.trainer,
            )
        )
        with dsl.ExitHandler(record, name="whatever-happens"):
            monitor = placed(
                monitor_data(
                    scenario=scenario,
                    drop=drop,
                    now=now,
                    dvc_root=dvc_root,
                    tracking_uri=tracking_uri,
                    code_revision=code_revision,
                    pipeline_run=pipeline_run,
                    job_id=job_id,
                )
            )
            revision, run = monitor.outputs["code_revision"], monitor.outputs["pipeline_run"]
            decide = placed(
                decide_retraining(
                    scenario=scenario,
                    code_revision=revision,
                    image=placed.image,
                    pipeline_run=run,
                    observed=monitor.outputs["observed"],
                    tables=monitor.outputs["tables"],
                    dvc_root=dvc_root,
                    tracking_uri=tracking_uri,
                    lease=lease,
                )
            )
            with dsl.If(decide.outputs["Output"] == "retrain", name="retrain"):
                train(
                    scenario=scenario,
                    data=monitor.outputs["data"],
                    code_revision=revision,
                    pipeline_run=run,
                    tracking_uri=tracking_uri,
                    dvc_root=dvc_root,
                    checkpoints=checkpoints,
                    text_cache=text_cache,
                    lease=lease,
                )

    return monitoring
