"""Sentences of the report on what the numbers leave out, and on what was not compared with the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrec.evaluation.wording import and_list, finite, metric_label, plural

Json = Mapping[str, Any]

FEW = 10
"""With fewer examples of yes, or of no, the report and the gate say that AUC rests on little."""
WITHIN_CHANCE = "within chance"

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
    "no_direction": (
        "test example has none of the labels in its profile. It has no direction, so the cosine leaves it out.",
        "test examples have none of the labels in their profiles. They have no direction, so the cosine leaves "
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
    """Count (or None) and sentence of all that a task's metrics treat apart or rest on too little of."""
    counts = task.get("counts") or {}
    few = few_of_a_class(task)
    label = metric_label(str(task.get("primary") or ""))
    so = "cannot be measured" if few.startswith("no ") else "and its interval rest on very little"
    first = [{"count": None, "text": f"{few[0].upper()}{few[1:]}, so {label} {so}."}] if few else []
    return first + [
        {"count": counts[key], "text": one if counts[key] == 1 else many}
        for key, (one, many) in _NOTES.items()
        if counts.get(key)
    ]


def few_of_a_class(task: Json) -> str:
    """`only 1 positive among 170 test rows` where a yes-no task has fewer than `FEW` of a class, else nothing."""
    counts = task.get("counts") or {}
    if "positives" not in counts or "negatives" not in counts:
        return ""
    total = counts["positives"] + counts["negatives"]
    count, name = min((counts[f"{name}s"], name) for name in ("positive", "negative"))
    if count >= FEW or not total:
        return ""
    found = f"only {plural(count, name)}" if count else f"no {name}"
    return f"{found} among {plural(total, 'test row')}"


def is_measured(task: Json) -> bool:
    """Whether a task's primary metric has a value after fine-tuning."""
    values = (task.get("metrics") or {}).get(task.get("primary")) or {}
    return finite(values.get("after")) is not None


def within_chance(task: Json, against: str) -> bool:
    """Whether a task's primary metric is worse than another model's and its interval covers no difference.

    Args:
        task: of an evaluation.
        against: `before` for the model before fine-tuning, or `champion`.
    """
    values = (task.get("metrics") or {}).get(task.get("primary")) or {}
    comparison = task.get("improvement" if against == "before" else "comparison") or {}
    after, other = finite(values.get("after")), finite(values.get(against))
    if after is None or other is None or after == other:
        return False
    worse = (after < other) == bool(values.get("higher_is_better", True))
    return worse and comparison.get("verdict") == "same"


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
    empty = [name for name, task in lacking.items() if not task.get("metrics")]
    unmeasured = [name for name, task in lacking.items() if name not in empty and not is_measured(task)]
    other = [name for name in lacking if name not in empty and name not in unmeasured]
    if dropped:
        told.append(f"The champion also has {and_list(dropped)}, which this model lacks.")
    if new:
        told.append(f"New in this model, so without a comparison: {and_list(new)}.")
    if other:
        told.append(f"Declared differently than in the champion, so without a comparison: {and_list(other)}.")
    if unmeasured:
        told.append(f"Not measurable on this test part, so without a comparison: {and_list(unmeasured)}.")
    if empty:
        told.append(f"Without a test example, so without a comparison: {and_list(empty)}.")
    return told
