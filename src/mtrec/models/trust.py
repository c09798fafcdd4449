"""How far the model trusts what it learned of a user's id."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Trust(nn.Module):
    """n / (n + shrinkage) for an id that training met n times; 0 for the unknown id.

    A vector learned from a handful of rows mostly remembers them. Scaled down, it leaves the word to history and
    attributes until there is enough to go by: the shrinkage of a random effect (Searle, Casella & McCulloch 1992).
    """

    share: Tensor

    def __init__(self, counts: list[int], shrinkage: float) -> None:
        super().__init__()
        met = torch.tensor([0, *counts], dtype=torch.float32)
        self.register_buffer("share", met / (met + shrinkage).clamp(min=1e-9), persistent=False)

    def forward(self, ids_X: Tensor) -> Tensor:
        """Ids (X,) to factors (X, 1) between 0 and 1."""
        return self.share[ids_X].unsqueeze(-1)
