"""Component: one shard → its part of the dataset."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_shard(
    scenario: str,
    shard: str,
    shards: Input[Dataset],
    part: Output[Dataset],
) -> None:
    """Clean the users and interactions of one shard, and do whatever looks at one user's rows alone.

    Args:
        scenario: The whole scenario as JSON text.
        shard: Number of the shard, from 0.
        shards: Folder with all shards; the data version, which its metadata tell, goes on to the part.
        part: Folder with the shard's clean users and interactions.
    """
    from mtrec.stages.execution import run_component

    result = run_component(
        "preprocess_shard",
        inputs={"shards": shards.path, "shard": shard},
        outputs={"part": part.path},
        scenario=scenario,
    )
    part.metadata["data_version"] = shards.metadata.get("data_version")
    part.metadata["shard"] = result["shard"]
