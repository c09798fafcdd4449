"""Preprocessing inside a pipeline: one task, or shards side by side. Pure wiring, no logic."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.join_shards import join_shards
from components.preprocess_data import preprocess_data
from components.preprocess_shard import preprocess_shard
from components.shard_tables import shard_tables
from pipelines.placing import Placing


def preprocessed(placed: Placing, tables: Any, made_from: Mapping[str, Any]) -> Any:
    """Wire preprocessing; call it while a pipeline is defined.

    Of shards only the join is cached. A cache key of one's own is the same for every round of the loop, so each
    would get the first one's result; and the backend's key holds parameters and no data, while a loop can be given
    no data version: in kfp's local runner it gets its item in place of every parameter that a task puts out.
    Artifacts and the pipeline's own parameters reach it as they are.

    Args:
        placed: where and with what the tasks run, and in how many shards of users. They are cleaned side by side;
            1 is one task for everything.
        tables: the validated tables, an output of a task.
        made_from: the parameters scenario (the pipeline's), data_version and code_revision.

    Returns:
        The dataset, an output of a task; the same for any number of shards.
    """
    if placed.shards == 1:
        return placed(preprocess_data(tables=tables, **made_from), cached=True).outputs["dataset"]
    scenario = made_from["scenario"]
    divided = placed(
        shard_tables(
            scenario=scenario, data_version=made_from["data_version"], num_shards=placed.shards, tables=tables
        )
    )
    with dsl.ParallelFor([str(number) for number in range(placed.shards)], name="shards") as shard:
        cleaned = placed(preprocess_shard(scenario=scenario, shard=shard, shards=divided.outputs["shards"]))
    joined = join_shards(parts=dsl.Collected(cleaned.outputs["part"]), items=divided.outputs["items"], **made_from)
    return placed(joined, cached=True).outputs["dataset"]
