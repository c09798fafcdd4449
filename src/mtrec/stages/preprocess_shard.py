"""Preprocess a shard: what looks at one user's rows alone, done for the users of one shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.sharding import clean_shard
from mtrec.errors import ConfigError
from mtrec.progress import report


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    shards: Path
    """What the stage shard wrote."""
    shard: int
    """Number of the shard, from 0; a text of digits will do."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    part: Path
    """The shard's part of the dataset, for `join_shards`."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Clean a shard, and divide its rows where that takes no other user's.

    Returns:
        `shard`, `num_shards`, and what cleaning changed.

    Raises:
        ConfigError: the shard's number is none.
        DataError: there is no such shard.
    """
    given = str(inputs.shard)
    if not given.isdecimal():
        raise ConfigError(f"preprocess_shard: shard is '{given}': write its number")
    report("preprocess_shard", None, f"cleaning shard {given}")
    return clean_shard(inputs.shards, int(given), outputs.part, scenario)
