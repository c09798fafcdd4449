"""From predictions before, after and of the champion to one evaluation, as JSON types.

Shapes: X examples, V label values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtrec.config import Binary, Classification, MultiLabel, NextItem, Profile, Regression, Scenario, Split, Task
from mtrec.data.labels import Label
from mtrec.evaluation import metrics as m
from mtrec.evaluation.calibration import uncalibrated
from mtrec.evaluation.compare import RESAMPLES, Comparison, compare, compare_values
from mtrec.evaluation.predict import Predictions, Ranked
from mtrec.evaluation.slices import Slices
from mtrec.models.recommender import Recommender

MIN_SLICE = 10
"""Slices with fewer examples are not reported."""
HISTOGRAM_BINS = 20


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one model said on the test part."""

    rows: dict[str, Predictions]
    rankings: dict[str, list[Ranked]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The models that are compared on one dataset; `champion` is None where there is none yet."""

    before: Answers
    after: Answers
    champion: Answers | None


def protocol(split: Split, start: Recommender) -> dict[str, str]:
    """How every number was measured.

    Args:
        split: of the scenario.
        start: the model before fine-tuning, of which the text says what it already knows.
    """
    known = ["heads at the averages of the training rows"]
    if start.habits.width:
        known.append("user tasks at the shares of what the user took")
    if start.posteriors:
        known.append("posteriors of ratings in closed form")
    if start.factors is not None:
        known.append("user and item biases fitted in closed form")
    if start.neighbours is not None:
        known.append("counted item neighbours")
    parts = {
        "time": "the latest interactions by time are the test part, and a user's history ends where it begins",
        "random": "test interactions are drawn at random, and a user's history is their interactions outside it",
        "leave_last_out": "each user's test part begins where the last new item appears, and the history is all "
        "before it",
        "cold_items": "test interactions are those on items drawn by a hash of their id, which no training "
        "interaction names, and a user's history is their interactions on other items",
    }
    return {
        "split": split.by,
        "seen_items": "excluded",
        "ranking": "full",
        "tie_order": "mean rank of ties",
        "text": f"{parts[split.by].capitalize()}; rankings are over all items the user has not seen; items of "
        "equal score share their mean rank. Item and user labels are tested on rows held out by a hash of their "
        "id. Intervals, against the model before fine-tuning and against the champion, come from "
        f"{RESAMPLES:,} draws of whole users, or of items where a task is about items. Before fine-tuning means: "
        f"the pretrained encoder with {', '.join(known[:-1])}{' and ' if known[1:] else ''}{known[-1]}.",
    }


def judge(
    judged: Judged, scenario: Scenario, labels: Mapping[str, Label], slices: Slices, num_items: int
) -> dict[str, Any]:
    """The `tasks` section of an evaluation: metrics, slices, counts, comparison and curves of every task.

    Every model is measured on the same rows: those of the candidate's targets, see `metrics.measured_rows`. A task
    of which no row can be measured counts as one without test examples. A yes-no task with one class alone has no
    AUC, so no improvement and no comparison either; its other metrics stay.

    Args:
        judged: predictions of the models on the same rows.
        scenario: declares the tasks and the gate's confidence.
        labels: vocabularies of the targets.
        slices: membership of items and users.
        num_items: size of the catalogue, for coverage.
    """
    return {
        name: _judge_ranking(name, task, judged, scenario, slices, num_items)
        if isinstance(task, NextItem)
        else _judge_rows(name, task, judged, scenario, labels[name], slices)
        for name, task in scenario.tasks.items()
    }


def _judge_rows(
    name: str, task: Task, judged: Judged, scenario: Scenario, label: Label, slices: Slices
) -> dict[str, Any]:
    before, after = judged.before.rows.get(name), judged.after.rows.get(name)
    if before is None or after is None:
        return _empty(task)
    measured = m.measured_rows(task, after.target)
    if not measured.any():
        return {**_empty(task), "counts": _counts(task, after)}
    champion = judged.champion.rows.get(name) if judged.champion else None
    primary = m.PRIMARY[task.type]
    values = [m.compute(task, p.target, p.predicted, p.thresholds) if p else {} for p in (before, after, champion)]

    def against(other: Predictions | None) -> dict[str, Any] | None:
        if other is None or math.isnan(values[1][primary]):
            return None
        groups_X = after.item if task.on == "item" else after.user
        found = compare(
            task,
            primary,
            after.target,
            after.predicted,
            other.predicted,
            scenario.gate.confidence,
            groups_X=groups_X,
        )
        return _compared(task, found)

    return {
        **_header(task, len(after.target)),
        "metrics": _metrics(values, scenario.split),
        "counts": _counts(task, after),
        "slices": _row_slices(task, before, after, measured, slices),
        "improvement": against(before),
        "comparison": against(champion),
        **_curves(task, after, label),
    }


def _judge_ranking(
    name: str, task: Task, judged: Judged, scenario: Scenario, slices: Slices, num_items: int
) -> dict[str, Any]:
    before, after = judged.before.rankings[name], judged.after.rankings[name]
    if not after:
        return _empty(task)
    champion = judged.champion.rankings.get(name) if judged.champion else None

    def against(other: list[Ranked] | None) -> dict[str, Any] | None:
        if not other:
            return None
        gains = [np.array([u.metrics[m.PRIMARY["next_item"]] for u in users]) for users in (after, other)]
        found = compare_values(m.PRIMARY["next_item"], gains[0], gains[1], scenario.gate.confidence)
        return _compared(task, found)

    values = [_ranking_metrics(users, num_items) for users in (before, after, champion or [])]
    return {
        **_header(task, len(after)),
        "metrics": _metrics(values, scenario.split, ranked=True),
        "counts": {},
        "slices": _ranking_slices(before, after, slices),
        "improvement": against(before),
        "comparison": against(champion),
        "reliability": None,
        "confusion": None,
        "histogram": None,
    }


def _ranking_metrics(users: list[Ranked], num_items: int) -> dict[str, float]:
    values = m.ranking([u.metrics for u in users])
    if users:
        values[f"coverage@{m.CUTOFFS[0]}"] = len(np.unique(np.concatenate([u.top for u in users]))) / num_items
    return values


def _header(task: Task, num_examples: int) -> dict[str, Any]:
    return {"type": task.type, "on": task.on, "primary": m.PRIMARY[task.type], "num_examples": num_examples}


def _empty(task: Task) -> dict[str, Any]:
    nothing: dict[str, Any] = {"metrics": {}, "counts": {}, "slices": [], "improvement": None, "comparison": None}
    return {**_header(task, 0), **nothing, "reliability": None, "confusion": None, "histogram": None}


def _counts(task: Task, after: Predictions) -> dict[str, int]:
    """What the metrics treat apart: see `mtrec.evaluation.notes.task_notes` for each in words."""
    counts = {}
    if isinstance(task, Classification):
        counts["unseen_class"] = int((after.target == m.UNSEEN).sum())
    if isinstance(task, Binary):
        counts["positives"] = int((after.target > 0.5).sum())
        counts["negatives"] = len(after.target) - counts["positives"]
    if isinstance(task, Profile):
        counts["no_direction"] = int((~m.measured_rows(task, after.target)).sum())
    if isinstance(task, MultiLabel):
        counts["unranked"] = int((~m.ranked_rows(after.target)).sum())
    if after.outside is not None:
        counts["outside_values"] = int(after.outside.sum())
    return counts


def _compared(task: Task, comparison: Comparison) -> dict[str, Any]:
    return {**comparison.as_dict(), "drawn": "items" if task.on == "item" else "users"}


def _metrics(values: list[dict[str, float]], split: Split, *, ranked: bool = False) -> dict[str, Any]:
    before, after, champion = values
    stamp = f"split={split.by}" + (", seen=excluded, ties=mean rank" if ranked else "")
    return {
        name: {
            "higher_is_better": m.higher_is_better(name),
            "before": _finite(before.get(name)),
            "after": _finite(value),
            "champion": _finite(champion.get(name)),
            "protocol": stamp,
        }
        for name, value in after.items()
    }


def _row_slices(
    task: Task, before: Predictions, after: Predictions, measured: np.ndarray, slices: Slices
) -> list[dict[str, Any]]:
    metric = m.PRIMARY[task.type]
    whole = {
        **{name: (after.item >= 0) & mask[np.maximum(after.item, 0)] for name, mask in slices.items.items()},
        **{name: (after.user >= 0) & mask[np.maximum(after.user, 0)] for name, mask in slices.users.items()},
    }
    members = {name: inside & measured for name, inside in whole.items()}
    return [
        {
            "slice": name,
            "num_examples": int(inside.sum()),
            "metric": metric,
            "before": _finite(m.compute(task, before.target[inside], before.predicted[inside])[metric]),
            "after": _finite(m.compute(task, after.target[inside], after.predicted[inside])[metric]),
        }
        for name, inside in members.items()
        if inside.sum() >= MIN_SLICE
    ]


def _ranking_slices(before: list[Ranked], after: list[Ranked], slices: Slices) -> list[dict[str, Any]]:
    found = []
    for name, mask in slices.items.items():
        pairs = [(b.ranks[mask[b.relevant]], a.ranks[mask[a.relevant]]) for b, a in zip(before, after, strict=True)]
        found.append((name, [p for p in pairs if len(p[0])]))
    for name, mask in slices.users.items():
        chosen = [(b.ranks, a.ranks) for b, a in zip(before, after, strict=True) if mask[a.user]]
        found.append((name, chosen))
    metric = m.PRIMARY["next_item"]
    return [
        {
            "slice": name,
            "num_examples": len(pairs),
            "metric": metric,
            "before": float(np.mean([m.ranking_of_user(b)[metric] for b, _ in pairs])),
            "after": float(np.mean([m.ranking_of_user(a)[metric] for _, a in pairs])),
        }
        for name, pairs in found
        if len(pairs) >= MIN_SLICE
    ]


def _curves(task: Task, after: Predictions, label: Label) -> dict[str, Any]:
    curves: dict[str, Any] = {"reliability": None, "confusion": None, "histogram": None}
    if isinstance(task, (Binary, Classification, MultiLabel)):
        curves["reliability"] = _reliability(task, after)
    if isinstance(task, Classification):
        size = len(label.values)
        counts = np.zeros((size, size), dtype=int)
        seen = after.target != m.UNSEEN
        np.add.at(counts, (after.target[seen].astype(int), after.predicted[seen].argmax(1)), 1)
        curves["confusion"] = {"labels": label.values, "counts": counts.tolist()}
    if isinstance(task, Regression):
        both = np.concatenate([after.target, after.predicted])
        edges = np.histogram_bin_edges(both, bins=HISTOGRAM_BINS)
        curves["histogram"] = {
            "edges": edges.tolist(),
            "target": np.histogram(after.target, edges)[0].tolist(),
            "predicted": np.histogram(after.predicted, edges)[0].tolist(),
        }
    return curves


def _reliability(task: Task, after: Predictions) -> dict[str, Any]:
    """The reliability curve and its ECE; where a temperature was fitted, that and the ECE without it too."""
    came_true, probability = m.decisions(task, after.target, after.predicted)
    found: dict[str, Any] = {
        "ece": m.expected_calibration_error(came_true, probability),
        "bins": m.reliability(came_true, probability),
    }
    if after.temperature != 1:
        plain = m.decisions(task, after.target, uncalibrated(task, after))
        found["temperature"], found["uncalibrated_ece"] = after.temperature, m.expected_calibration_error(*plain)
    return found


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def align(predicted_XV: np.ndarray, values: list[str], wanted: list[str], fill: float = 0.0) -> np.ndarray:
    """Bring columns of another vocabulary into this one's order; a value the other never knew gets 0. (X, V)."""
    place = {value: i for i, value in enumerate(values)}
    out = np.full((len(predicted_XV), len(wanted)), fill, dtype=predicted_XV.dtype)
    for i, value in enumerate(wanted):
        if value in place:
            out[:, i] = predicted_XV[:, place[value]]
    return out
