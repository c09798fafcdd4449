"""Component: a data drop beside the champion → how far the data has moved, and the tables to retrain on."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def monitor_data(
    scenario: str,
    drop: str,
    observed: Output[dsl.Artifact],
    tables: Output[Dataset],
    validation: Output[dsl.Artifact],
    dvc_root: str = "",
    tracking_uri: str = "",
    code_revision: str = "",
    pipeline_run: str = "",
    job_id: str = "",
    now: str = "",
) -> NamedTuple("Monitored", [("data", str), ("code_revision", str), ("pipeline_run", str)]):  # type: ignore[valid-type]
    """Join a data drop with the champion's data, validate it, and compare the windows since then with those before.

    Args:
        scenario: The whole scenario as JSON text.
        drop: A data drop, or a folder of drops.
        observed: JSON file with the champion, the data, what is wrong with it, and every window's statistics.
        tables: Folder with the contract tables to retrain on; empty where the data does not pass.
        validation: Folder with the Data Docs, of everything and of the new interactions alone.
        dvc_root: Folder of the DVC repository with the champion's data. Empty: the one around the working
            directory.
        tracking_uri: MLflow tracking server. Empty: the environment's.
        code_revision: Revision of the code. Empty: asked from the image.
        pipeline_run: Name that ties this run's MLflow runs together. Empty: the workflow's job id.
        job_id: The workflow's job id.
        now: ISO time that counts as the present. Empty: the clock.
    """
    from collections import namedtuple

    from mtrec.lineage import code_revision as installed_revision
    from mtrec.stages.execution import run_component

    told = run_component(
        "monitor",
        inputs={"drop": drop, "dvc_root": dvc_root, "tracking_uri": tracking_uri, "now": now},
        outputs={"observed": observed.path, "tables": tables.path, "validation": validation.path},
        scenario=scenario,
    )
    version = told["data"]["version"]
    tables.metadata["data_version"] = version or ""
    Monitored = namedtuple("Monitored", ["data", "code_revision", "pipeline_run"])
    return Monitored(f"dvc:{version or ''}", code_revision or installed_revision(), pipeline_run or job_id)
