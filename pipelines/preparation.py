"""What training and search begin with: ingest → validate → preprocess. Pure wiring, no logic."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl

from components.ingest_data import ingest_data
from components.join_shards import join_shards
from components.preprocess_data import preprocess_data
from components.preprocess_shard import preprocess_shard
from components.shard_tables import shard_tables
from components.validate_data import validate_data
from pipelines.placing import Placing


class Beginning(NamedTuple):
    """What the tasks after it need."""

    ingest: Any
    """The task."""
    validate: Any
    """The task."""
    dataset: Any
    """The dataset, an output."""
    made_from: Mapping[str, Any]
    """The parameters scenario, data_version and code_revision of the tasks that follow."""


def prepared(
    placed: Placing,
    *,
    scenario: Any,
    data: Any,
    dvc_root: Any,
    code_revision: Any,
    pipeline_run: Any,
    lease: Any = "",
) -> Beginning:
    """Wire all that comes before a model; call it while a pipeline is defined.

    Args:
        placed: where and with what the tasks run.
        scenario: the pipeline's parameter, as are those that follow.
        data: see `components.ingest_data`, like the rest.
        dvc_root: where the data version is kept.
        code_revision: of the code.
        pipeline_run: name of the run.
        lease: under which the run trains.
    """
    ingest = placed(
        ingest_data(
            scenario=scenario,
            data=data,
            dvc_root=dvc_root,
            code_revision=code_revision,
            pipeline_run=pipeline_run,
            job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            lease=lease,
        )
    )
    version, revision = ingest.outputs["data_version"], ingest.outputs["code_revision"]
    made_from = {"scenario": scenario, "data_version": version, "code_revision": revision}
    validate = placed(validate_data(tables=ingest.outputs["tables"], **made_from), cached=True)
    return Beginning(ingest, validate, preprocessed(placed, validate.outputs["validated"], made_from), made_from)


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
