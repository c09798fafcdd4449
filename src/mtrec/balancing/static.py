"""The joint loss with static weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def joint_loss(task_losses: Mapping[str, Tensor], loss_weights: Mapping[str, float]) -> Tensor:
    """L = Σ αᵢ Lᵢ.

    Args:
        task_losses: one scalar per task.
        loss_weights: α per task; every task of `task_losses` has one.

    Returns:
        A scalar whose gradient is the weighted sum of the tasks' gradients.
    """
    return torch.stack([loss_weights[name] * loss for name, loss in task_losses.items()]).sum()
