"""Shared bottom (Caruana 1997, doi:10.1023/A:1007379606734): one trunk feeds every head."""

from __future__ import annotations

from torch import Tensor, nn

from mtrec.models.sharing.conditioning import TaskConditioning


class SharedBottom(nn.Module):
    """One hidden layer for all tasks of a place, conditioned on the task."""

    def __init__(self, tasks: list[str], num_inputs: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.tasks = tasks
        self.layers = nn.Sequential(
            nn.LayerNorm(num_inputs), nn.Linear(num_inputs, num_outputs), nn.GELU(), nn.Dropout(dropout)
        )
        self.conditioning = TaskConditioning(len(tasks), num_outputs)

    def forward(self, inputs_XI: Tensor) -> dict[str, Tensor]:
        """(…, I) → (…, H) per task."""
        shared = self.layers(inputs_XI)
        return {name: self.conditioning(shared, t) for t, name in enumerate(self.tasks)}
