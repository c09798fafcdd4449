"""Item neighbours inside the ranking model: what users of the last few items also took.

Shapes: S id slots (0 unknown), K neighbours, B users, T events, X states, L recent events.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHRINK = 20.0
"""Added to the similarity's denominator; keeps rare items from looking alike by chance."""
RECENT = 20
"""Events before the state that count."""


class Neighbours(nn.Module):
    """Scores from co-occurrence: Σ over recent items i of w · exp(−rate · age) · s(i, j).

    s is the shrunken cosine of item-kNN (Sarwar et al. 2001, doi:10.1145/371920.372071), the decay by age that of
    the sequence-aware neighbours of Ludewig & Jannach 2018 (arXiv:1803.09587). The table is counted, not learned;
    weight and rate are learned with everything else. Ranking so starts as a tuned neighbourhood model, which is
    hard to beat on small data (Ferrari Dacrema et al. 2019, arXiv:1907.06902), and learning adds to it.

    In training a user's own rows are taken out of the counts, or each target would vouch for itself.
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
        self.log_weight = nn.Parameter(torch.tensor(math.log(10.0)))
        self.log_rate = nn.Parameter(torch.tensor(math.log(math.log(2) / 2)))

    def start_from(self, user_R: np.ndarray, slot_R: np.ndarray) -> None:
        """Count who took what: users and item slots of R training rows."""
        from scipy import sparse

        shape = (int(user_R.max(initial=0)) + 1, len(self.counts))
        took = sparse.csr_matrix((np.ones(len(user_R), np.float32), (user_R, slot_R)), shape=shape)
        took.data[:] = 1.0
        together = (took.T @ took).tocsr()
        together.setdiag(0)
        together.eliminate_zeros()
        counts = np.asarray(took.sum(axis=0)).ravel()
        for slot in range(1, len(counts)):
            span = slice(together.indptr[slot], together.indptr[slot + 1])
            others = together.indices[span]
            similar = together.data[span] / (np.sqrt(counts[slot] * counts[others]) + SHRINK)
            best = np.argsort(-similar, kind="stable")[: self.index.shape[1]]
            self.index[slot, : len(best)] = torch.from_numpy(others[best].astype(np.int64))
            self.similarity[slot, : len(best)] = torch.from_numpy(similar[best])
        self.counts.copy_(torch.from_numpy(counts))

    def forward(self, slot_BT: Tensor, row_X: Tensor, place_X: Tensor, own: bool) -> Tensor:
        """Scores of every slot for states, (X, S).

        Args:
            slot_BT: id slots of histories; 0 for unknown items and pads.
            row_X: which history a state belongs to.
            place_X: how many events of that history lie before the state.
            own: the histories are part of the counts, and are taken out of them.
        """
        similar_BTK, index_BTK = F.embedding(slot_BT, self.similarity), self.index[slot_BT]
        if own:
            B = len(slot_BT)
            member = slot_BT.new_zeros(B, len(self.counts)).scatter_(1, slot_BT, 1)
            own_BTK = member.gather(1, index_BTK.flatten(1)).view_as(index_BTK)
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
        out = out.scatter_add(1, index.flatten(1), values.flatten(1))
        return out * (torch.arange(out.shape[1], device=out.device) > 0)
