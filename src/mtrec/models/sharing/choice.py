"""The sharing strategy that a scenario names."""

from __future__ import annotations

from torch import nn

from mtrec.config import Model
from mtrec.models.sharing.mmoe import MMoE
from mtrec.models.sharing.ple import PLE
from mtrec.models.sharing.shared_bottom import SharedBottom


def make_sharing(config: Model, tasks: list[str], num_inputs: int, num_outputs: int) -> nn.Module:
    """Build the strategy for the tasks of one place: (…, num_inputs) → {task: (…, num_outputs)}."""
    if config.sharing == "mmoe":
        return MMoE(tasks, num_inputs, num_outputs, config.dropout, num_experts=config.experts)
    if config.sharing == "ple":
        return PLE(
            tasks,
            num_inputs,
            num_outputs,
            config.dropout,
            num_experts=config.experts,
            num_private=config.private_experts,
            num_levels=config.levels,
        )
    return SharedBottom(tasks, num_inputs, num_outputs, config.dropout)
