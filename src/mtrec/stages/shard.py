"""Shard: validated tables → K shards of users with their interactions, and the items, for `preprocess_shard`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.sharding import MAX_SHARDS, write_shards
from mtrec.errors import ConfigError
from mtrec.progress import report


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    tables: Path
    """Validated contract tables."""
    num_shards: int
    """How many; a text of digits will do."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    shards: Path
    """Folder with a folder per shard, by number."""
    items: Path
    """Folder with the items, which belong to no shard."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Divide the tables by user.

    Returns:
        `num_shards` and `num_interactions`.

    Raises:
        ConfigError: the number of shards is none.
        DataError: a table is missing or unreadable.
    """
    given = str(inputs.num_shards)
    if not given.isdecimal() or not 1 <= int(given) <= MAX_SHARDS:
        raise ConfigError(f"shard: num_shards is '{given}': write a whole number from 1 to {MAX_SHARDS}")
    report("shard", None, f"dividing users into {given} shards")
    return write_shards(inputs.tables, outputs.shards, outputs.items, int(given))
