"""Multi-gate mixture of experts (Ma et al. 2018, doi:10.1145/3219819.3220007): shared experts, a gate per task."""

from __future__ import annotations

from torch import Tensor, nn

from mtrec.models.sharing.conditioning import TaskConditioning
from mtrec.models.sharing.experts import Experts, Gate


class MMoE(nn.Module):
    """Every task mixes the same experts in its own way, by the input; the mixture is conditioned on the task."""

    def __init__(
        self, tasks: list[str], num_inputs: int, num_outputs: int, dropout: float, *, num_experts: int
    ) -> None:
        super().__init__()
        self.tasks = tasks
        self.norm = nn.LayerNorm(num_inputs)
        self.experts = Experts(num_experts, num_inputs, num_outputs, dropout)
        self.gates = nn.ModuleList(Gate(num_inputs, num_experts) for _ in tasks)
        self.conditioning = TaskConditioning(len(tasks), num_outputs)

    def forward(self, inputs_XI: Tensor) -> dict[str, Tensor]:
        """(…, I) → (…, H) per task."""
        inputs_XI = self.norm(inputs_XI)
        experts_XEH = self.experts(inputs_XI)
        return {
            name: self.conditioning(gate(inputs_XI, experts_XEH), t)
            for t, (name, gate) in enumerate(zip(self.tasks, self.gates, strict=True))
        }
