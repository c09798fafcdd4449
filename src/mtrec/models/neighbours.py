"""Item neighbours inside the ranking model: what users of the last few items also took.

Shapes: S id slots (0 unknown), K neighbours, B users, T events, X states, L recent events, R training rows.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

SHRINK = 50.0
"""Added to the similarity's denominator; keeps rare items from looking alike by chance."""
RECENT = 20
"""Events before the state that count."""
WINDOW = 20
"""Items of a user further apart than this many events have nothing to do with each other."""
DECAY = 0.9
"""How much less a pair counts per event that lies between."""


def top_similar(
    took: sparse.csr_matrix, size: int, shrink: float, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar other items of every item, by shrunken cosine c(i, j) / (√(n(i) · n(j)) + shrink).

    Args:
        took: (users, S), 1 where a user took an item. c counts the users of both items, n the users of one.
        size: K, how many to keep of each item; of equals those with the lower number.
        shrink: at least 0.
        block: items compared at a time, which bounds the memory.

    Returns:
        Items (S, K), most similar first, and their similarities (S, K); 0 with similarity 0 fills up.
    """
    num_items = took.shape[1]
    counts = np.asarray(took.sum(axis=0)).ravel()
    by_item = took.T.tocsr()
    parts = [
        _best(start, (by_item[start : start + block] @ took).tocsr(), counts, size, shrink)
        for start in range(0, num_items, block)
    ]
    return np.concatenate([index for index, _ in parts]), np.concatenate([similarity for _, similarity in parts])


def _best(
    first_item: int, together: sparse.csr_matrix, counts: np.ndarray, size: int, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar other items of some items, given the weight of each pair."""
    shape = (together.shape[0], size)
    index, similarity = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    together.sort_indices()
    for row, (first, last) in enumerate(pairwise(together.indptr)):
        others, common = together.indices[first:last], together.data[first:last]
        common = np.where(others == first_item + row, 0, common)
        similar = common / (np.sqrt(counts[first_item + row] * counts[others]) + shrink)
        best = np.argsort(-similar, kind="stable")[:size]
        best = best[similar[best] > 0]
        index[row, : len(best)], similarity[row, : len(best)] = others[best], similar[best]
    return index, similarity


def closeness(user_R: np.ndarray, slot_R: np.ndarray, row_R: np.ndarray, num_slots: int) -> sparse.csr_matrix:
    """How near users took the items of each pair to each other: Σ over users of DECAY^(events between), (S, S).

    Args:
        user_R: users, in ascending order.
        slot_R: item slots; of an item that a user took again only the first row counts.
        row_R: numbers of the rows, ascending; rows of a user that were left out leave gaps.
        num_slots: S.
    """
    _, first = np.unique(user_R.astype(np.int64) * num_slots + slot_R, return_index=True)
    first.sort()
    user, slot, row = user_R[first], slot_R[first], row_R[first]
    found = sparse.csr_matrix((num_slots, num_slots))
    for step in range(1, WINDOW + 1):
        gap = row[step:] - row[:-step]
        near = (user[step:] == user[:-step]) & (gap <= WINDOW)
        weight = DECAY ** (gap[near] - 1.0)
        found = found + sparse.csr_matrix((weight, (slot[:-step][near], slot[step:][near])), shape=found.shape)
    return (found + found.T).tocsr()


class Neighbours(nn.Module):
    """Scores from co-occurrence: Σ over recent items i of w · exp(−rate · age) · s(i, j).

    s is the shrunken cosine of item-kNN (Sarwar et al. 2001, doi:10.1145/371920.372071), but a user counts for
    a pair by how near to each other the two were taken (`closeness`), as the sequential rules of Ludewig & Jannach
    2018 (arXiv:1803.09587); the decay by age is that of their sequence-aware neighbours. The table is counted, not
    learned; weight and rate are learned with everything else. Ranking so starts as a neighbourhood model, which is
    hard to beat on small data (Ferrari Dacrema et al. 2019, arXiv:1907.06902), and learning adds to it.

    In training, pairs of items within the user's own window are taken out of c, or each target would vouch for
    itself; n(i) and n(j) keep counting the user.
    """

    index: Tensor
    similarity: Tensor
    counts: Tensor

    def __init__(self, num_slots: int, size: int) -> None:
        super().__init__()
        size = min(size, num_slots)
        self.register_buffer("index", torch.zeros(num_slots, size, dtype=torch.long))
        self.register_buffer("similarity", torch.zeros(num_slots, size))
        self.register_buffer("counts", torch.zeros(num_slots))
        self.log_weight = nn.Parameter(torch.tensor(math.log(50.0)))
        self.log_rate = nn.Parameter(torch.tensor(math.log(math.log(2))))

    def start_from(self, user_R: np.ndarray, slot_R: np.ndarray, row_R: np.ndarray) -> None:
        """Count who took what near what; see `closeness` for the training rows that it is given."""
        pairs = np.unique(np.stack([user_R, slot_R]), axis=1)
        counts = np.bincount(pairs[1], minlength=len(self.counts))
        together = closeness(user_R, slot_R, row_R, len(self.counts))
        index, similarity = _best(0, together, counts, self.index.shape[1], SHRINK)
        self.index.copy_(torch.from_numpy(index))
        self.similarity.copy_(torch.from_numpy(similarity))
        self.counts.copy_(torch.from_numpy(counts))

    def forward(self, slot_BT: Tensor, event_BT: Tensor, row_X: Tensor, place_X: Tensor, own: bool) -> Tensor:
        """Scores of every slot for states, (X, S).

        Args:
            slot_BT: id slots of histories; 0 for unknown items and pads.
            event_BT: numbers of the events' rows (`History.row_BT`).
            row_X: which history a state belongs to.
            place_X: how many events of that history lie before the state.
            own: the histories are part of the counts, and are taken out of them.
        """
        similar_BTK, index_BTK = F.embedding(slot_BT, self.similarity), self.index[slot_BT]
        if own:
            never = torch.iinfo(event_BT.dtype).max // 2
            first_BS = torch.full((len(slot_BT), len(self.counts)), never, device=slot_BT.device)
            first_BS = first_BS.scatter_reduce(1, slot_BT, event_BT, "amin")
            gap_BTK = first_BS.gather(1, index_BTK.flatten(1)).view_as(index_BTK) - event_BT.unsqueeze(-1)
            own_BTK = torch.where(gap_BTK.abs() <= WINDOW, DECAY ** (gap_BTK.abs().clamp(min=1) - 1.0), 0)
            base = (self.counts[slot_BT].unsqueeze(-1) * self.counts[index_BTK]).sqrt() + SHRINK
            similar_BTK = (similar_BTK - own_BTK / base).clamp(min=0)
        length = min(RECENT, slot_BT.shape[1])
        age_L = torch.arange(length, device=slot_BT.device)
        place_XL = place_X.unsqueeze(1) - 1 - age_L
        weight_L = (self.log_weight - self.log_rate.exp() * age_L).exp()
        there_XL = (place_XL >= 0).float() * weight_L
        place_XL = place_XL.clamp(min=0)
        values = similar_BTK[row_X.unsqueeze(1), place_XL] * there_XL.unsqueeze(-1)
        index = index_BTK[row_X.unsqueeze(1), place_XL]
        out = values.new_zeros(len(row_X), len(self.counts))
        return out.scatter_add(1, index.flatten(1), values.flatten(1))
