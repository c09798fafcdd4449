"""Batches of user sequences, in an order that depends on the seed and the epoch alone.

Shapes: B users, T events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtrec.data.splits import TRAIN


class SequenceBatches:
    """Cuts every user's training rows into windows and groups them into batches.

    The first cut of a user is drawn anew each epoch, so that every row is at times late and at times early in
    its window. With `shuffle_rows` the rows of a user are put in random order first: where held-out rows are
    drawn from all times, time has no meaning, and the events before a row then stand for "the user's other rows".
    """

    def __init__(
        self, user_R: np.ndarray, part_R: np.ndarray, *, window: int, batch_size: int, seed: int, shuffle_rows: bool
    ) -> None:
        self.rows = np.flatnonzero(part_R == TRAIN)
        owner = user_R[self.rows]
        self.starts = (
            np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else np.array([], dtype=int)
        )
        self.ends = np.r_[self.starts[1:], len(owner)][: len(self.starts)]
        self.window, self.batch_size, self.seed, self.shuffle_rows = window, batch_size, seed, shuffle_rows

    def num_batches(self, epoch: int) -> int:
        """Batches in an epoch."""
        return len(self._batches(np.random.default_rng((self.seed, epoch))))

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield (B, T) interaction rows, −1 pads on the right; T ≤ window, B · T ≤ batch_size · window."""
        rng = np.random.default_rng((self.seed, epoch))
        batches = self._batches(rng)
        rows = self._shuffled(rng) if self.shuffle_rows else self.rows
        for chosen in batches:
            place = np.arange(int((chosen[:, 1] - chosen[:, 0]).max()))
            index = chosen[:, :1] + place
            yield np.where(index < chosen[:, 1:], rows[np.minimum(index, len(rows) - 1)], -1)

    def _batches(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Windows of similar length together, at most batch_size · window padded events, in random order."""
        windows = self._windows(rng)
        lengths = windows[:, 1] - windows[:, 0]
        order = np.argsort(lengths * rng.uniform(0.7, 1.0, len(windows)), kind="stable")
        longest = np.maximum.accumulate(lengths[order]) if len(order) else lengths
        batches, start = [], 0
        for end in range(1, len(order) + 1):
            full = end == len(order) or (end + 1 - start) * longest[end] > self.batch_size * self.window
            if full:
                batches.append(windows[order[start:end]])
                start = end
        return [batches[i] for i in rng.permutation(len(batches))]

    def _windows(self, rng: np.random.Generator) -> np.ndarray:
        lengths = self.ends - self.starts
        first_cut = np.where(lengths > self.window, rng.integers(1, self.window + 1, len(lengths)), lengths)
        windows = []
        for start, end, cut in zip(self.starts, self.ends, first_cut, strict=True):
            cuts = np.r_[start, np.arange(start + cut, end, self.window), end]
            windows.append(np.stack([cuts[:-1], cuts[1:]], axis=1))
        return np.concatenate(windows) if windows else np.zeros((0, 2), dtype=int)

    def _shuffled(self, rng: np.random.Generator) -> np.ndarray:
        owner = np.repeat(np.arange(len(self.starts)), self.ends - self.starts)
        return self.rows[np.lexsort((rng.random(len(self.rows)), owner))]
