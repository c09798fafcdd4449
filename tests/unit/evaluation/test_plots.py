"""The drawings: coordinates that mean what they show."""

import math
import re

import pytest

from mtrec.evaluation.plots import (
    Series,
    Strip,
    histogram_plot,
    nice_ticks,
    reliability_plot,
    smooth,
    steps_plot,
    thin,
)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 600, [0, 200, 400, 600]),
        (0.62, 0.78, [0.65, 0.7, 0.75]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, [3]),
        (math.nan, 1, []),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, ticks: list[float]) -> None:
    found = nice_ticks(low, high)
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert found == pytest.approx(ticks)


@pytest.mark.parametrize("scale", [1e-6, 0.03, 7.0, 12345.0])
def test_ticks_are_few_on_any_scale(scale: float) -> None:
    assert 3 <= len(nice_ticks(0.1 * scale, 1.3 * scale)) <= 6


def test_thinning_averages_and_keeps_the_ends_near() -> None:
    points = [(float(i), float(i % 2)) for i in range(1000)] + [(1000.0, math.nan)]
    thinned = thin(points, 100)
    assert len(thinned) == 100
    assert all(y == pytest.approx(0.5) for _, y in thinned)
    assert thinned[0][0] < 10
    assert thinned[-1][0] > 990


def test_smoothing_keeps_constants_and_flattens_noise() -> None:
    assert {y for _, y in smooth([(float(i), 2.0) for i in range(50)])} == {2.0}
    noisy = smooth([(float(i), float(i % 2)) for i in range(200)])
    assert all(0.3 < y < 0.7 for _, y in noisy[10:-10])


def test_a_falling_loss_falls_on_the_page() -> None:
    line = Series(points=[(0, 3.0), (50, 2.0), (100, 1.0)], style="after")
    svg = steps_plot([Strip(title="Loss", series=[line])], "falls", mark=(50, "here"))
    points = re.search(r'polyline class="after" points="([^"]+)"', svg)
    assert points is not None
    xs, ys = zip(*[map(float, pair.split(",")) for pair in points.group(1).split()], strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys), "down the page is a larger y"
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1)
    assert f'class="mark" x1="{xs[1]:g}"' in svg


def test_nothing_to_draw_is_nothing() -> None:
    assert steps_plot([], "x") == ""
    assert steps_plot([Strip(title="Loss", series=[Series(points=[], style="after")])], "x") == ""
    assert reliability_plot([], "x") == ""
    assert histogram_plot([0, 1], [1, 2], [1], "x") == ""
    assert histogram_plot([], [], [], "x") == ""


def test_perfect_calibration_lies_on_the_diagonal() -> None:
    svg = reliability_plot([(0.1, 0.1, 10), (0.5, 0.5, 20), (0.9, 0.9, 5)], "perfect")
    ideal = [
        float(v)
        for v in re.findall(r'class="ideal" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', svg)[0]
    ]
    dots = [
        (float(x), float(y)) for x, y in re.findall(r'<circle class="after dot" cx="([\d.]+)" cy="([\d.]+)"', svg)
    ]
    slope = (ideal[3] - ideal[1]) / (ideal[2] - ideal[0])
    for x, y in dots:
        assert y == pytest.approx(ideal[1] + slope * (x - ideal[0]), abs=0.2)
    heights = [float(h) for h in re.findall(r'<rect class="count"[^>]* height="([\d.]+)"', svg)]
    assert heights == pytest.approx([22, 44, 11])


def test_histogram_bars_are_as_high_as_their_counts() -> None:
    svg = histogram_plot([0, 1, 2], [10, 5], [5, 10], "two bars")
    heights = [float(h) for h in re.findall(r'<rect class="before" [^>]*height="([\d.]+)"', svg)][1:]
    assert heights[0] == pytest.approx(2 * heights[1])


def test_labels_are_escaped() -> None:
    line = Series(points=[(0, 1.0), (1, 2.0)], style="after")
    svg = steps_plot([Strip(title="<b>", series=[line])], 'a "quote" & <script>')
    assert "<b>" not in svg
    assert "<script>" not in svg
    assert "&amp;" in svg
