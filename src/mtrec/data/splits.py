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
        interactions: rows sorted by user and time, with `user_id`, `item_id`, `timestamp`.
        split: `time` cuts at two instants, so that rows of one instant share a part and no training row is
            later than a test row; `random` draws rows; `leave_last_out` orders each user's items by their first
            row: the test part begins at the first row of the last item, the validation part at the first row of
            the item before it. Without repeats these are the user's last row and the one before. Users with
            fewer than three distinct items stay in training; rows of equal time are ordered as in the input.

    Returns:
        Int8 series `part`: 0 train, 1 valid, 2 test.

    Raises:
        DataError: a part would be empty.
    """
    if split.by == "time":
        part = _by_time(interactions["timestamp"], split)
    elif split.by == "random":
        part = _at_random(interactions.height, split)
    else:
        part = _leave_last_out(interactions)
    counts = np.bincount(part.to_numpy(), minlength=3)
    for name, count in zip(PARTS, counts, strict=True):
        if count == 0:
            raise DataError(
                f"split by {split.by}: the {name} part is empty ({interactions.height} interactions). "
                "Give more data, or set split.by or split.test in the scenario."
            )
    return part


def _by_time(timestamp: pl.Series, split: Split) -> pl.Series:
    times = timestamp.dt.timestamp("us").to_numpy()
    ordered = np.sort(times)
    test_from = ordered[int(len(ordered) * (1 - split.test))]
    valid_from = ordered[int(len(ordered) * (1 - split.test - split.valid))]
    part = (times >= valid_from).astype(np.int8) + (times >= test_from).astype(np.int8)
    return pl.Series("part", part)


def _at_random(num_rows: int, split: Split) -> pl.Series:
    order = np.random.default_rng(split.seed).permutation(num_rows)
    part = np.zeros(num_rows, dtype=np.int8)
    num_test, num_valid = round(num_rows * split.test), round(num_rows * split.valid)
    part[order[:num_test]] = TEST
    part[order[num_test : num_test + num_valid]] = VALID
    return pl.Series("part", part)


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
    keyed = hashlib.blake2b(key=str(split.seed).encode(), digest_size=8)
    draws = np.fromiter((_draw(keyed, str(i)) for i in ids.to_list()), dtype=np.float64, count=len(ids))
    part = (draws < split.test + split.valid).astype(np.int8) + (draws < split.test).astype(np.int8)
    return pl.Series("part", part)


def _draw(keyed: hashlib.blake2b, name: str) -> float:
    """A number in [0, 1) that is even over ids and independent between keys (BLAKE2, RFC 7693)."""
    digest = keyed.copy()
    digest.update(name.encode())
    return int.from_bytes(digest.digest(), "big") / 2**64
