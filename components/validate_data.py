"""Component: contract tables → typed good rows, quarantined bad rows, and the reasons."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate_data(
    scenario: str,
    data_version: str,
    code_revision: str,
    tables: Input[Dataset],
    validated: Output[Dataset],
    quarantine: Output[Dataset],
    data_docs: Output[dsl.Artifact],
    summary: Output[dsl.Artifact],
    metrics: Output[dsl.Metrics],
) -> None:
    """Check the tables with Great Expectations; keep good rows, quarantine bad ones with the reason.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables. Part of the cache key.
        code_revision: Revision of the code. Part of the cache key.
        tables: Contract tables.
        validated: Contract tables, typed, good rows only.
        quarantine: Folder with the bad rows of each table, as they came in, with row number and reason.
        data_docs: Great Expectations' Data Docs; open index.html.
        summary: JSON file with counts, expectations, warnings and failures.
        metrics: Rows in, good and quarantined, per table.
    """
    import json
    from pathlib import Path

    from mtrec.stages.execution import run_component

    result = run_component(
        "validate",
        inputs={"tables": tables.path},
        outputs={
            "validated": validated.path,
            "quarantine": quarantine.path,
            "data_docs": data_docs.path,
            "summary": summary.path,
        },
        scenario=scenario,
    )
    validated.metadata["data_version"] = data_version
    for table, counts in result["tables"].items():
        for key in ("input", "good", "quarantined"):
            metrics.log_metric(f"{table}.{key}", counts[key])
    # kfp's local cache takes an artifact without a file for lost, and Metrics alone writes none.
    Path(metrics.path).write_text(json.dumps(metrics.metadata), encoding="utf-8")
