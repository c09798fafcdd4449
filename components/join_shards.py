"""Component: the parts of all shards → a dataset split without leakage."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def join_shards(
    scenario: str,
    data_version: str,
    code_revision: str,
    parts: Input[list[Dataset]],
    items: Input[Dataset],
    dataset: Output[Dataset],
) -> None:
    """Join the parts in one order, cut by time where the split asks for it, and encode with the training rows.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables; must be the version that the parts were made from.
        code_revision: Revision of the code. Part of the cache key.
        parts: What each shard became.
        items: Folder with the items.
        dataset: Folder with the encoded dataset and its card; the same as of data that was not divided.
    """
    from mtrec.stages.execution import check_data_version, run_component

    for made in (*parts, items):
        check_data_version(made.metadata, data_version)
    result = run_component(
        "join_shards",
        inputs={"parts": [part.path for part in parts], "items": items.path},
        outputs={"dataset": dataset.path},
        scenario=scenario,
    )
    dataset.metadata["data_version"] = data_version
    for key in ("num_train", "num_valid", "num_test"):
        dataset.metadata[key] = result[key]
