"""The search pipeline: pure wiring, no logic.

ingest → validate → preprocess → workers side by side on one study → report. The workers share the study's database,
which the environment variable MTREC_STUDIES of search and report names: a URL with a password is no parameter.

Ingest, the workers and the report write outside their own outputs and are never cached.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.ingest_data import ingest_data
from components.report_search import report_search
from components.search_settings import search_settings
from components.validate_data import validate_data
from pipelines.placing import Placing
from pipelines.preprocessing import preprocessed

NAME = "mtrec-search"
SIDE_EFFECTS = ("ingest-data", "search-settings", "report-search")
"""Tasks that must never be served from a cache."""


class Results(NamedTuple):
    """What a search hands back."""

    page: dsl.HTML
    picture: dsl.Artifact
    summary: dsl.Artifact
    command: str


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
    ) -> Results:
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
        ingest = placed(
            ingest_data(
                scenario=scenario,
                data=data,
                dvc_root=dvc_root,
                code_revision=code_revision,
                pipeline_run=pipeline_run,
                job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            )
        )
        version, revision = ingest.outputs["data_version"], ingest.outputs["code_revision"]
        made_from = {"scenario": scenario, "data_version": version, "code_revision": revision}
        validate = placed(validate_data(tables=ingest.outputs["tables"], **made_from), cached=True)
        dataset = preprocessed(placed, validate.outputs["validated"], made_from)
        which = {"scenario": scenario, "data": data, "study": study, "tracking_uri": tracking_uri}
        # A loop cannot be given the data version, see `preprocessed`: it is in the summary, too.
        ingested = ingest.outputs["summary"]
        with dsl.ParallelFor([str(number) for number in range(placed.workers)], name="workers") as worker:
            trained = placed(
                search_settings(
                    worker=worker,
                    ingested=ingested,
                    dataset=dataset,
                    trials=trials,
                    seconds=placed.search_seconds,
                    text_cache=text_cache,
                    **which,
                )
            )
        told = placed(report_search(data_version=version, ended=dsl.Collected(trained.output), **which))
        return Results(
            told.outputs["page"], told.outputs["picture"], told.outputs["summary"], told.outputs["Output"]
        )

    return search
