"""The strokes that every drawing is made of; see `mtrec.evaluation.plots`."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 360


def px(value: float) -> str:
    """A coordinate, with one digit after the point where it needs one."""
    return f"{value:.1f}".removesuffix(".0")


def tick_text(value: float) -> str:
    """A number beside an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}".replace("-", "−")


def drawing(height: float, label: str, parts: Sequence[str], *, width: float = WIDTH) -> Markup:
    """The SVG element around the parts; `label` is its message in words."""
    head = f'<svg viewBox="0 0 {px(width)} {px(height)}" role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(parts) + "</svg>")


def line_at(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line; `style` is a class of the style sheet."""
    return f'<line class="{style}" x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}"/>'


def text_at(x: float, y: float, text: str, style: str = "tick", anchor: str = "start") -> str:
    """A piece of text, escaped."""
    return f'<text class="{style}" x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def value_range(values: Sequence[float], *, padding: float = 0.08) -> tuple[float, float]:
    """A range with room around the values; it does not go below 0 for their sake."""
    low, high = min(values), max(values)
    if high - low < 1e-12:
        pad = abs(high) * 0.1 or 0.5
        return low - pad, high + pad
    pad = (high - low) * padding
    floor = 0.0 if low >= 0 and low - pad < 0 else low - pad
    return floor, high + pad
