"""Experts and gates that mixture strategies are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Experts(nn.Module):
    """Equal one-layer networks side by side."""

    def __init__(self, num_experts: int, num_inputs: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        bound = num_inputs**-0.5
        self.weight = nn.Parameter(torch.empty(num_experts, num_inputs, num_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_experts, num_outputs).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs_XI: Tensor) -> Tensor:
        """(…, I) → (…, experts, H)."""
        hidden = torch.einsum("...i,eih->...eh", inputs_XI, self.weight) + self.bias
        out: Tensor = self.dropout(F.gelu(hidden))
        return out


class Gate(nn.Module):
    """Mixes experts by a softmax over them that reads the input; it starts with equal shares."""

    def __init__(self, num_inputs: int, num_experts: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_experts)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs_XI: Tensor, experts_XEH: Tensor) -> Tensor:
        """Inputs (…, I) and experts (…, E, H) → (…, H)."""
        share_XE = self.linear(inputs_XI).softmax(-1)
        return (share_XE.unsqueeze(-2) @ experts_XEH).squeeze(-2)
