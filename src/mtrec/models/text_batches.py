"""Which texts run together: duplicates once, and as little padding as pays.

Shapes: B texts, L tokens, n texts of one process, E the encoder's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mtrec.models.sending import sent

Tokens = Sequence[Sequence[int]]
"""Token ids of each text."""
Encoded = tuple[Tensor, Sequence[int]]
"""Vectors, and for each text the row of its own."""


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
    return sent(ids_BL, device), sent(mask_BL, device)


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


def pieces(groups: Sequence[list[int]], size: int) -> list[list[int]]:
    """The groups, each cut into parts of at most `size` texts."""
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def recomputed(encode: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function, computed anew in the backward pass in place of keeping what its backward needs.

    With `pieces` the activations of one piece at a time are held, as by GradCache (Gao et al. 2021,
    arXiv:2101.06983), at the price of a second forward pass. Dropout draws the same both times.
    """

    def run(*args: Any) -> Tensor:
        vectors: Tensor = checkpoint(encode, *args, use_reentrant=False)
        return vectors

    return run


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


@dataclass(frozen=True, kw_only=True)
class Share:
    """The place of this process among several that encode texts together."""

    rank: int
    size: int
    gather: Callable[[Tensor], Tensor]
    """(n, E) of every process to (size · n, E), in the order of ranks and with gradient."""
    one_group: bool = False
    """Run all texts of a process at once, because all processes must run equally often."""

    def encode(self, tokens: Tokens, encode: Callable[[Tokens], Encoded]) -> Encoded:
        """Encode every n-th text here and the others elsewhere.

        Every process encodes equally many, some of them twice, and texts of all lengths.
        """
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        count = -(-len(order) // self.size)
        own = [order[(self.rank + n * self.size) % len(order)] for n in range(count)]
        vectors, row = encode([tokens[i] for i in own])
        all_vectors = self.gather(F.embedding(sent(row, vectors.device), vectors))
        rows = [0] * len(order)
        for place, i in enumerate(order):
            rows[i] = place % self.size * count + place // self.size
        return all_vectors, rows
