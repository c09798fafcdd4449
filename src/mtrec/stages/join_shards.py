"""Join: the shards' parts → the dataset that `preprocess` would have made of the undivided tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data import sharding
from mtrec.errors import DataError
from mtrec.progress import report


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    parts: Sequence[Path] | Path
    """What `preprocess_shard` wrote, each shard once; or a folder that holds all of it."""
    items: Path
    """What the stage shard wrote of the items."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    dataset: Path
    """Folder that `mtrec.data.dataset.Dataset.read` opens."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Put the parts together and do what looks at all rows.

    Returns:
        The dataset card, as the stage preprocess gives it.

    Raises:
        DataError: a shard is missing, or a part of the split or a label would be empty.
        ConfigError: the text template does not fit the items table.
    """
    parts = inputs.parts
    if isinstance(parts, (str, Path)):
        if not Path(parts).is_dir():
            raise DataError(f"{parts}: no such folder")
        parts = sorted(Path(parts).iterdir())
    report("join_shards", None, f"joining {len(parts)} shards")
    return sharding.join_shards([Path(part) for part in parts], inputs.items, outputs.dataset, scenario)
