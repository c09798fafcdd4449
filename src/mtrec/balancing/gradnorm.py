"""GradNorm (Chen et al. 2018, arXiv:1711.02257): tasks learn at the same rate.

Weights are learned so that each task's gradient norm at the shared representation follows how far the task lags
behind: |wᵢ gᵢ| → mean · rᵢ^γ, with rᵢ the loss relative to its first value, relative to the mean of that ratio.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GradNorm(nn.Module):
    """Combines a Jacobian by learned weights that always sum to K.

    Args:
        num_tasks: K.
        gamma: strength of the pull towards equal rates (α in the paper, which here is the static weight).
        lr: learning rate of the weights, by Adam as in the paper.
    """

    weights: Tensor
    first: Tensor

    def __init__(self, num_tasks: int, gamma: float = 1.5, lr: float = 0.025) -> None:
        super().__init__()
        self.gamma = gamma
        self.weights = nn.Parameter(torch.ones(num_tasks))
        self.register_buffer("first", torch.full((num_tasks,), float("nan")))
        self.optimiser = torch.optim.Adam([self.weights], lr=lr)

    @torch.no_grad()
    def forward(self, jacobian_KD: Tensor, losses_K: Tensor) -> Tensor:
        """Σ wᵢ gᵢ with the present weights, (D,); then a step on the weights."""
        combined = self.weights @ jacobian_KD
        self.first.copy_(torch.where(self.first.isnan(), losses_K, self.first))
        norm_K = jacobian_KD.norm(dim=1)
        ratio_K = losses_K / self.first.clamp(min=1e-12)
        weighted_K = self.weights * norm_K
        target_K = weighted_K.mean() * (ratio_K / ratio_K.mean().clamp(min=1e-12)) ** self.gamma
        self.weights.grad = (weighted_K - target_K).sign() * norm_K
        self.optimiser.step()
        self.weights.grad = None
        self.weights.clamp_(min=1e-3)
        self.weights.mul_(len(self.weights) / self.weights.sum())
        return combined
