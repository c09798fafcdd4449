"""Component: raw data → the three contract tables, versioned by DVC."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest_data(
    scenario: str,
    tables: Output[Dataset],
    summary: Output[dsl.Artifact],
    data: str = "",
    dvc_root: str = "",
    code_revision: str = "",
    pipeline_run: str = "",
    job_id: str = "",
    lease: str = "",
) -> NamedTuple("Ingested", [("data_version", str), ("code_revision", str), ("pipeline_run", str)]):  # type: ignore[valid-type]
    """Read raw data from its source, write the three contract tables, and push them to DVC's remote.

    Args:
        scenario: The whole scenario as JSON text.
        tables: Folder with users.parquet, items.parquet and interactions.parquet.
        summary: JSON file with the row counts and the data version.
        data: Folder of raw data, or dvc: and a data version. Empty: the scenario's simulator makes the data.
        dvc_root: Folder of the DVC repository. Empty: the tables are hashed but not pushed; for a data version
            the one around the working directory.
        code_revision: Revision of the code. Empty: asked from the image.
        pipeline_run: Name that ties this run's MLflow run together. Empty: the workflow's job id.
        job_id: The workflow's job id.
        lease: The lease that the run takes before it trains, as JSON text. Empty: none, or it is held already.
    """
    from collections import namedtuple

    from mtrec.lineage import code_revision as installed_revision
    from mtrec.stages.execution import run_component

    result = run_component(
        "ingest",
        inputs={"data": data, "dvc_root": dvc_root},
        outputs={"tables": tables.path, "summary": summary.path},
        scenario=scenario,
        lease=lease,
        pipeline_run=pipeline_run or job_id,
    )
    tables.metadata["data_version"] = result["data_version"]
    for key in ("num_users", "num_items", "num_interactions"):
        tables.metadata[key] = result[key]
    Ingested = namedtuple("Ingested", ["data_version", "code_revision", "pipeline_run"])
    return Ingested(result["data_version"], code_revision or installed_revision(), pipeline_run or job_id)
