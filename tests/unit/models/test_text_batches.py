"""Duplicates once, groups of similar length at the least cost."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtrec.models.text_batches import (
    Encoded,
    Share,
    Tokens,
    distinct,
    length_batches,
    length_groups,
    padded,
    pieces,
)

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=7)


def cost(groups: list[list[int]], lengths: list[int], overhead: int) -> int:
    return sum(len(group) * max(lengths[i] for i in group) + overhead for group in groups)


def partitions(items: list[int]) -> list[list[list[int]]]:
    """Every way to part some things into groups."""
    if not items:
        return [[]]
    first, rest = items[0], partitions(items[1:])
    joined = [[*p[:i], [first, *group], *p[i + 1 :]] for p in rest for i, group in enumerate(p)]
    return [[[first], *p] for p in rest] + joined


def test_equal_texts_are_kept_once_in_order_of_appearance() -> None:
    kept, place = distinct([[1, 2], [3], (1, 2), [1], [3]])
    assert [list(row) for row in kept] == [[1, 2], [3], [1]]
    assert place == [0, 1, 0, 2, 1]
    assert distinct([]) == ([], [])


def test_pieces_are_parts_of_groups_in_their_order() -> None:
    assert pieces([[4, 2, 0], [1, 3]], 2) == [[4, 2], [0], [1, 3]]
    assert pieces([[4, 2, 0], [1, 3]], 3) == [[4, 2, 0], [1, 3]]


def test_padding_stands_on_the_right_and_outside_the_mask() -> None:
    ids, mask = padded([[5, 6, 7], [8]], 9, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long


@given(lengths=LENGTHS, overhead=st.integers(0, 20))
def test_no_other_grouping_costs_less(lengths: list[int], overhead: int) -> None:
    groups = length_groups(lengths, overhead)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    cheapest = min(cost(p, lengths, overhead) for p in partitions(list(range(len(lengths)))))
    assert cost(groups, lengths, overhead) == cheapest
    assert all(max(lengths[i] for i in a) <= min(lengths[i] for i in b) for a, b in pairwise(groups))


@pytest.mark.parametrize(("overhead", "groups"), [(0, 3), (2, 2), (1000, 1)])
def test_a_dear_group_is_not_opened(overhead: int, groups: int) -> None:
    assert len(length_groups([3, 9, 3, 10, 9], overhead)) == groups


def test_batches_hold_similar_lengths_within_their_bound() -> None:
    tokens = [[1] * n for n in (5, 1, 9, 2, 2, 30, 4)]
    batches = list(length_batches(tokens, 10))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    lengths = [[len(tokens[i]) for i in batch] for batch in batches]
    assert lengths == [[1, 2, 2], [4, 5], [9], [30]]
    assert list(length_batches([], 10)) == []


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_texts_are_shared_out_evenly_and_come_back_in_order(size: int) -> None:
    tokens = [[i] * length for i, length in enumerate((3, 1, 4, 1, 5))]
    seen: list[list[Sequence[int]]] = []

    def encode(some: Tokens) -> Encoded:  # a row per text, in another order than the texts
        seen.append(list(some))
        return torch.tensor([[float(text[0])] for text in reversed(some)]), range(len(some))[::-1]

    parts: list[torch.Tensor] = []
    for rank in range(size):  # first what each process encodes, then what it gets back
        Share(rank=rank, size=size, gather=lambda own: parts.append(own) or own).encode(tokens, encode)
    vectors, row = Share(rank=0, size=size, gather=lambda own: torch.cat(parts)).encode(tokens, encode)
    assert vectors[list(row)].flatten().tolist() == [0, 1, 2, 3, 4]
    assert {len(texts) for texts in seen} == {-(-5 // size)}, "all processes encode equally many"
    tokens_each = [sum(map(len, texts)) for texts in seen[:size]]
    assert max(tokens_each) - min(tokens_each) <= 5
