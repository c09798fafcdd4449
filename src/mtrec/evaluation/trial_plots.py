"""Drawings of a search: its trials one after the other, the weight of each parameter, all parameters side by side.

They take the trials as plain data, as `mtrec.training.trials` tells them; nothing here knows Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from mtrec.evaluation.drawing import drawing, line_at, px, text_at, tick_text, value_range
from mtrec.evaluation.plots import nice_ticks
from mtrec.evaluation.wording import number, percent

WIDE = 760
Json = Mapping[str, Any]
_TOP = 0.2
"""Share of the complete trials that stand out as the best ones."""
_LETTER = 7.0
"""Width of a letter beside an axis."""


def history_plot(trials: Sequence[Json]) -> Markup:
    """The value of every trial by its number, and the best so far as a line.

    Args:
        trials: mappings with `number`, `state` and `value`; those without a value are left out.

    Returns:
        The SVG element; nothing where no trial has a value.
    """
    known = [trial for trial in trials if trial["value"] is not None and trial["state"] in ("complete", "pruned")]
    if not known:
        return Markup("")
    left, right, upper, lower = 44.0, WIDE - 12.0, 26.0, 220.0
    last = max(trial["number"] for trial in known)
    low, high = value_range([*(trial["value"] for trial in known), 1.0])

    def across(n: float) -> float:
        return left + 8 + n / max(last, 1) * (right - left - 16)

    def up(value: float) -> float:
        return lower - (value - low) / (high - low) * (lower - upper)

    parts = [text_at(0, 13, "Value", "strip")]
    for tick in nice_ticks(low, high, 6):
        parts += [line_at(left, up(tick), right, up(tick), "grid")]
        parts += [text_at(left - 6, up(tick) + 3.5, tick_text(tick), "tick", "end")]
    parts += [line_at(left, up(1), right, up(1), "ideal")]
    best, top = -math.inf, None
    steps: list[tuple[float, float]] = []
    for trial in known:
        if trial["state"] == "complete" and trial["value"] > best:
            if steps:
                steps.append((across(trial["number"]), up(best)))
            best, top = trial["value"], trial
            steps.append((across(trial["number"]), up(best)))
    if top is not None:
        steps.append((across(last), up(best)))
        parts.append(f'<polyline class="after" points="{" ".join(f"{px(x)},{px(y)}" for x, y in steps)}"/>')
    parts += [_trial_dot(trial, across(trial["number"]), up(trial["value"])) for trial in known]
    whole = [tick for tick in nice_ticks(0, last, 8) if tick == int(tick)] or [0.0]
    parts += [text_at(across(tick), lower + 16, tick_text(tick), "tick", "middle") for tick in whole]
    parts += [text_at(left, lower + 33, "trial", "tick"), *_legend(right, 13)]
    told = (
        f"The best of {len(known)} trials is trial {top['number']} with {number(best)}."
        if top
        else "No trial ended."
    )
    return drawing(lower + 40, told, parts, width=WIDE)


def importance_plot(importance: Mapping[str, float]) -> Markup:
    """Bars: how much each parameter decides whether a trial is among the best.

    Args:
        importance: setting → share of 1, highest first.
    """
    if not importance:
        return Markup("")
    left, right, row = 210.0, WIDE - 60.0, 24
    most = max(*importance.values(), 1e-9)
    parts = []
    for index, (path, share) in enumerate(importance.items()):
        y = index * row
        parts.append(text_at(left - 10, y + 16, path, "tick", "end"))
        width = max((right - left) * share / most, 1.0)
        parts.append(f'<rect class="bar" x="{px(left)}" y="{px(y + 6)}" width="{px(width)}" height="13" rx="3"/>')
        parts.append(text_at(left + width + 7, y + 16, percent(share), "tick"))
    first = next(iter(importance))
    return drawing(len(importance) * row + 4, f"{first} matters most.", parts, width=WIDE)


def parallel_plot(trials: Sequence[Json], space: Mapping[str, Json]) -> Markup:
    """One vertical axis per parameter and one for the value; each complete trial is a line through its values.

    Args:
        trials: mappings with `state`, `value` and `point`.
        space: setting → `low`, `high` and `log`, or `choices`, in the order of the axes.
    """
    complete = [trial for trial in trials if trial["state"] == "complete" and set(space) <= set(trial["point"])]
    if len(complete) < 2 or not space:
        return Markup("")
    upper, lower, left, right = 74.0, 270.0, 40.0, WIDE - 46.0
    axes = [*space, "value"]
    places = {path: left + i / (len(axes) - 1) * (right - left) for i, path in enumerate(axes)}
    low, high = value_range([trial["value"] for trial in complete])
    ranges: dict[str, Json] = {**space, "value": {"low": low, "high": high}}
    ranked = sorted(complete, key=lambda trial: float(trial["value"]))
    num_top = max(round(_TOP * len(ranked)), 1)
    parts = []
    names = _short(axes)
    for index, trial in enumerate(ranked):
        values = {**trial["point"], "value": trial["value"]}
        where = [(places[p], lower - _share(ranges[p], values[p]) * (lower - upper)) for p in axes]
        style = "after" if index == len(ranked) - 1 else "good" if index >= len(ranked) - num_top else "rest"
        path = " ".join(f"{px(x)},{px(y)}" for x, y in where)
        told = f"trial {trial['number']}: {number(trial['value'])}"
        parts.append(f'<polyline class="{style}" points="{path}"><title>{escape(told)}</title></polyline>')
    room = max(int((right - left) / (len(axes) - 1) / _LETTER), 3)
    for path in axes:
        parts += _axis(names[path], ranges[path], places[path], (upper, lower), room)
    best = ranked[-1]
    label = f"Parameters of {len(ranked)} trials; the best, trial {best['number']}, stands out."
    return drawing(lower + 26, label, parts, width=WIDE)


def _trial_dot(trial: Json, x: float, y: float) -> str:
    style = "after dot" if trial["state"] == "complete" else "ring"
    told = f"trial {trial['number']}, {trial['state']}: {number(trial['value'])}"
    return f'<circle class="{style}" cx="{px(x)}" cy="{px(y)}" r="4"><title>{escape(told)}</title></circle>'


def _legend(right: float, y: float) -> list[str]:
    parts, x = [], right
    for style, word in (("ideal", "the scenario's settings"), ("ring", "pruned"), ("after dot", "complete")):
        parts.append(text_at(x, y, word, "tick", "end"))
        x -= 5.7 * len(word) + 10
        if style == "ideal":
            parts.append(line_at(x - 14, y - 3.5, x, y - 3.5, style))
            x -= 26
        else:
            parts.append(f'<circle class="{style}" cx="{px(x - 4)}" cy="{px(y - 4)}" r="4"/>')
            x -= 20
    return parts


def _short(paths: Sequence[str]) -> dict[str, str]:
    """Each setting's last word, of a task's weight the task; in full where two would be called the same."""
    parts = {path: path.removesuffix(".weight").rpartition(".")[2] for path in paths}
    return {path: short if list(parts.values()).count(short) == 1 else path for path, short in parts.items()}


def _axis(name: str, parameter: Json, x: float, ends: tuple[float, float], room: int) -> list[str]:
    """An axis with its name and its values; these are cut off after `room` letters."""
    upper, lower = ends
    parts = [line_at(x, upper, x, lower, "axis")]
    parts.append(
        f'<text class="tick" transform="translate({px(x - 3)} {px(upper - 18)}) rotate(-24)">{escape(name)}</text>'
    )
    choices = parameter.get("choices")
    if choices is not None:
        marks = [(_share(parameter, choice), "none" if choice is None else str(choice)) for choice in choices]
    else:
        marks = [(0.0, _end(parameter["low"])), (1.0, _end(parameter["high"]))]
    for share, told in marks:
        cut = told if len(told) <= room else f"{told[: room - 1]}…"
        parts.append(text_at(x + 4, lower - share * (lower - upper) + (11 if share == 0 else -4), cut, "tick"))
    return parts


def _end(value: float) -> str:
    return f"{value:.3g}"


def _share(parameter: Json, value: Any) -> float:
    """Where a value lies on its axis, from 0 to 1."""
    choices = parameter.get("choices")
    if choices is not None:
        return choices.index(value) / max(len(choices) - 1, 1)
    low, high, x = parameter["low"], parameter["high"], value
    if parameter.get("log"):
        low, high, x = math.log(low), math.log(high), math.log(x)
    return min(max((x - low) / (high - low), 0.0), 1.0)
