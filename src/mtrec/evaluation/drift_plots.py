"""Drawings of drift: one statistic over the windows with its limit, and all of them on one sheet.

They take windows as plain data, as `mtrec.drift.windows.Window.as_dict` tells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from mtrec.evaluation.drawing import drawing, line_at, px, text_at, tick_text, value_range
from mtrec.evaluation.plots import nice_ticks

Json = Mapping[str, Any]
WIDE, HEIGHT = 340.0, 150.0
COLUMNS = 3
"""Drawings beside each other on a sheet."""
_ALONE = """
svg { font-family: system-ui, sans-serif; }
rect.paper { fill: #fff; }
text { fill: #566072; font-size: 11px; }
.strip { font-size: 13px; fill: #1c2430; font-weight: 600; }
polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
polyline.after { stroke: #0072b2; stroke-width: 2.2; }
polyline.limit { stroke: #8a93a3; stroke-width: 1.4; stroke-dasharray: 5 4; }
.dot.after { fill: #0072b2; }
.dot.moved { fill: #b23c06; }
.grid { stroke: #e4e2db; }
.axis { stroke: #8a93a3; }
.retrain { stroke: #00735a; stroke-width: 1.6; }
"""
STYLE = """
svg polyline.limit { stroke: var(--faint); stroke-width: 1.4; stroke-dasharray: 5 4; }
svg .dot.moved { fill: var(--bad); }
svg .retrain { stroke: var(--good); stroke-width: 1.6; }
.wide svg { max-width: none; }
@media screen and (max-width: 720px) { .rules { min-width: 680px; } }
"""
"""What the report's style sheet lacks for these drawings."""


def statistic_names(windows: Sequence[Json]) -> list[str]:
    """Names of all statistics, those that came nearest to their limit, or went farthest beyond, first."""
    reach: dict[str, float] = {}
    for window in windows:
        for s in window["statistics"]:
            reach[s["name"]] = max(reach.get(s["name"], -1.0), s["value"] / max(s["limit"], 1e-9))
    return sorted(reach, key=lambda name: (-reach[name], name))


def statistic_plot(name: str, windows: Sequence[Json], marks: Sequence[str] = ()) -> Markup:
    """One statistic over the windows: its value, the limit (dashed), and where it drifted (red and square).

    Args:
        name: of the statistic; windows that do not have it are gaps.
        windows: with `start`, `end` and `statistics`.
        marks: ISO times of retrainings, drawn as vertical lines.

    Returns:
        The SVG element; nothing where no window has the statistic.
    """
    found = [(_day(w["end"]), s) for w in windows for s in w["statistics"] if s["name"] == name]
    if not found:
        return Markup("")
    left, right, upper, lower = 40.0, WIDE - 10.0, 8.0, HEIGHT - 24.0
    times = [_day(w["end"]) for w in windows]
    first, last = min(times), max(times)
    low, high = value_range([0.0, *(s["value"] for _, s in found), *(s["limit"] for _, s in found)])

    def across(time: float) -> float:
        return left + 10 + ((time - first) / (last - first) if last > first else 0.5) * (right - left - 20)

    def up(value: float) -> float:
        return lower - (value - low) / (high - low) * (lower - upper)

    parts = []
    for tick in nice_ticks(low, high, 4):
        parts += [line_at(left, up(tick), right, up(tick), "grid")]
        parts += [text_at(left - 6, up(tick) + 3.5, tick_text(tick), "tick", "end")]
    for mark in marks:
        if first <= _day(mark) <= last:
            parts.append(line_at(across(_day(mark)), upper, across(_day(mark)), lower, "retrain"))
    for style, key in (("limit", "limit"), ("after", "value")):
        points = [(across(time), up(s[key])) for time, s in found]
        if len(points) == 1:  # a level needs some length to be seen
            points = [(left, points[0][1]), (right, points[0][1])] if key == "limit" else []
        told = " ".join(f"{px(x)},{px(y)}" for x, y in points)
        parts += [f'<polyline class="{style}" points="{told}"/>'] if points else []
    parts += [_dot(across(time), up(s["value"]), s) for time, s in found]
    ends = {first: "start", last: "end"} if last > first else {first: "middle"}
    for time, anchor in ends.items():
        place = {"start": left, "end": right, "middle": across(time)}[anchor]
        parts.append(text_at(place, HEIGHT - 8, _date(time), "tick", anchor))
    moved = sum(bool(s["drifted"]) for _, s in found)
    return drawing(HEIGHT, f"{name} drifted in {moved} of {len(found)} windows.", parts, width=WIDE)


def sheet(windows: Sequence[Json], marks: Sequence[str] = ()) -> str:
    """All statistics as one SVG file, with the colours in it."""
    parts, room = [], 30.0
    names = statistic_names(windows)
    for index, name in enumerate(names):
        x, y = 16 + index % COLUMNS * (WIDE + 24), 16 + index // COLUMNS * (HEIGHT + room)
        parts.append(f'<text class="strip" x="{x:g}" y="{y + 12:g}">{escape(name)}</text>')
        place = f'<svg x="{x:g}" y="{y + 20:g}" width="{WIDE:g}" height="{HEIGHT:g}" '
        parts.append(str(statistic_plot(name, windows, marks)).replace("<svg ", place, 1))
    width = COLUMNS * (WIDE + 24) + 8
    height = 26 + max(-(-len(names) // COLUMNS), 1) * (HEIGHT + room)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}"><style>{_ALONE}</style>'
        f'<rect class="paper" width="{width:g}" height="{height:g}"/>{"".join(parts)}</svg>\n'
    )


def _dot(x: float, y: float, statistic: Json) -> str:
    title = f"<title>{escape(statistic['why'])}</title>"
    if statistic["drifted"]:  # a shape of its own, for those who do not see the colour
        return f'<rect class="dot moved" x="{px(x - 4.5)}" y="{px(y - 4.5)}" width="9" height="9">{title}</rect>'
    return f'<circle class="dot after" cx="{px(x)}" cy="{px(y)}" r="3.4">{title}</circle>'


def _day(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _date(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d}"
