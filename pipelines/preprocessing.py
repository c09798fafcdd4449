"""Preprocessing inside a pipeline: one task, or shards side by side. Pure wiring, no logic."""

from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from components.join_shards import join_shards
from components.preprocess_data import preprocess_data
from components.preprocess_shard import preprocess_shard
from components.shard_tables import shard_tables


def preprocessed(
    configured: Callable[..., Any],
    tables: Any,
    made_from: Mapping[str, Any],
    *,
    shards: int = 1,
    cache_key: str | None = None,
) -> Any:
    """Wire preprocessing; call it while a pipeline is defined.

    Args:
        configured: called with each task, and whether it may be cached; gives the task back.
        tables: the validated tables, an output of a task.
        made_from: the parameters scenario, data_version and code_revision.
        shards: how many shards of users are cleaned side by side; 1 is one task for everything. Known when the
            pipeline is compiled.
        cache_key: the cache key of its own that `configured` gives tasks, if any. It knows neither the number of
            shards nor which one a task is for, so nothing but the join is cached under it.

    Returns:
        The dataset, an output of a task; the same whatever `shards` is.
    """
    if shards == 1:
        return configured(preprocess_data(tables=tables, **made_from), cached=True).outputs["dataset"]
    cached = cache_key is None
    divided = configured(shard_tables(tables=tables, num_shards=shards, **made_from), cached=cached)
    with dsl.ParallelFor([str(number) for number in range(shards)], name="shards") as shard:
        cleaned = configured(
            preprocess_shard(shards=divided.outputs["shards"], shard=shard, **made_from), cached=cached
        )
    joined = join_shards(parts=dsl.Collected(cleaned.outputs["part"]), items=divided.outputs["items"], **made_from)
    return configured(joined, cached=True).outputs["dataset"]
