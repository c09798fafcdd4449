"""Batches: every training row once per epoch, in an order that the seed and the epoch decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrec.data.splits import TRAIN
from mtrec.training.batches import SequenceBatches


def make(
    lengths: list[int], window: int = 5, batch_size: int = 4, seed: int = 0, shuffle_rows: bool = False
) -> tuple[SequenceBatches, np.ndarray, np.ndarray]:
    """Users with so many rows each, of which every fourth is not for training."""
    user = np.repeat(np.arange(len(lengths)), lengths)
    part = np.where(np.arange(len(user)) % 4 == 3, 2, TRAIN)
    batches = SequenceBatches(
        user, part, window=window, batch_size=batch_size, seed=seed, shuffle_rows=shuffle_rows
    )
    return batches, user, part


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=12),
    window=st.integers(1, 7),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
    shuffle_rows=st.booleans(),
)
def test_every_training_row_once_per_epoch(
    lengths: list[int], window: int, batch_size: int, seed: int, epoch: int, shuffle_rows: bool
) -> None:
    batches, user, part = make(lengths, window, batch_size, seed, shuffle_rows)
    found = list(batches.epoch(epoch))
    rows = np.concatenate([b[b >= 0] for b in found]) if found else np.array([], dtype=int)
    assert sorted(rows.tolist()) == np.flatnonzero(part == TRAIN).tolist()
    assert len(found) == batches.num_batches(epoch)
    for batch in found:
        assert batch.shape[1] <= window
        assert batch.size <= batch_size * window
        for row in batch:
            real = row[row >= 0]
            assert len(real) > 0
            assert (row[len(real) :] == -1).all()
            assert len(set(user[real])) == 1
            if not shuffle_rows:
                assert (np.diff(real) > 0).all()


@pytest.mark.parametrize("shuffle_rows", [False, True])
def test_the_order_depends_on_seed_and_epoch_alone(shuffle_rows: bool) -> None:
    lengths = [17, 3, 9, 30, 1, 12]

    def listed(seed: int, epoch: int) -> list[list[list[int]]]:
        return [b.tolist() for b in make(lengths, seed=seed, shuffle_rows=shuffle_rows)[0].epoch(epoch)]

    assert listed(0, 1) == listed(0, 1)
    again = make(lengths, shuffle_rows=shuffle_rows)[0]
    list(again.epoch(0))
    assert [b.tolist() for b in again.epoch(1)] == listed(0, 1)
    assert listed(0, 1) != listed(0, 2)
    assert listed(0, 1) != listed(1, 1)


def test_windows_of_a_user_follow_each_other_and_are_cut_elsewhere_each_epoch() -> None:
    batches, _, part = make([40], window=6)
    order = np.flatnonzero(part == TRAIN).tolist()
    starts = set()
    for epoch in range(8):
        windows = sorted(row[row >= 0].tolist() for batch in batches.epoch(epoch) for row in batch)
        assert [r for window in windows for r in window] == order
        assert all(len(window) == 6 for window in windows[1:-1])
        starts.add(len(windows[0]))
    assert len(starts) > 2


def test_short_users_are_one_window() -> None:
    batches, user, _ = make([3, 4, 2], window=5)
    windows = [row[row >= 0].tolist() for batch in batches.epoch(0) for row in batch]
    # Rows 3 and 7 are not for training.
    assert sorted(windows) == [[0, 1, 2], [4, 5, 6], [8]]
    assert user[[0, 4, 8]].tolist() == [0, 1, 2]


def test_shuffled_rows_hold_a_target_at_most_once_in_its_own_history() -> None:
    """Under a random split the events before a row are other rows of the user, in any order."""
    batches, user, part = make([30, 20], window=8, shuffle_rows=True)
    ordered = True
    for batch in batches.epoch(0):
        for row in batch:
            real = row[row >= 0]
            assert len(set(real.tolist())) == len(real)
            assert (part[real] == TRAIN).all()
            assert len(set(user[real])) == 1
            ordered &= bool((np.diff(real) > 0).all())
    assert not ordered


def test_no_training_rows_means_no_batches() -> None:
    batches = SequenceBatches(
        np.array([0, 0]), np.array([1, 2]), window=3, batch_size=2, seed=0, shuffle_rows=False
    )
    assert batches.num_batches(0) == 0
    assert list(batches.epoch(0)) == []
