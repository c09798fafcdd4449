"""What the report shows of each task: bars, tables, slices, calibration, confusion, distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtrec.evaluation.notes import WITHIN_CHANCE, task_notes, within_chance
from mtrec.evaluation.plots import histogram_plot, reliability_plot
from mtrec.evaluation.wording import (
    TASK_KINDS,
    calibration,
    change,
    finite,
    metric_label,
    metric_meaning,
    number,
    percent,
    plural,
)

Json = Mapping[str, Any]

MAX_CLASSES = 20
"""Confusion matrices with more classes show the most frequent ones and one row for the rest."""

_DIRECTION = {True: "higher is better", False: "lower is better"}


def _primary(task: Json) -> tuple[str, Json]:
    metrics = task.get("metrics") or {}
    name = task.get("primary")
    if name not in metrics:
        name = next(iter(metrics), name)
    return str(name or ""), metrics.get(name) or {}


def _changed(task: Json, name: str, values: Json) -> dict[str, str]:
    """The change of a metric in words; of the primary one also whether chance alone could explain a loss."""
    told = change(values.get("before"), values.get("after"), bool(values.get("higher_is_better", True)))
    if told["kind"] == "worse" and name == task.get("primary") and within_chance(task, "before"):
        return {**told, "note": WITHIN_CHANCE}
    return {**told, "note": ""}


def _in_words(told: Json) -> str:
    return f"{told['text']} ({told['note']})" if told["note"] else str(told["text"])


def _spans(values: Sequence[float | None]) -> list[tuple[str, str] | None]:
    """(left, width) in percent of bars from zero on one common scale."""
    known = [v for v in values if v is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    width = (high - low) or 1.0
    return [
        None if not v else (f"{100 * (min(v, 0.0) - low) / width:.2f}", f"{100 * abs(v) / width:.2f}")
        for v in values
    ]


def before_after(index: int, name: str, task: Json) -> dict[str, Any]:
    """The bars of one task's primary metric: before, after and, where there is one, the champion."""
    metric, values = _primary(task)
    higher = bool(values.get("higher_is_better", True))
    shown = [("before", "before", values.get("before")), ("after", "after", values.get("after"))]
    if values.get("champion") is not None:
        shown.append(("champion", "champion", values.get("champion")))
    spans = _spans([finite(value) for _, _, value in shown])
    bars = [
        {"style": style, "label": label, "value": value, "span": span}
        for (style, label, value), span in zip(shown, spans, strict=True)
    ]
    told = _changed(task, metric, values)
    return {
        "anchor": f"task-{index}",
        "name": name,
        "metric": metric_label(metric) if metric else "no metric",
        "direction": _DIRECTION[higher],
        "bars": bars,
        "change": told,
        "alt": f"{name}, {metric_label(metric)}, {_DIRECTION[higher]}: "
        + ", ".join(f"{label} {number(value)}" for _, label, value in shown)
        + f"; {_in_words(told)}.",
    }


def task_section(index: int, name: str, task: Json) -> dict[str, Any]:
    """Everything the page shows of one task."""
    metric, values = _primary(task)
    higher = bool(values.get("higher_is_better", True))
    rows = {str(key): row for key, row in (task.get("metrics") or {}).items()}
    told = {key: _changed(task, key, row) for key, row in rows.items()}
    metrics = [_metric_row(key, row, key == metric, told[key]) for key, row in rows.items()]
    metrics.sort(key=lambda row: not row["primary"])
    protocols = {row["protocol"] for row in metrics}
    slices = _slices(task, metric, values, higher)
    slice_metrics = {row["metric"] for row in slices}
    return {
        "anchor": f"task-{index}",
        "name": name,
        "kind": TASK_KINDS.get(str(task.get("type")), str(task.get("type") or "")),
        "on": task.get("on"),
        "num_examples": task.get("num_examples"),
        "sentence": _sentence(metric, values, higher, told.get(metric, {})),
        "notes": task_notes(task),
        "metrics": metrics,
        "protocol": protocols.pop() if len(protocols) == 1 else None,
        "with_champion": any(row["champion"] is not None for row in metrics),
        "slices": slices,
        "slice_metric": slice_metrics.pop() if len(slice_metrics) == 1 else None,
        "reliability": _reliability(name, task.get("reliability")),
        "confusion": _confusion(task.get("confusion")),
        "histogram": _histogram(name, task.get("histogram")),
    }


def _metric_row(name: str, row: Json, primary: bool, told: Json) -> dict[str, Any]:
    higher = bool(row.get("higher_is_better", True))
    return {
        "label": metric_label(str(name)),
        "meaning": metric_meaning(str(name)),
        "primary": primary,
        "arrow": "↑" if higher else "↓",
        "direction": _DIRECTION[higher],
        "before": row.get("before"),
        "after": row.get("after"),
        "champion": row.get("champion"),
        "change": told,
        "protocol": str(row.get("protocol") or ""),
    }


def _sentence(metric: str, values: Json, higher: bool, told: Json) -> str:
    if not metric:
        return "No metric was computed."
    label, after = metric_label(metric), finite(values.get("after"))
    if after is None:
        return f"{label} could not be computed on this test part."
    if told["kind"] == "unknown":
        return f"{label} is {number(values.get('after'))} ({_DIRECTION[higher]})."
    if told["kind"] == "same":
        return f"Fine-tuning left {label} at {number(values.get('after'))}."
    way = "up" if after > (finite(values.get("before")) or 0.0) else "down"
    return (
        f"Fine-tuning brought {label} from {number(values.get('before'))} {way} to {number(values.get('after'))}: "
        f"{_in_words(told)}."
    )


def _slices(task: Json, metric: str, values: Json, higher: bool) -> list[dict[str, Any]]:
    rows = [dict(row) for row in task.get("slices") or []]
    if not rows:
        return []
    count = task.get("num_examples")
    if count is not None:
        left_out = {"lrap": "unranked", "cosine": "no_direction"}.get(metric, "")
        count -= (task.get("counts") or {}).get(left_out, 0)
    whole = {"slice": "all", "num_examples": count, "metric": metric, "whole": True}
    rows.insert(0, {**whole, "before": values.get("before"), "after": values.get("after")})
    directions = {
        str(name): bool(row.get("higher_is_better", True)) for name, row in (task.get("metrics") or {}).items()
    }
    points = [finite(row.get(key)) for row in rows for key in ("before", "after")]
    known = [p for p in points if p is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    pad = (high - low) * 0.06 or 0.5
    low, high = low - pad, high + pad
    shown = []
    for row in rows:
        better = directions.get(str(row.get("metric")), higher)
        ends = [finite(row.get(key)) for key in ("before", "after")]
        place = [None if v is None else f"{100 * (v - low) / (high - low):.2f}" for v in ends]
        told = {**change(row.get("before"), row.get("after"), better), "note": ""}
        if row.get("whole"):
            told = _changed(task, metric, values)
        shown.append(
            {
                "slice": str(row.get("slice", "")),
                "whole": bool(row.get("whole")),
                "metric": metric_label(str(row.get("metric") or metric)),
                "num_examples": row.get("num_examples"),
                "before": row.get("before"),
                "after": row.get("after"),
                "change": told,
                "place": place,
                "bridge": _bridge(ends, low, high),
                "alt": f"from {number(row.get('before'))} to {number(row.get('after'))}",
            }
        )
    return shown


def _bridge(ends: Sequence[float | None], low: float, high: float) -> tuple[str, str] | None:
    old, new = ends
    if old is None or new is None:
        return None
    width = high - low
    return f"{100 * (min(old, new) - low) / width:.2f}", f"{100 * abs(new - old) / width:.2f}"


def _reliability(name: str, reliability: Json | None) -> dict[str, Any] | None:
    if not reliability:
        return None
    bins = [dict(b) for b in reliability.get("bins") or []]
    points = []
    for b in bins:
        predicted, observed, count = (finite(b.get(key)) for key in ("predicted", "observed", "count"))
        if predicted is not None and observed is not None and count:
            points.append((predicted, observed, count))
    words = calibration(bins, reliability.get("ece"), reliability.get("uncalibrated_ece"))
    return {
        "plot": reliability_plot(sorted(points), f"Reliability curve of {name}. {words}"),
        "words": words,
        "ece": reliability.get("ece"),
        "uncalibrated_ece": reliability.get("uncalibrated_ece"),
        "temperature": reliability.get("temperature"),
        "bins": [{key: b.get(key) for key in ("predicted", "observed", "count")} for b in bins],
    }


def _histogram(name: str, histogram: Json | None) -> dict[str, Any] | None:
    if not histogram:
        return None
    edges, target, predicted = (list(histogram.get(key) or []) for key in ("edges", "target", "predicted"))
    plot = histogram_plot(edges, target, predicted, f"How often each value of {name} occurs and is predicted")
    if not plot:
        return None
    rows = list(zip(edges[:-1], edges[1:], target, predicted, strict=True))
    return {"plot": plot, "rows": rows}


def _confusion(confusion: Json | None) -> dict[str, Any] | None:
    if not confusion or not confusion.get("labels"):
        return None
    names = [str(label) for label in confusion["labels"]]
    whole = [[int(n) for n in row] for row in confusion["counts"]]
    labels, counts, merged = _fold(names, whole)
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = sum(row)
        rows.append({"label": label, "total": total, "cells": [_cell(n, total) for n in row]})
    mistakes = sorted(
        ((n, i, j) for i, row in enumerate(whole) for j, n in enumerate(row) if i != j and n),
        key=lambda found: (-found[0], found[1], found[2]),
    )
    return {
        "labels": labels,
        "rows": rows,
        "merged": merged,
        "single": len(labels) == 1,
        "mistakes": [
            {"actual": names[i], "taken": names[j], "count": n, "total": sum(whole[i])} for n, i, j in mistakes[:5]
        ],
        "note": f"The {MAX_CLASSES - 1} most frequent of {plural(merged + MAX_CLASSES - 1, 'class', 'classes')}; "
        "the others are one row and one column."
        if merged
        else "",
    }


def _cell(count: int, total: int) -> dict[str, Any]:
    share = count / total if total else 0.0
    return {
        "count": count,
        "percent": percent(share),
        "mix": f"{100 * share**0.7:.0f}",
        "strong": share > 0.75,
    }


def _fold(labels: list[str], counts: list[list[int]]) -> tuple[list[str], list[list[int]], int]:
    if len(labels) <= MAX_CLASSES:
        return labels, counts, 0
    by_size = sorted(range(len(labels)), key=lambda i: (-sum(counts[i]), i))
    kept = sorted(by_size[: MAX_CLASSES - 1])
    rest = sorted(by_size[MAX_CLASSES - 1 :])
    rows = [[*(counts[i][j] for j in kept), sum(counts[i][j] for j in rest)] for i in kept]
    rows.append([*(sum(counts[i][j] for i in rest) for j in kept), sum(counts[i][j] for i in rest for j in rest)])
    return [*(labels[i] for i in kept), f"{len(rest)} others"], rows, len(rest)


def comparison_rows(tasks: Json) -> list[dict[str, Any]]:
    """The forest plot against the champion.

    Every task's difference and interval are divided by the champion's value and turned so that the right side is
    better; all rows share one scale, symmetric around zero. A row whose champion value is missing or zero shows
    its numbers without a bar.
    """
    found = []
    for name, task in tasks.items():
        comparison = task.get("comparison")
        if not comparison:
            continue
        metric = str(comparison.get("metric") or task.get("primary") or "")
        values = (task.get("metrics") or {}).get(metric) or {}
        higher = bool(values.get("higher_is_better", True))
        base = finite(values.get("champion"))
        ends = [finite(comparison.get(key)) for key in ("low", "difference", "high")]
        share: list[float] | None = None
        if base and all(v is not None for v in ends):
            turn = 1.0 if higher else -1.0
            share = sorted(turn * v / abs(base) for v in ends if v is not None)
        found.append((name, metric, higher, comparison, share))
    reach = max((abs(v) for *_, share in found if share for v in share), default=0.0) * 1.1 or 1.0
    return [_forest_row(*row, reach) for row in found]


def _forest_row(
    name: str, metric: str, higher: bool, comparison: Json, share: list[float] | None, reach: float
) -> dict[str, Any]:
    verdict = str(comparison.get("verdict") or "")
    told = {"better": "better", "worse": "worse", "same": "no clear difference"}.get(verdict, verdict)
    level = percent(comparison.get("confidence"))
    row: dict[str, Any] = {
        "name": name,
        "metric": metric_label(metric),
        "direction": _DIRECTION[higher],
        "difference": comparison.get("difference"),
        "low": comparison.get("low"),
        "high": comparison.get("high"),
        "confidence": level,
        "groups": comparison.get("groups"),
        "drawn": comparison.get("drawn") or "groups",
        "verdict": verdict,
        "told": told,
        "point": None,
        "percent": None,
        "alt": f"{name}: {metric_label(metric)} differs by {number(comparison.get('difference'))}, "
        f"{level} interval {number(comparison.get('low'))} to {number(comparison.get('high'))}: {told}.",
    }
    if share is not None:
        low, point, high = (50 + 50 * v / reach for v in share)
        sign = "+" if share[1] > 0 else ""
        row.update(left=f"{low:.2f}", width=f"{high - low:.2f}", point=f"{point:.2f}")
        row["percent"] = sign + percent(share[1])
    return row
