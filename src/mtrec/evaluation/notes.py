"""Sentences of the report on what the numbers leave out, and on what was not compared with the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrec.evaluation.wording import and_list

Json = Mapping[str, Any]

_NOTES = {
    "unseen_class": (
        "test example is of a class that training never saw. It counts as wrong; the log loss and the table of "
        "what is taken for what leave it out.",
        "test examples are of classes that training never saw. They count as wrong; the log loss and the table of "
        "what is taken for what leave them out.",
    ),
    "unranked": (
        "test example carries none or all of the labels. No order of its labels could be wrong, so LRAP leaves it "
        "out.",
        "test examples carry none or all of the labels. No order of their labels could be wrong, so LRAP leaves "
        "them out.",
    ),
    "outside_values": (
        "label value of the test examples is unknown here, because training has it never or too rarely. No metric "
        "counts it.",
        "label values of the test examples are unknown here, because training has them never or too rarely. No "
        "metric counts them.",
    ),
}
"""Key of a task's `counts` → words behind a count of one, and behind a larger one."""


def task_notes(task: Json) -> list[dict[str, Any]]:
    """Count and sentence of everything that a task's metrics treat apart; nothing where there is none of it."""
    counts = task.get("counts") or {}
    return [
        {"count": counts[key], "text": one if counts[key] == 1 else many}
        for key, (one, many) in _NOTES.items()
        if counts.get(key)
    ]


def champion_notes(evaluation: Json) -> list[str]:
    """Which tasks were not compared with the champion and why, and whether it may know the test rows."""
    champion = evaluation.get("champion")
    if not isinstance(champion, Mapping):
        return []
    told = []
    if champion.get("other_split"):
        told.append(
            f"The champion was trained on another split ({', '.join(champion['other_split'])}), so it may have "
            "learned from these test rows and look better than it is."
        )
    theirs = champion.get("tasks")
    if not theirs:
        return told
    ours = evaluation.get("tasks") or {}
    dropped = [name for name in theirs if name not in ours]
    new = [name for name in ours if name not in theirs]
    lacking = {name: task for name, task in ours.items() if name in theirs and not task.get("comparison")}
    other = [name for name, task in lacking.items() if task.get("metrics")]
    empty = [name for name in lacking if name not in other]
    if dropped:
        told.append(f"The champion also has {and_list(dropped)}, which this model lacks.")
    if new:
        told.append(f"New in this model, so without a comparison: {and_list(new)}.")
    if other:
        told.append(f"Declared differently than in the champion, so without a comparison: {and_list(other)}.")
    if empty:
        told.append(f"Without a test example, so without a comparison: {and_list(empty)}.")
    return told
