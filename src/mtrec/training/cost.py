"""What a training step costs, from the lines of the loss history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any


def seconds_per_step(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean wall-clock seconds of a step, without validation, saving and encoding the catalogue anew.

    Only the time between two `train` lines of one epoch counts, so what happens between epochs is not in it.

    Args:
        lines: as in losses.jsonl.

    Returns:
        None when no epoch has two `train` lines.
    """
    seconds, steps = 0.0, 0
    timed = [line for line in lines if line["kind"] in ("train", "valid")]
    for before, after in pairwise(timed):
        if before["kind"] == after["kind"] == "train":
            seconds += after["seconds"] - before["seconds"]
            steps += after["step"] - before["step"]
    return round(seconds / steps, 4) if steps else None
