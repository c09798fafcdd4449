"""Component: dataset → trials of a study, worked on with others."""

from kfp import dsl
from kfp.dsl import Dataset, Input

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def search_settings(
    scenario: str,
    worker: str,
    ingested: Input[dsl.Artifact],
    dataset: Input[Dataset],
    data: str = "",
    study: str = "",
    trials: int = 0,
    seconds: int = 0,
    tracking_uri: str = "",
    text_cache: str = "",
    pipeline_run: str = "",
    job_id: str = "",
) -> int:
    """Train trials of a study until it has enough, together with the other workers; curves go to MLflow.

    The database of studies is read from the environment variable MTREC_STUDIES.

    Args:
        scenario: The whole scenario as JSON text.
        worker: Number of the worker; they differ in nothing else.
        ingested: JSON file with the data version; must be the version that the dataset was made from.
        dataset: Encoded dataset.
        data: What was given as data, for the command that trains with the best settings.
        study: Name of the study. Empty: one that stands for space, settings and data.
        trials: Trials that the study should have in all. 0: as many as search.trials says.
        seconds: After so many no trial is begun. 0: no limit.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        text_cache: Folder that keeps the work of the encoder's frozen layers for later trials. Empty: in memory.
        pipeline_run: Name of the pipeline run, by which the report finds the study. Empty: the workflow's job id.
        job_id: The workflow's job id.

    Returns:
        How many trials this worker ended.
    """
    import json
    from pathlib import Path

    from mtrec.stages.execution import check_data_version, run_component

    data_version = json.loads(Path(ingested.path).read_text(encoding="utf-8"))["data_version"]
    check_data_version(dataset.metadata, data_version)
    result = run_component(
        "search",
        inputs={
            "dataset": dataset.path,
            "data_version": data_version,
            "data": data,
            "study": study,
            "trials": trials or "",
            "seconds": seconds or "",
            "tracking_uri": tracking_uri,
            "text_cache": text_cache,
            "pipeline_run": pipeline_run or job_id,
        },
        outputs={},
        scenario=scenario,
    )
    print(f"worker {worker} ended {result['ended']} trials of study {result['study']}")
    return int(result["ended"])
