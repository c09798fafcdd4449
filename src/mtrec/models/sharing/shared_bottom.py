"""Shared bottom (Caruana 1997, doi:10.1023/A:1007379606734): one trunk feeds every head."""

from __future__ import annotations

from torch import Tensor, nn


class SharedBottom(nn.Module):
    """One hidden layer shared by all tasks of a place."""

    def __init__(self, num_inputs: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(num_inputs), nn.Linear(num_inputs, num_outputs), nn.GELU(), nn.Dropout(dropout)
        )

    def forward(self, inputs_XI: Tensor) -> Tensor:
        """(…, num_inputs) → (…, num_outputs)."""
        shared: Tensor = self.layers(inputs_XI)
        return shared
