"""Dividing interactions, items and users into training, validation and test."""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl

from mtrec.config import Split
from mtrec.errors import DataError

TRAIN, VALID, TEST = 0, 1, 2
PARTS = ("train", "valid", "test")


def split_interactions(interactions: pl.DataFrame, split: Split) -> pl.Series:
    """Assign every interaction to a part.

    Args:
        interactions: rows sorted by user and time, with `user_id`, `item_id`, `event`, `timestamp`.
        split: `time` cuts at two instants, so that rows of one instant share a part and no training row is
            later than a test row; `random` draws rows by a hash of these four columns and the seed, so that a
            later data version leaves each row in its part and the shares hold on average; `leave_last_out`
            orders each user's items by their first row: the test part begins at the first row of the last item,
            the validation part at the first row of the item before it. Without repeats these are the user's last
            row and the one before. Users with fewer than three distinct items stay in training; rows of equal
            time are ordered as in the input. `cold_items` draws items as `split_by_id` does; all rows of an item
            share its part, so no training row names an item of another part.

    Returns:
        Int8 series `part`: 0 train, 1 valid, 2 test.

    Raises:
        DataError: a part would be empty.
    """
    if split.by == "time":
        part = part_of_times(interactions["timestamp"], time_cuts(interactions["timestamp"], split))
    else:
        part = part_of_users(interactions, split)
    check_parts(part, split)
    return part


def part_of_users(interactions: pl.DataFrame, split: Split) -> pl.Series:
    """`split_interactions` by any rule but `time`, which looks at nobody else's rows; a part may be empty.

    Args:
        interactions: all rows of some users, as for `split_interactions`.
        split: by random, cold_items or leave_last_out.
    """
    if interactions.is_empty():  # of nothing, replace_strict gives the type of the ids
        return pl.Series("part", dtype=pl.Int8)
    if split.by == "random":
        return _drawn(_row_keys(interactions, split.seed) / 2.0**64, split)
    if split.by == "cold_items":
        items = interactions["item_id"].unique()
        return interactions["item_id"].replace_strict(items, split_by_id(items, split)).alias("part")
    return _leave_last_out(interactions)


def time_cuts(timestamp: pl.Series, split: Split) -> tuple[int, int]:
    """The instants, in microseconds since 1970, from which rows validate and from which they test.

    Args:
        timestamp: of all rows, in any order.
        split: the shares.
    """
    ordered = np.sort(timestamp.dt.timestamp("us").to_numpy())
    test_from = ordered[int(len(ordered) * (1 - split.test))]
    valid_from = ordered[int(len(ordered) * (1 - split.test - split.valid))]
    return int(valid_from), int(test_from)


def part_of_times(timestamp: pl.Series, cuts: tuple[int, int]) -> pl.Series:
    """The parts of rows by their time and what `time_cuts` gave."""
    times = timestamp.dt.timestamp("us").to_numpy()
    valid_from, test_from = cuts
    return pl.Series("part", (times >= valid_from).astype(np.int8) + (times >= test_from).astype(np.int8))


def check_parts(part: pl.Series, split: Split) -> None:
    """Check that no part of all interactions is empty.

    Raises:
        DataError: one is.
    """
    counts = np.bincount(part.to_numpy(), minlength=3)
    for name, count in zip(PARTS, counts, strict=True):
        if count == 0:
            raise DataError(
                f"split by {split.by}: the {name} part is empty ({len(part)} interactions). "
                "Give more data, or set split.by or split.test in the scenario."
            )


def _row_keys(interactions: pl.DataFrame, seed: int) -> np.ndarray:
    """A 64-bit hash per row, of user, item, event, time and the seed; it does not change between data versions."""
    keyed = _keyed(seed)
    keys = interactions["timestamp"].dt.timestamp("us").to_numpy().astype(np.uint64)
    for name in ("user_id", "item_id", "event"):
        values = interactions[name].unique()
        hashes = pl.Series((_hash(keyed, value) for value in values.to_list()), dtype=pl.UInt64)
        keys = _mixed(keys) ^ interactions[name].replace_strict(values, hashes).to_numpy()
    return _mixed(keys)


def _mixed(keys: np.ndarray) -> np.ndarray:
    """Every bit of a 64-bit number spread over all bits: the last step of SplitMix64 (Steele et al. 2014)."""
    keys = (keys ^ (keys >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> 27)) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = keys ^ (keys >> 31)
    return mixed


def _leave_last_out(interactions: pl.DataFrame) -> pl.Series:
    met = pl.col("item_id").is_first_distinct().cast(pl.Int64).cum_sum().over("user_id")
    from_end = met.max().over("user_id") - met
    enough = met.max().over("user_id") >= 3
    part = pl.when(enough & (from_end == 0)).then(TEST).when(enough & (from_end == 1)).then(VALID).otherwise(TRAIN)
    return interactions.select(part.cast(pl.Int8).alias("part"))["part"]


def split_by_id(ids: pl.Series, split: Split) -> pl.Series:
    """Assign items or users to a part by a hash of their id, for tasks whose label belongs to the row itself.

    The assignment depends on the id and the seed alone, so a later data version keeps it.

    Returns:
        Int8 series `part`.
    """
    keyed = _keyed(split.seed)
    hashes = np.fromiter((_hash(keyed, str(i)) for i in ids.to_list()), dtype=np.uint64, count=len(ids))
    return _drawn(hashes / 2.0**64, split)


def _drawn(draws: np.ndarray, split: Split) -> pl.Series:
    """Parts from even draws in [0, 1). A test part of a smaller share lies inside that of a larger one."""
    part = (draws < split.test + split.valid).astype(np.int8) + (draws < split.test).astype(np.int8)
    return pl.Series("part", part)


def _keyed(seed: int) -> hashlib.blake2b:
    return hashlib.blake2b(key=str(seed).encode(), digest_size=8)


def _hash(keyed: hashlib.blake2b, name: str) -> int:
    """64 bits that are even over names and independent between keys (BLAKE2, RFC 7693)."""
    digest = keyed.copy()
    digest.update(name.encode())
    return int.from_bytes(digest.digest(), "big")
