"""The drawings of a search: coordinates that mean what they show."""

import re
from typing import Any

import pytest

from mtrec.evaluation.trial_plots import history_plot, importance_plot, parallel_plot

SPACE = {
    "training.lr": {"low": 0.001, "high": 0.1, "log": True, "choices": None},
    "model.dropout": {"low": 0.0, "high": 0.5, "log": False, "choices": None},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True, "choices": None},
    "training.balancing": {"low": None, "high": None, "choices": ["static", None, "famo"]},
}


def trial(number: int, value: float | None, state: str = "complete", **point: Any) -> dict[str, Any]:
    settings = {"training.lr": 0.01, "model.dropout": 0.25, "tasks.rating.weight": 1.0, "training.balancing": None}
    return {"number": number, "state": state, "value": value, "point": {**settings, **point}}


def points_of(svg: str, style: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(rf'<polyline class="{style}" points="([^"]+)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]  # type: ignore[misc]


def circles_of(svg: str, style: str) -> list[tuple[float, float]]:
    found = re.findall(rf'<circle class="{style}" cx="([\d.]+)" cy="([\d.]+)" r="4"><title>', svg)
    return [(float(x), float(y)) for x, y in found]


def test_the_history_has_every_trial_with_a_value_and_the_best_so_far() -> None:
    values = [(1.0, "complete"), (1.4, "pruned"), (0.8, "complete"), (1.2, "complete"), (None, "running")]
    svg = str(history_plot([trial(n, value, state) for n, (value, state) in enumerate(values)]))
    dots, rings = circles_of(svg, "after dot"), circles_of(svg, "ring")
    assert len(dots) == 3
    assert len(rings) == 1
    assert [x for x, _ in dots] == sorted(x for x, _ in dots)
    first, third, best = dots
    assert best[1] < first[1] < third[1], "a higher value stands higher"
    assert rings[0][1] < best[1]
    (line,) = points_of(svg, "after")
    assert line == [first, (best[0], first[1]), best, best], "the pruned trial is never the best"
    assert 'aria-label="The best of 4 trials is trial 3 with 1.200."' in svg
    ideal = re.findall(r'<line class="ideal" x1="44" y1="([\d.]+)" x2="748" y2="([\d.]+)"', svg)
    assert ideal == [(f"{first[1]:g}", f"{first[1]:g}")], "the scenario's own settings have the value 1"


def test_nothing_is_drawn_of_nothing() -> None:
    assert history_plot([]) == history_plot([trial(0, None, "running")]) == ""
    assert importance_plot({}) == ""
    assert parallel_plot([trial(0, 1.0)], SPACE) == ""
    assert parallel_plot([trial(0, 1.0), trial(1, 1.0)], {}) == ""
    assert "trial 0" in history_plot([trial(0, 1.0)])


def test_bars_are_as_long_as_the_shares() -> None:
    svg = str(importance_plot({"training.lr": 0.6, "model.dropout": 0.3, "model.width": 0.0}))
    widths = [float(width) for width in re.findall(r'<rect class="bar"[^>]* width="([\d.]+)"', svg)]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert widths[2] == 1, "still to be seen"
    assert re.findall(r">(\d+ %)<", svg) == ["60 %", "30 %", "0 %"]
    assert 'aria-label="training.lr matters most."' in svg


def test_each_trial_is_a_line_through_its_values() -> None:
    low = trial(0, 0.5, **{"training.lr": 0.001, "model.dropout": 0.0, "training.balancing": "static"})
    high = trial(1, 1.5, **{"training.lr": 0.1, "model.dropout": 0.5, "training.balancing": "famo"})
    middle = trial(2, 1.0)
    svg = str(parallel_plot([low, high, middle, trial(3, 9.0, "pruned")], SPACE))
    (best,), rest = points_of(svg, "after"), points_of(svg, "rest")
    assert len(rest) == 2
    at_bottom, between = rest
    top, bottom = best[0][1], at_bottom[0][1]
    assert top < bottom
    assert [y for _, y in best[:2]] == [top, top]
    assert best[3][1] == top
    assert [y for _, y in (at_bottom[0], at_bottom[1], at_bottom[3])] == [bottom] * 3
    assert [between[i][1] for i in (0, 1, 3, 4)] == pytest.approx([(top + bottom) / 2] * 4), "0.01 on a log scale"
    assert [x for x, _ in best] == [x for x, _ in at_bottom] == sorted(x for x, _ in best)
    words = re.findall(r">([^<>]+)</text>", svg)
    assert {"lr", "dropout", "rating", "balancing", "value", "0.001", "0.1", "static", "none", "famo"} <= set(words)


def test_the_best_fifth_stands_out() -> None:
    svg = str(parallel_plot([trial(n, n / 10) for n in range(20)], SPACE))
    assert [len(points_of(svg, style)) for style in ("after", "good", "rest")] == [1, 3, 16]
    assert 'aria-label="Parameters of 20 trials; the best, trial 19, stands out."' in svg


def test_names_of_axes_differ_and_long_values_are_cut_off() -> None:
    space = dict.fromkeys(("model.dropout", "model.encoder.lora.dropout"), SPACE["model.dropout"])
    space |= {f"tasks.task{n}.weight": SPACE["tasks.rating.weight"] for n in range(9)}
    space["model.sharing"] = {"choices": ["shared_bottom", "ple"]}
    point = {path: "ple" if path == "model.sharing" else 0.3 for path in space}
    words = re.findall(r">([^<>]+)</text>", str(parallel_plot([trial(n, n, **point) for n in range(2)], space)))
    assert {"model.dropout", "model.encoder.lora.dropout", "task0", "sharing", "value", "ple"} <= set(words)
    assert "shared_bottom" not in words
    assert [word for word in words if word.endswith("…")] == ["shared_…"]


def test_given_text_is_escaped() -> None:
    parameter = {"<b>": {"choices": ["<i>", "x"]}}
    svg = str(parallel_plot([trial(n, n, **{"<b>": "<i>"}) for n in range(2)], parameter))
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "&lt;i&gt;" in svg
    assert "&lt;b&gt;" in importance_plot({"<b>": 1.0})
