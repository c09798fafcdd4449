"""How large each part of a model is."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mtrec.models.ensemble import Ensemble
from mtrec.models.recommender import Recommender

_PARTS = {
    "encoder": "encoder",
    "items": "items",
    "users": "users",
    "factors": "pair factors",
    "bottoms": "sharing",
    "heads": "heads",
    "rankers": "heads",
    "neighbours": "heads",
}
"""Module of the model → the part it counts to; any other module is a part of its own name."""


def model_size(model: Recommender) -> dict[str, Any]:
    """Count parameters.

    Returns:
        `parts`: parameters by part, in the order of the data's way through the model; they add up to all.
        `trained_encoder`: those of the encoder that fine-tuning changes. `neighbours_table`: numbers in the table
        of item neighbours, which is counted from the data, not learned, so it is in no part; 0 without one.
        Of an ensemble: what its members have together.
    """
    if isinstance(model, Ensemble):
        return _together([model_size(member) for member in model.each()])
    found = Counter[str]()
    for name, parameter in model.named_parameters():
        module = name.partition(".")[0]
        found[_PARTS.get(module, module)] += parameter.numel()
    order = [*dict.fromkeys(_PARTS.values()), *found]
    table = [] if model.neighbours is None else list(model.neighbours.buffers())
    return {
        "parts": {part: found[part] for part in dict.fromkeys(order) if found[part]},
        "trained_encoder": sum(p.numel() for p in model.encoder.parameters() if p.requires_grad),
        "neighbours_table": sum(buffer.numel() for buffer in table),
    }


def _together(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    parts = Counter[str]()
    for size in sizes:
        parts.update(size["parts"])
    return {
        "parts": dict(parts),
        **{key: sum(s[key] for s in sizes) for key in ("trained_encoder", "neighbours_table")},
    }
