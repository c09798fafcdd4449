"""Component: validated tables → shards of users with their interactions."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def shard_tables(
    scenario: str,
    data_version: str,
    num_shards: int,
    tables: Input[Dataset],
    shards: Output[Dataset],
    items: Output[Dataset],
) -> None:
    """Divide users, each with all interactions, by a hash of their ids; memory does not grow with the tables.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables.
        num_shards: How many shards.
        tables: Validated contract tables.
        shards: Folder with a folder of users and interactions per shard.
        items: Folder with the items, which belong to no shard.
    """
    from mtrec.stages.execution import run_component

    run_component(
        "shard",
        inputs={"tables": tables.path, "num_shards": num_shards},
        outputs={"shards": shards.path, "items": items.path},
        scenario=scenario,
    )
    shards.metadata["data_version"] = data_version
    items.metadata["data_version"] = data_version
