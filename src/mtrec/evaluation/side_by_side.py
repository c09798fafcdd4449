"""Two evaluations side by side: every metric of every task, and which one is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one task."""

    task: str
    metric: str
    primary: bool
    higher_is_better: bool
    values: tuple[float | None, float | None]
    """None where a model lacks the task, or the metric was not measured."""
    better: int | None
    """0 or 1; None where they are equal or one is missing."""


def side_by_side(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Row]:
    """Put two evaluations beside each other.

    Args:
        one: content of evaluation.json.
        other: content of another.

    Returns:
        Each task's primary metric before its others; tasks in the order of the first one.
    """
    both = (one, other)
    rows = []
    for task in _ordered(*(evaluation["tasks"] for evaluation in both)):
        found = [evaluation["tasks"].get(task) or {} for evaluation in both]
        primary = found[0].get("primary") or found[1].get("primary")
        metrics = _ordered(*(result.get("metrics") or {} for result in found))
        for metric in sorted(metrics, key=lambda name: name != primary):
            measured = [(result.get("metrics") or {}).get(metric) for result in found]
            higher = any(values["higher_is_better"] for values in measured if values)
            one_value, other_value = (values["after"] if values else None for values in measured)
            rows.append(
                Row(
                    task=task,
                    metric=metric,
                    primary=metric == primary,
                    higher_is_better=higher,
                    values=(one_value, other_value),
                    better=_better(one_value, other_value, higher),
                )
            )
    return rows


def differing_basis(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What keeps the numbers from being compared directly, in words: other data or another split."""
    told = []
    for part, names in (
        ("dataset", {"num_interactions": "interactions", "num_test": "test rows", "last": "last day"}),
        ("protocol", {"split": "split", "ranking": "ranking"}),
    ):
        for key, name in names.items():
            values = [(evaluation.get(part) or {}).get(key) for evaluation in (one, other)]
            if values[0] != values[1]:
                told.append(f"{name} {values[0]} and {values[1]}")
    return told


def _ordered(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))


def _better(one: float | None, other: float | None, higher: bool) -> int | None:
    if one is None or other is None or one == other:
        return None
    return int((other > one) == higher)
