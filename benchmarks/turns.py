"""Training steps of several trainers by turns, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from mtrec.training.loop import Trainer


def step_seconds(trainers: Mapping[str, Trainer], rounds: int) -> dict[str, list[float]]:
    """Seconds of each of `rounds` steps, by trainer; all take them on the batches of the first one."""
    batches = list(next(iter(trainers.values())).batches.epoch(0))
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(rounds + 2):
        for name in np.random.default_rng(turn).permutation(list(trainers)):
            begun = time.perf_counter()
            trainers[name].train_step(batches[turn % len(batches)])
            if turn >= 2:  # the first steps warm up
                seconds[name].append(time.perf_counter() - begun)
    return seconds
