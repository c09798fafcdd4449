"""Label attention: every label of an item task looks in the text for itself.

Tasks that read one vector per text pull its layers in different directions; on a few hundred items each then learns
less than alone. Here a label weighs the tokens by a query of its own and reads their mean by weights of its own
(Mullenbach et al. 2018, arXiv:1802.05695, "CAML"), so that what it needs of a text need not be in that vector.
Departures: tokens come from the shared transformer in place of a convolution, and the score is added to that of the
task's head.

Shapes: B texts, L tokens, E the encoder's width, V labels of all tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LabelAttention(nn.Module):
    """score_v = w_v · Σ_l softmax_l(q_v · h_l) h_l.

    Queries and weights begin at zero: all tokens count alike, and all scores are 0.
    """

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(num_labels, width))
        self.weights = nn.Parameter(torch.zeros(num_labels, width))

    def forward(self, hidden_BLE: Tensor, mask_BL: Tensor) -> Tensor:
        """Scores of the labels, (B, V), from token vectors and the mask of real tokens."""
        padding_B1L = (mask_BL == 0).unsqueeze(1)
        share_BVL = (self.queries @ hidden_BLE.mT).masked_fill(padding_B1L, float("-inf")).softmax(-1)
        return (share_BVL * (self.weights @ hidden_BLE.mT)).sum(-1)
