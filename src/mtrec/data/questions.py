"""Whether two models' tasks of the same name ask the same."""

from __future__ import annotations

from typing import Any

from mtrec.config import Task


def same_question(a: Task, b: Task) -> bool:
    """Whether two tasks ask the same; they may differ in the settings that say how it is learned."""
    return _question(a) == _question(b)


def _question(task: Task) -> dict[str, Any]:
    asked = {name: getattr(task, name, None) for name in ("type", "on", "label", "threshold")}
    events = {name: set(getattr(task, name, [])) for name in ("exposure", "positive", "events")}
    ahead = task.on == "user" and task.label_table == "items"
    return {**asked, **events, "horizon": task.horizon if ahead else None}
