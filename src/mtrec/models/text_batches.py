"""Which texts run together: duplicates once, and as little padding as pays.

Shapes: B texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Tokens = Sequence[Sequence[int]]
"""Token ids of each text."""


def distinct(tokens: Tokens) -> tuple[list[Sequence[int]], list[int]]:
    """The different texts in order of appearance, and for each text its place among them."""
    places: dict[tuple[int, ...], int] = {}
    kept: list[Sequence[int]] = []
    index = []
    for row in tokens:
        place = places.setdefault(tuple(row), len(places))
        if place == len(kept):
            kept.append(row)
        index.append(place)
    return kept, index


def padded(tokens: Tokens, pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids with padding on the right and the mask of real tokens, both (B, L)."""
    longest = max(len(row) for row in tokens)
    ids_BL = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in tokens])
    lengths_B = torch.tensor([len(row) for row in tokens])
    mask_BL = (torch.arange(longest) < lengths_B.unsqueeze(1)).long()
    return ids_BL.to(device, non_blocking=True), mask_BL.to(device, non_blocking=True)


def length_groups(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Part texts into groups of similar length, each to be padded to its own longest, at the least cost.

    Args:
        lengths: tokens of each text.
        overhead: what one more group costs, in tokens.

    Returns:
        Indices into `lengths`, shortest texts first. The sum of padded tokens and overheads is minimal.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    # ends[e]: how many texts are at most as long as the e-th length; a group always ends at such a place.
    ends = [n for n in range(1, len(order) + 1) if n == len(order) or lengths[order[n]] > lengths[order[n - 1]]]
    best: list[tuple[int, list[int]]] = [(0, [])]
    """For each prefix that ends so: its cost, and where its groups end."""
    for end in ends:
        longest = lengths[order[end - 1]]
        options = ((cost + overhead + (end - (cuts or [0])[-1]) * longest, cuts) for cost, cuts in best)
        cost, cuts = min(options, key=lambda option: (option[0], len(option[1])))
        best.append((cost, [*cuts, end]))
    cuts = best[-1][1]
    return [order[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]


def length_batches(tokens: Tokens, tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of texts of similar length, at most `tokens_per_batch` padded tokens together, shortest first."""
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(tokens[i]) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
