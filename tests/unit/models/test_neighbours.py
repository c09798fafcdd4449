"""Neighbours by hand, and against the plain item-kNN of the benchmarks' formula."""

import math

import numpy as np
import pytest
import torch

from mtrec.models.neighbours import DECAY, RECENT, SHRINK, WINDOW, Neighbours, closeness

# Users 0…3 take slots: {1, 2}, {1, 2, 3}, {2, 3}, {4}.
USERS = np.array([0, 0, 1, 1, 1, 2, 2, 3])
SLOTS = np.array([1, 2, 1, 2, 3, 2, 3, 4])
ROWS = np.arange(8)


@pytest.fixture
def table() -> Neighbours:
    neighbours = Neighbours(5, size=3)
    neighbours.start_from(USERS, SLOTS, ROWS)
    return neighbours


def similarity(together: float, a: int, b: int) -> float:
    return together / (math.sqrt(a * b) + SHRINK)


def numbers(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1]).expand_as(rows)


def ask(table: Neighbours, slots: list[list[int]], *, own: bool = False) -> torch.Tensor:
    rows = torch.tensor(slots)
    return table(rows, numbers(rows), torch.arange(len(rows)), (rows > 0).sum(1), own).detach()


def test_one_event_gives_its_similarities(table: Neighbours) -> None:
    weight = float(table.log_weight.detach().exp())
    found = ask(table, [[1]])[0]
    assert found.tolist() == pytest.approx(
        [0, 0, weight * similarity(2, 2, 3), weight * similarity(DECAY, 2, 2), 0]
    )


def test_older_events_count_less_by_the_rate(table: Neighbours) -> None:
    decay = math.exp(-float(table.log_rate.detach().exp()))
    assert decay == pytest.approx(0.5), "a half-life of one event"
    alone, after = ask(table, [[3, 0]])[0], ask(table, [[3, 4]])[0]
    torch.testing.assert_close(after, alone * decay)


def test_a_users_own_rows_do_not_vouch_for_each_other(table: Neighbours) -> None:
    """Of items 1 and 3 user 1 is the only one who took both: without that row they have nothing in common."""
    found = ask(table, [[1, 2, 3]], own=True)[0]
    others = Neighbours(5, size=3)
    mine = USERS == 1
    others.start_from(USERS[~mine], SLOTS[~mine], ROWS[~mine])
    # Only the counts in the denominator still know of the user.
    for a, b in ((1, 2), (1, 3), (2, 3)):
        weight = float(table.log_weight.detach().exp())
        base = math.sqrt(table.counts[a] * table.counts[b]) + SHRINK
        left = table.similarity[a][table.index[a] == b] - DECAY ** (b - a - 1) / base
        pair, there = torch.tensor([[a, b]]), torch.tensor([[a, b]])
        one = table(pair, there, torch.tensor([0]), torch.tensor([1]), True)[0, b].detach()
        assert float(one) == pytest.approx(weight * float(left), abs=1e-6)
        assert (float(one) > 1e-6) == bool((others.index[a] == b).any())
    assert found.isfinite().all()


def test_pads_and_unknown_items_say_nothing(table: Neighbours) -> None:
    assert ask(table, [[0, 0]]).abs().sum() == 0
    assert ask(table, [[1, 0, 0]]).equal(ask(table, [[1]]))
    assert ask(table, [[1, 2], [3, 4]])[:, 0].tolist() == [0, 0]


def test_a_state_reads_only_what_lies_before_it(table: Neighbours) -> None:
    rows = torch.tensor([[1, 2, 3, 4]])
    for place in range(5):
        found = table(rows, numbers(rows), torch.tensor([0]), torch.tensor([place]), False)
        changed = rows.clone()
        changed[0, place:] = 1
        assert found.equal(table(changed, numbers(rows), torch.tensor([0]), torch.tensor([place]), False))


def test_only_recent_events_count(table: Neighbours) -> None:
    long = [[1] + [4] * RECENT]
    assert ask(table, long).abs().sum() == 0
    assert ask(table, [[1] + [4] * (RECENT - 1)]).abs().sum() > 0


def test_the_most_similar_are_kept() -> None:
    small = Neighbours(5, size=1)
    small.start_from(USERS, SLOTS, ROWS)
    assert small.index[[1, 2, 3]].squeeze(1).tolist() == [2, 1, 2]


def test_weight_and_rate_are_learned_and_the_table_is_not(table: Neighbours) -> None:
    rows = torch.tensor([[1, 2]])
    table(rows, numbers(rows), torch.tensor([0]), torch.tensor([2]), False).sum().backward()
    assert {name for name, p in table.named_parameters() if p.grad is not None} == {"log_weight", "log_rate"}
    assert {"index", "similarity", "counts"} <= table.state_dict().keys()


def test_without_rows_there_are_no_neighbours() -> None:
    empty = Neighbours(3, size=2)
    empty.start_from(*[np.array([], dtype=np.int64)] * 3)
    assert ask(empty, [[1, 2]]).abs().sum() == 0


def test_a_user_counts_by_how_near_two_items_were_taken() -> None:
    """User 0 takes 1, 2, then nothing that is known here, then 3, and 2 again; user 1 takes 3 long after 1."""
    user, slot = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 2, 3, 2, 1, 3])
    found = closeness(user, slot, np.array([0, 1, 3, 4, 5, 6 + WINDOW]), 4).toarray()
    wanted = np.zeros((4, 4))
    wanted[1, 2] = wanted[2, 1] = 1
    wanted[2, 3] = wanted[3, 2] = DECAY
    wanted[1, 3] = wanted[3, 1] = DECAY**2
    np.testing.assert_allclose(found, wanted)
