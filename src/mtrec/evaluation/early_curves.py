"""The curves of what was learned before the tasks: pretraining, and a student's text vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtrec.evaluation.plots import Series, Strip, steps_plot
from mtrec.evaluation.wording import finite, number

Json = Mapping[str, Any]

_NAMES = {
    "pretrain": ("Pretraining on the texts", "Loss of masked words"),
    "match": ("Student's text vectors", "1 − cosine from the teacher's"),
}
"""Kind of line → the drawing's name and the strip's title."""


def early_curves(losses: Sequence[Json]) -> list[dict[str, Any]]:
    """One drawing per kind of `pretrain` and `match` lines: name, svg.

    Args:
        losses: lines with `kind`, `step`, `loss` and, of pretraining, `held_out`.
    """
    plots = []
    for kind, (name, title) in _NAMES.items():
        lines = [line for line in losses if line.get("kind") == kind and finite(line.get("step")) is not None]
        learned, held_out = (
            [(float(line["step"]), y) for line in lines if (y := finite(line.get(key))) is not None]
            for key in ("loss", "held_out")
        )
        series = [
            Series(points=learned, style="after", dots=True),
            Series(points=held_out, style="valid", dots=True),
        ]
        legend = [("after", "train"), ("valid", "held-out texts")] if learned and held_out else []
        shown = held_out or learned
        if shown:
            told = f"{name}: {title} from {number(shown[0][1])} to {number(shown[-1][1])}."
            plots.append(
                {"name": name, "svg": steps_plot([Strip(title=title, series=series, legend=legend)], told)}
            )
    return plots
