"""Small SVG plots for the report, drawn by hand.

Colours come from the page's style sheet through classes, so that one drawing serves the light and the dark
scheme and print. Every drawing is a few kilobytes, the same for the same input, and carries its message as text
(`aria-label`). A drawing is about as many units wide as it gets pixels, so that the letters stay readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from mtrec.evaluation.drawing import WIDTH, drawing, line_at, px, text_at, tick_text, value_range
from mtrec.evaluation.wording import number

NARROW = 300
"""Width of the learning curves, which stand three in a row."""
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of points; `style` is a class of the style sheet."""

    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One coordinate system of a drawing: a title, lines and a vertical range found from the points."""

    title: str
    series: Sequence[Series]
    height: int = 110
    legend: Sequence[tuple[str, str]] = field(default=())
    """(style, label) pairs drawn at the right of the title."""


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that lie in [low, high], their distance 1, 2, 2.5 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    choices = [_multiples(m * power, low, high) for m in (1, 2, 2.5, 5, 10)]
    return min(choices, key=lambda ticks: (len(ticks) < 2, abs(len(ticks) - count)))


def _multiples(step: float, low: float, high: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def thin(points: Sequence[Point], limit: int = 200) -> list[Point]:
    """Average neighbouring points until at most `limit` are left; non-finite points are dropped."""
    clean = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(clean) <= limit:
        return clean
    size = math.ceil(len(clean) / limit)
    groups = [clean[i : i + size] for i in range(0, len(clean), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def smooth(points: Sequence[Point], share: float = 0.08) -> list[Point]:
    """Running mean over a window of `share` of the points, centred and cut off at the ends."""
    half = max(1, round(len(points) * share / 2))
    result = []
    for i, (x, _) in enumerate(points):
        window = points[max(0, i - half) : i + half + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def steps_plot(strips: Sequence[Strip], label: str, *, mark: tuple[float, str] | None = None) -> Markup:
    """Strips stacked above each other that share a horizontal axis of training steps.

    Args:
        strips: at least one; strips without points are left out.
        label: the drawing's message in words.
        mark: a step and a word for it, drawn as a dashed vertical line through all strips.

    Returns:
        The SVG element, or nothing when no strip has points.
    """
    strips = [s for s in strips if any(line.points for line in s.series)]
    steps = [x for s in strips for line in s.series for x, _ in line.points]
    if not steps:
        return Markup("")
    left, right = 38.0, NARROW - 6.0
    first, last = min(0.0, *steps), max(steps)
    width = (last - first) or 1.0

    def across(step: float) -> float:
        return left + (step - first) / width * (right - left)

    parts: list[str] = []
    top = 0.0
    for strip in strips:
        parts += _strip(strip, top, left, right, across)
        top += strip.height + 30
    bottom = top - 6
    for tick in nice_ticks(first, last, 4):
        anchor = "end" if across(tick) > right - 8 else "middle"
        parts.append(text_at(across(tick), bottom + 10, tick_text(tick), "tick", anchor))
    parts.append(text_at(left, bottom + 25, "training step", "tick"))
    if mark is not None and first <= mark[0] <= last:
        x = across(mark[0])
        parts.append(line_at(x, 22, x, bottom - 4, "mark"))
        parts.append(text_at(right, bottom + 25, f"┆ {mark[1]}", "tick", "end"))
    return drawing(bottom + 32, label, parts, width=NARROW)


def _strip(strip: Strip, top: float, left: float, right: float, across: Callable[[float], float]) -> list[str]:
    values = [y for line in strip.series for _, y in line.points]
    low, high = value_range(values)
    upper, lower = top + 26, top + 26 + strip.height - 8

    def up(value: float) -> float:
        return lower - (value - low) / (high - low) * (lower - upper)

    parts = [text_at(0, top + 13, strip.title, "strip")]
    x = right
    for style, word in reversed(strip.legend):
        parts.append(text_at(x, top + 13, word, "tick", "end"))
        x -= 6.2 * len(word) + 8
        parts.append(line_at(x - 14, top + 9.5, x, top + 9.5, style))
        x -= 26
    for tick in nice_ticks(low, high, max(2, strip.height // 28)):
        parts.append(line_at(left, up(tick), right, up(tick), "grid"))
        parts.append(text_at(left - 6, up(tick) + 3.5, tick_text(tick), "tick", "end"))
    for line in strip.series:
        where = [(across(x), up(y)) for x, y in line.points]
        path = " ".join(f"{px(x)},{px(y)}" for x, y in where)
        parts.append(f'<polyline class="{line.style}" points="{path}"/>')
        if line.dots:
            parts += [f'<circle class="{line.style} dot" cx="{px(x)}" cy="{px(y)}" r="3"/>' for x, y in where]
    return parts


def reliability_plot(bins: Sequence[tuple[float, float, float]], label: str) -> Markup:
    """Predicted probability against observed share, with the number of predictions per bin below.

    Args:
        bins: (predicted, observed, count), probabilities in [0, 1].
        label: the drawing's message in words.
    """
    if not bins:
        return Markup("")
    left, right, upper, lower = 44.0, WIDTH - 12.0, 12.0, 258.0

    def across(p: float) -> float:
        return left + p * (right - left)

    def up(p: float) -> float:
        return lower - p * (lower - upper)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line_at(left, up(tick), right, up(tick), "grid"))
        parts.append(text_at(left - 6, up(tick) + 3.5, f"{100 * tick:.0f} %", "tick", "end"))
    parts.append(line_at(across(0), up(0), across(1), up(1), "ideal"))
    parts.append(text_at(across(0.03), up(0.95), "too low", "hint"))
    parts.append(text_at(across(0.98), up(0.04), "too high", "hint", "end"))
    for predicted, observed, _ in bins:
        parts.append(line_at(across(predicted), up(predicted), across(predicted), up(observed), "gapline"))
    path = " ".join(f"{px(across(p))},{px(up(o))}" for p, o, _ in bins)
    parts.append(f'<polyline class="after" points="{path}"/>')
    parts += [
        f'<circle class="after dot" cx="{px(across(p))}" cy="{px(up(o))}" r="4"><title>{escape(_bin(p, o, n))}'
        "</title></circle>"
        for p, o, n in bins
    ]
    most = max(n for _, _, n in bins) or 1
    for p, _, n in bins:
        height = 44 * n / most
        parts.append(
            f'<rect class="count" x="{px(across(p) - 5)}" y="{px(lower + 54 - height)}" width="10" '
            f'height="{px(height)}"/>'
        )
    parts.append(line_at(left, lower + 54, right, lower + 54, "axis"))
    parts.append(text_at(left - 6, lower + 40, "how", "tick", "end"))
    parts.append(text_at(left - 6, lower + 53, "many", "tick", "end"))
    for tick in (0, 0.25, 0.5, 0.75, 1):
        anchor = "end" if tick == 1 else "middle"
        parts.append(text_at(across(tick), lower + 69, f"{100 * tick:.0f} %", "tick", anchor))
    parts.append(text_at((left + right) / 2, lower + 85, "predicted probability", "tick", "middle"))
    return drawing(lower + 92, label, parts)


def _bin(predicted: float, observed: float, count: float) -> str:
    return f"predicted {number(predicted)}, observed {number(observed)}, {number(int(count))} examples"


def histogram_plot(
    edges: Sequence[float], target: Sequence[float], predicted: Sequence[float], label: str
) -> Markup:
    """Two histograms over the same edges: the truth as filled bars, the prediction as an outline.

    Args:
        edges: K + 1 ascending numbers.
        target: K counts of true values.
        predicted: K counts of predictions.
        label: the drawing's message in words.
    """
    if len(edges) < 2 or edges[-1] <= edges[0] or not (len(target) == len(predicted) == len(edges) - 1):
        return Markup("")
    left, right, upper, lower = 44.0, WIDTH - 12.0, 30.0, 200.0
    most = max([*target, *predicted, 1])

    def across(value: float) -> float:
        return left + (value - edges[0]) / (edges[-1] - edges[0]) * (right - left)

    def up(count: float) -> float:
        return lower - count / most * (lower - upper)

    parts = ['<rect class="before" x="44" y="6" width="12" height="10"/>', text_at(61, 15, "true", "tick")]
    parts += [line_at(104, 11, 120, 11, "after"), text_at(125, 15, "predicted", "tick")]
    for tick in nice_ticks(0, most, 4):
        parts.append(line_at(left, up(tick), right, up(tick), "grid"))
        parts.append(text_at(left - 6, up(tick) + 3.5, tick_text(tick), "tick", "end"))
    outline = [f"{px(left)},{px(lower)}"]
    for i, (true, guess) in enumerate(zip(target, predicted, strict=True)):
        x1, x2 = across(edges[i]), across(edges[i + 1])
        gap = min(1.0, (x2 - x1) / 8)
        parts.append(
            f'<rect class="before" x="{px(x1 + gap)}" y="{px(up(true))}" width="{px(x2 - x1 - 2 * gap)}" '
            f'height="{px(lower - up(true))}"/>'
        )
        outline += [f"{px(x1)},{px(up(guess))}", f"{px(x2)},{px(up(guess))}"]
    outline.append(f"{px(right)},{px(lower)}")
    parts.append(f'<polyline class="after" points="{" ".join(outline)}"/>')
    parts.append(line_at(left, lower, right, lower, "axis"))
    for tick in nice_ticks(edges[0], edges[-1], 6):
        parts.append(text_at(across(tick), lower + 15, tick_text(tick), "tick", "middle"))
    parts.append(text_at((left + right) / 2, lower + 31, "value", "tick", "middle"))
    return drawing(lower + 38, label, parts)
