"""A learned embedding per task that conditions what the tasks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 16


class TaskConditioning(nn.Module):
    """Scale and shift shared features by the task: h ⊙ (1 + A e) + B e, with e the task's embedding.

    Feature-wise modulation after Perez et al. 2018 (arXiv:1709.07871). A and B start at zero, so that every task
    begins with the shared features as they are.
    """

    def __init__(self, num_tasks: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(num_tasks, WIDTH) / WIDTH**0.5)
        self.modulation = nn.Linear(WIDTH, 2 * width, bias=False)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, shared_XH: Tensor, task: int) -> Tensor:
        """(…, H) → (…, H) for one task."""
        scale_H, shift_H = self.modulation(self.embedding[task]).chunk(2)
        return shared_XH * (1 + scale_H) + shift_H
