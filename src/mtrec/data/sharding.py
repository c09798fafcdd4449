"""Preprocessing in shards, for interactions that do not fit into the memory of one machine.

Three steps give the very files that `clean`, `prepare` and `write_dataset` give at once:

1. `write_shards` streams the tables and puts each user, with all rows, into one of K shards.
2. `clean_shard` does what looks at one user's rows alone: duplicates, order, missing users, users' parts, and the
   rows' parts under every split but that by time. Shards do not wait for each other.
3. `join_shards` does what looks at all rows: the cuts of a split by time, items, encoding, counts. It reads and
   writes interactions in blocks of whole users, so it never holds them all; users, items and single columns it
   does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from mtrec.config import Scenario
from mtrec.data.cleaning import ORDER, clean_interactions, clean_items, clean_users, tidy_text
from mtrec.data.contract import read_parquet, replacing_folder
from mtrec.data.dataset import (
    card_of,
    fit_encoding,
    prepare_items,
    prepare_users,
    with_event_labels,
    write_interactions,
    write_others,
)
from mtrec.data.splits import check_parts, part_of_times, part_of_users, time_cuts
from mtrec.errors import DataError

MAX_SHARDS = 1_000
BLOCK_ROWS = 500_000
"""Interactions that the join holds at a time, see `join_shards`."""
_ROW_GROUP = 10_000
"""Rows of a row group of a shard: a block of the join skips the groups of other users."""


def shard_of(users: pl.Series, num_shards: int) -> pl.Series:
    """The shard of each user, by a hash of the id that is the same in every process (BLAKE2, RFC 7693).

    Returns:
        Int16 series, 0 to `num_shards` - 1.
    """
    ids = users.unique()
    hashes = (hashlib.blake2b(str(user).encode(), digest_size=8).digest() for user in ids.to_list())
    shards = pl.Series((int.from_bytes(digest, "big") % num_shards for digest in hashes), dtype=pl.Int16)
    return users.replace_strict(ids, shards, return_dtype=pl.Int16)


def write_shards(tables: Path, shards: Path, items: Path, num_shards: int) -> dict[str, Any]:
    """Divide contract tables by user. The tables are streamed: memory does not grow with them.

    Args:
        tables: validated contract tables.
        shards: folder to write: `<shard>/users.parquet`, `<shard>/interactions.parquet`, `shards.json`.
        items: folder to write: `items.parquet`, as it is.
        num_shards: how many shards; 1 to `MAX_SHARDS`. One may stay empty.

    Returns:
        What `shards.json` holds: `num_shards`, `num_interactions`.

    Raises:
        DataError: a table is missing or unreadable.
    """
    with replacing_folder(shards) as temporary:
        interactions = _scan(tables / "interactions.parquet").with_row_index(ORDER)
        _divide(_scan(tables / "users.parquet"), temporary, "users", num_shards)
        _divide(interactions, temporary, "interactions", num_shards)
        rows = interactions.select(pl.len()).collect(engine="streaming").item()
        told = {"num_shards": num_shards, "num_interactions": rows}
        (temporary / "shards.json").write_text(json.dumps(told), encoding="utf-8")
    with replacing_folder(items) as temporary:
        _scan(tables / "items.parquet").sink_parquet(temporary / "items.parquet")
    return told


def _divide(table: pl.LazyFrame, folder: Path, name: str, num_shards: int) -> None:
    """Write `<shard>/<name>.parquet` for every shard, rows in their order."""
    shard = tidy_text(pl.col("user_id")).map_batches(
        partial(shard_of, num_shards=num_shards), return_dtype=pl.Int16, is_elementwise=True
    )

    def place(told: Any) -> str:
        return f"{told.partition_keys['_shard'][0]}/{name}.parquet"

    by_shard = pl.PartitionBy(
        folder, key="_shard", include_key=False, file_path_provider=place, approximate_bytes_per_file=None
    )
    table.with_columns(_shard=shard).sink_parquet(by_shard, mkdir=True, maintain_order=True)
    for number in range(num_shards):
        path = folder / str(number) / f"{name}.parquet"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            pl.DataFrame(schema=table.collect_schema()).write_parquet(path)


def clean_shard(shards: Path, shard: int, folder: Path, scenario: Scenario) -> dict[str, Any]:
    """Clean the users and interactions of a shard, and give parts as far as other users do not matter.

    Args:
        shards: what `write_shards` wrote.
        shard: number of the shard.
        folder: folder to write: `users.parquet`, `interactions.parquet`, `shard.json`.
        scenario: how rows are divided.

    Returns:
        What `shard.json` holds: `shard`, `num_shards`, and the counts of `clean`.

    Raises:
        DataError: there is no such shard.
    """
    given = _scan(shards / str(shard) / "interactions.parquet")
    num_rows = given.select(pl.len()).collect(engine="streaming").item()
    interactions = clean_interactions(given)
    users, added = clean_users(read_parquet(shards / str(shard) / "users.parquet"), interactions)
    if scenario.split.by != "time":
        interactions = interactions.with_columns(part_of_users(interactions, scenario.split))
    told = {
        "shard": shard,
        "num_shards": _note(shards / "shards.json")["num_shards"],
        "duplicate_interactions": num_rows - interactions.height,
        "added_users": added,
    }
    with replacing_folder(folder) as temporary:
        prepare_users(users, scenario).write_parquet(temporary / "users.parquet")
        interactions.write_parquet(temporary / "interactions.parquet", row_group_size=_ROW_GROUP)
        (temporary / "shard.json").write_text(json.dumps(told), encoding="utf-8")
    return told


def join_shards(
    parts: Sequence[Path], items: Path, folder: Path, scenario: Scenario, *, block_rows: int = BLOCK_ROWS
) -> dict[str, Any]:
    """Make the dataset of clean shards: what the stage preprocess makes of the undivided tables, byte for byte.

    Args:
        parts: what `clean_shard` wrote, every shard once, in any order.
        items: the folder of items that `write_shards` wrote.
        folder: the dataset folder to write.
        scenario: declares split, texts, features and tasks.
        block_rows: interactions to hold at a time, and as many more as one user has.

    Returns:
        The dataset card.

    Raises:
        DataError: a shard is missing, or as `prepare` raises.
        ConfigError: the text template does not fit the items table.
    """
    told = _complete(parts)
    users = pl.concat([read_parquet(part / "users.parquet") for part in parts]).sort("user_id")
    prepared_items = prepare_items(clean_items(read_parquet(items / "items.parquet")), scenario)
    with replacing_folder(folder) as temporary:
        rows = [_scan(part / "interactions.parquet") for part in parts]
        write_interactions(temporary, _joined(rows, scenario, block_rows))
        interactions = _scan(temporary / "interactions.parquet")
        check_parts(interactions.select("part").collect(engine="streaming")["part"], scenario.split)
        encoding = fit_encoding(users, prepared_items, interactions, scenario)
        changed = {key: sum(one[key] for one in told) for key in ("duplicate_interactions", "added_users")}
        card = card_of(users, prepared_items, interactions, changed)
        write_others(temporary, users, prepared_items, encoding, card)
    return card


def _complete(parts: Sequence[Path]) -> list[dict[str, Any]]:
    """What the shards tell of themselves."""
    told = [_note(part / "shard.json") for part in parts]
    counts = sorted({one["num_shards"] for one in told})
    numbers = sorted(one["shard"] for one in told)
    if len(counts) != 1 or numbers != list(range(counts[0])):
        raise DataError(
            f"join_shards: got the shards {', '.join(map(str, numbers)) or 'none'} of "
            f"{' and of '.join(map(str, counts)) or '?'}; give each shard of one division once"
        )
    return told


def _joined(shards: Sequence[pl.LazyFrame], scenario: Scenario, block_rows: int) -> pl.LazyFrame:
    """All interactions in their order, with parts and event labels, made block by block as they are read."""
    cuts: tuple[int, int] | None = None
    if scenario.split.by == "time":
        times = pl.concat([shard.select("timestamp") for shard in shards]).collect(engine="streaming")
        cuts = time_cuts(times["timestamp"], scenario.split)

    def finished(block: pl.DataFrame) -> pl.DataFrame:
        if cuts is not None:
            block = block.with_columns(part_of_times(block["timestamp"], cuts))
        return with_event_labels(block, scenario)

    def blocks(*_: Any) -> Iterator[pl.DataFrame]:
        # Polars asks a source for columns and rows that a query wants; whoever writes the whole frame wants all.
        for whose in _blocks_of_users(shards, block_rows):
            rows = pl.concat([shard.filter(whose) for shard in shards]).collect(engine="streaming")
            yield finished(rows.sort("user_id", maintain_order=True))

    return register_io_source(blocks, schema=finished(shards[0].limit(0).collect()).schema)


def _blocks_of_users(shards: Sequence[pl.LazyFrame], block_rows: int) -> Iterator[pl.Expr]:
    """Conditions on `user_id` that divide all rows into blocks of about `block_rows`, in order."""
    rows = pl.concat([shard.group_by("user_id").len() for shard in shards]).collect(engine="streaming")
    rows = rows.sort("user_id").with_columns(before=pl.col("len").cum_sum() - pl.col("len"))
    starts = rows.filter((pl.col("before") // block_rows).diff().fill_null(1) > 0)["user_id"].to_list()
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        user = pl.col("user_id")
        yield (user >= start) & (user < end) if end is not None else user >= start


def _note(path: Path) -> dict[str, Any]:
    """What an earlier step says of its folder.

    Raises:
        DataError: the file is missing or broken.
    """
    try:
        note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable note of a shard ({error})") from error
    return note


def _scan(path: Path) -> pl.LazyFrame:
    """One Parquet file, not read yet.

    Raises:
        DataError: it is missing or is not Parquet.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        frame = pl.scan_parquet(path, glob=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error
    return frame
