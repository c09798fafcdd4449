"""Numbers and words as people read them."""

import math

import pytest

from mtrec.evaluation import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (-3, "−3"),
        (0.0, "0"),
        (0.93123, "0.931"),
        (0.0512345, "0.0512"),
        (0.00012345, "0.00012"),
        (-0.00012345, "−0.00012"),
        (1e-9, "1.0e−09"),
        (9.9949, "9.995"),
        (12.3456, "12.35"),
        (123.456, "123.5"),
        (12345.678, "12,346"),
        (None, "n/a"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
        (True, "n/a"),
        ("text", "n/a"),
    ],
)
def test_number(value: object, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50 %"),
        (0.012, "1.2 %"),
        (0.02, "2 %"),
        (0.0001, "under 0.1 %"),
        (0, "0 %"),
        (-0.031, "−3.1 %"),
        (None, "n/a"),
    ],
)
def test_percent(share: float | None, text: str) -> None:
    assert wording.percent(share) == text


@pytest.mark.parametrize(
    ("before", "after", "higher", "kind", "text"),
    [
        (1.2, 0.9, False, "better", "25 % better"),
        (1.0, 1.5, False, "worse", "50 % worse"),
        (0.1, 0.12, True, "better", "20 % better"),
        (0.1, 0.44, True, "better", "4.4× as high"),
        (0.01, 0.5, True, "better", "50× as high"),
        (0.01, 0.05, False, "worse", "5× as high"),
        (0.5, 0.5, True, "same", "unchanged"),
        (0.0, 0.25, True, "better", "0.250 better"),
        (-0.1, 0.5, True, "better", "600 % better"),
        (None, 0.5, True, "unknown", "not comparable"),
        (0.5, math.nan, True, "unknown", "not comparable"),
    ],
)
def test_change(before: float | None, after: float, higher: bool, kind: str, text: str) -> None:
    assert wording.change(before, after, higher) == {"kind": kind, "text": text}


@pytest.mark.parametrize(
    ("value", "text"),
    [(4.2, "4.200 s"), (48.4, "48 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (None, "n/a")],
)
def test_seconds(value: float | None, text: str) -> None:
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("name", "label"),
    [("ndcg@10", "NDCG@10"), ("micro_f1", "micro F1"), ("rmse", "RMSE"), ("coverage@10", "coverage@10")],
)
def test_metric_label(name: str, label: str) -> None:
    assert wording.metric_label(name) == label


def test_metric_meaning_follows_the_last_word_it_knows() -> None:
    assert wording.metric_meaning("macro_precision") == wording.metric_meaning("precision")
    assert wording.metric_meaning("log_loss") is not None
    assert wording.metric_meaning("average_precision") != wording.metric_meaning("precision")
    assert wording.metric_meaning("zorkiness") is None


def test_calibration_names_the_lean_only_when_there_is_one() -> None:
    even = [{"predicted": 0.2, "observed": 0.25, "count": 100}, {"predicted": 0.8, "observed": 0.75, "count": 100}]
    low = [{"predicted": 0.2, "observed": 0.4, "count": 100}]
    assert "Overall" not in wording.calibration(even, 0.05)
    assert wording.calibration(low, 0.2).endswith("Overall they are too low.")
    assert "could not be computed" in wording.calibration([], None)
    assert wording.calibration(even, 0.05, 0.081).endswith("Before temperature scaling the ECE was 0.0810.")


def test_lists_of_names() -> None:
    names = ["a", "b", "c"]
    assert [wording.and_list(names[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
