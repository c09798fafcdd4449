"""The search pipeline: pure wiring, no logic.

ingest → validate → preprocess → workers side by side on one study; at the end, whatever happened, its report. The
workers share the study's database, which the environment variable MTREC_STUDIES of search and report names: a URL
with a password is no parameter.

Ingest, the workers and the report write outside their own outputs and are never cached.
"""

from typing import Any

from kfp import dsl

from components.report_search import report_search
from components.search_settings import search_settings
from pipelines.placing import Placing
from pipelines.preparation import prepared

NAME = "mtrec-search"
SIDE_EFFECTS = ("ingest-data", "search-settings", "report-search")
"""Tasks that must never be served from a cache."""


def search_pipeline(placed: Placing) -> Any:
    """Build the search pipeline.

    Args:
        placed: where and with what its tasks run, and how many workers train trials at the same time.

    Returns:
        The pipeline, ready to compile or to call.
    """

    @dsl.pipeline(name=NAME, description="From interaction data to the settings that learn all tasks best.")
    def search(
        scenario: str,
        data: str = "",
        study: str = "",
        trials: int = 0,
        code_revision: str = "",
        pipeline_run: str = "",
        tracking_uri: str = "",
        dvc_root: str = "",
        text_cache: str = "",
    ) -> None:
        """From interaction data to the settings that learn all tasks best.

        Args:
            scenario: The whole scenario as JSON text (`mtrec compile --scenario` fills it in).
            data: Folder of raw data, or dvc: and a data version. Empty: the scenario's simulator makes the data.
            study: Name of the study. Empty: one that stands for space, settings and data, so that the same search
                goes on.
            trials: Trials that the study should have in all. 0: as many as search.trials says.
            code_revision: Revision of the code. Empty: asked from the image.
            pipeline_run: Name of this run. Empty: the workflow's job id.
            tracking_uri: MLflow tracking server. Empty: the environment's.
            dvc_root: Folder of the DVC repository. Empty: the tables are hashed but not pushed; for a data
                version the one around the working directory.
            text_cache: Folder that keeps the work of the encoder's frozen layers for later trials. Empty: in
                memory.
        """
        which = {
            "scenario": scenario,
            "data": data,
            "tracking_uri": tracking_uri,
            "pipeline_run": pipeline_run,
            "job_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        }
        with dsl.ExitHandler(placed(report_search(**which)), name="whatever-happens"):
            made = prepared(
                placed,
                scenario=scenario,
                data=data,
                dvc_root=dvc_root,
                code_revision=code_revision,
                pipeline_run=pipeline_run,
            )
            # A loop cannot be given the data version, see `preprocessed`: it is in the summary, too.
            ingested = made.ingest.outputs["summary"]
            with dsl.ParallelFor([str(number) for number in range(placed.workers)], name="workers") as worker:
                placed(
                    search_settings(
                        worker=worker,
                        ingested=ingested,
                        dataset=made.dataset,
                        study=study,
                        trials=trials,
                        seconds=placed.search_seconds,
                        text_cache=text_cache,
                        **which,
                    )
                )

    return search
