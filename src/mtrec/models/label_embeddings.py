"""Labels as vectors that start from the text of their names, so that rare labels share what is learned of others.

logit_v = (W h) · e_v + b_v, with one map W for all labels and e_v the encoder's vector of label v's name. So a
label that few items carry is scored like others with a similar name (Akata et al. 2013, doi:10.1109/CVPR.2013.111,
with names in place of attributes). Departure: e_v is learned further.

Shapes: X examples, I inputs, V labels, E the encoder's width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LabelEmbeddings(nn.Linear):
    """A linear layer whose rows are label vectors times one shared map; `weight` is that map, (E, I)."""

    def __init__(self, num_inputs: int, num_labels: int, text_width: int) -> None:
        super().__init__(num_inputs, text_width, bias=False)
        self.out_features = num_labels
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.vectors = nn.Parameter(torch.randn(num_labels, text_width) / text_width**0.5)

    @torch.no_grad()
    def start_from(self, text_VE: Tensor) -> None:
        """Begin with the text vectors of the labels' names, without what all have in common, at unit length."""
        self.vectors.copy_(F.normalize(text_VE - text_VE.mean(0), dim=-1))

    def forward(self, shared_XI: Tensor) -> Tensor:
        """(X, V)."""
        return F.linear(shared_XI, self.vectors @ self.weight, self.bias)
