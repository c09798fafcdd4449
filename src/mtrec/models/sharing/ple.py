"""Progressive layered extraction (Tang et al. 2020, doi:10.1145/3383313.3412236).

Beside shared experts every task has its own, which the other tasks never touch. One level is customized gate
control (CGC); more levels are stacked, each reading what the gates of the level below let through.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtrec.models.sharing.conditioning import TaskConditioning
from mtrec.models.sharing.experts import Experts, Gate


class PLE(nn.Module):
    """Levels of shared and private experts; the outputs of the last are conditioned on the task."""

    def __init__(
        self,
        tasks: list[str],
        num_inputs: int,
        num_outputs: int,
        dropout: float,
        *,
        num_experts: int,
        num_private: int,
        num_levels: int,
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.norm = nn.LayerNorm(num_inputs)
        self.levels = nn.ModuleList(
            Level(
                len(tasks),
                num_outputs if level else num_inputs,
                num_outputs,
                dropout,
                num_experts=num_experts,
                num_private=num_private,
                last=level == num_levels - 1,
            )
            for level in range(num_levels)
        )
        self.conditioning = TaskConditioning(len(tasks), num_outputs)

    def forward(self, inputs_XI: Tensor) -> dict[str, Tensor]:
        """(…, I) → (…, H) per task."""
        inputs_XI = self.norm(inputs_XI)
        own, shared = [inputs_XI] * len(self.tasks), inputs_XI
        for level in self.levels:
            own, shared = level(own, shared)
        return {name: self.conditioning(own[t], t) for t, name in enumerate(self.tasks)}


class Level(nn.Module):
    """One extraction network: K tasks in, K tasks and what they share out."""

    def __init__(
        self,
        num_tasks: int,
        num_inputs: int,
        num_outputs: int,
        dropout: float,
        *,
        num_experts: int,
        num_private: int,
        last: bool,
    ) -> None:
        super().__init__()
        self.shared = Experts(num_experts, num_inputs, num_outputs, dropout)
        self.private = nn.ModuleList(
            Experts(num_private, num_inputs, num_outputs, dropout) for _ in range(num_tasks)
        )
        self.gates = nn.ModuleList(Gate(num_inputs, num_private + num_experts) for _ in range(num_tasks))
        everything = num_tasks * num_private + num_experts
        self.shared_gate = None if last else Gate(num_inputs, everything)

    def forward(self, own: list[Tensor], shared_XI: Tensor) -> tuple[list[Tensor], Tensor]:
        """K inputs (…, I) and the shared one → as many outputs (…, H); the last level passes the shared one on."""
        common = self.shared(shared_XI)
        private = [experts(inputs) for experts, inputs in zip(self.private, own, strict=True)]
        outputs = [
            gate(inputs, torch.cat([mine, common], dim=-2))
            for gate, inputs, mine in zip(self.gates, own, private, strict=True)
        ]
        if self.shared_gate is None:
            return outputs, shared_XI
        return outputs, self.shared_gate(shared_XI, torch.cat([*private, common], dim=-2))
