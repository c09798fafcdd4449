"""Paired bootstrap: intervals that cover a known difference, and verdicts that follow from them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mtrec.config import Task, parse_scenario
from mtrec.evaluation import metrics
from mtrec.evaluation.compare import (
    Comparison,
    auc,
    compare,
    compare_values,
    example_values,
    label_ranking_precision,
)


def task(**declared: Any) -> Task:
    return parse_scenario({"name": "test", "tasks": {"it": declared}}).tasks["it"]


TASKS = {
    "regression": task(type="regression", on="pair", label="interactions.rating"),
    "binary": task(type="binary", on="item", label="items.flag"),
    "classification": task(type="classification", on="item", label="items.category"),
    "multilabel": task(type="multilabel", on="item", label="items.tags"),
    "profile": task(type="profile", on="user", label="items.tags"),
}


def examples(kind: str, rng: np.random.Generator, count: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, good predictions and bad predictions."""
    if kind == "regression":
        target = rng.normal(size=count)
        return target, target + 0.1 * rng.normal(size=count), target + rng.normal(size=count)
    if kind == "binary":
        target = (rng.random(count) < 0.4).astype(np.float32)
        return target, 0.6 * target + 0.4 * rng.random(count), rng.random(count)
    if kind == "classification":
        target = rng.integers(0, 4, count).astype(np.float32)
        good = np.eye(4)[target.astype(int)] + 0.6 * rng.random((count, 4))
        return target, good / good.sum(1, keepdims=True), rng.dirichlet(np.ones(4), count)
    target = (rng.random((count, 5)) < 0.4).astype(np.float32)
    return target, target + 0.6 * rng.random((count, 5)), rng.random((count, 5))


@pytest.mark.parametrize("kind", TASKS)
def test_the_better_model_is_found_whichever_way_round(kind: str) -> None:
    target, good, bad = examples(kind, np.random.default_rng(0))
    primary = metrics.PRIMARY[kind]
    found = compare(TASKS[kind], primary, target, good, bad, 0.95)
    assert found.verdict == "better"
    assert compare(TASKS[kind], primary, target, bad, good, 0.95).verdict == "worse"
    # The difference is that of the metric itself.
    values = [metrics.compute(TASKS[kind], target, p)[primary] for p in (good, bad)]
    assert found.difference == pytest.approx(values[0] - values[1], abs=1e-6)
    assert found.low <= found.difference <= found.high


@pytest.mark.parametrize("kind", TASKS)
def test_identical_models_are_the_same(kind: str) -> None:
    target, good, _ = examples(kind, np.random.default_rng(1))
    found = compare(TASKS[kind], metrics.PRIMARY[kind], target, good, good.copy(), 0.95)
    assert found.as_dict() == {
        "metric": metrics.PRIMARY[kind],
        "difference": 0,
        "low": 0,
        "high": 0,
        "confidence": 0.95,
        "verdict": "same",
    }


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_cover_a_known_difference_as_often_as_they_say(confidence: float) -> None:
    """Paired normal values whose means differ by 0.2, over 80 seeds."""
    covered, trials = 0, 80
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        shared = rng.normal(size=100)
        found = compare_values(
            "ndcg@10", shared + 0.2 + 0.5 * rng.normal(size=100), shared + 0.5 * rng.normal(size=100), confidence
        )
        covered += found.low <= 0.2 <= found.high
    # Three standard deviations of a share of 80, and a little for the bootstrap's own narrowness.
    slack = 3 * np.sqrt(confidence * (1 - confidence) / trials)
    assert confidence - slack - 0.02 <= covered / trials <= confidence + slack


def test_pairing_makes_the_interval_narrow() -> None:
    rng = np.random.default_rng(0)
    shared = 5 * rng.normal(size=200)
    candidate, champion = shared + 0.1 + 0.05 * rng.normal(size=200), shared
    paired = compare_values("mrr", candidate, champion, 0.95)
    assert paired.verdict == "better"
    assert compare_values("mrr", rng.permutation(candidate), champion, 0.95).verdict == "same"


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=80), rng.normal(size=80)
    first = compare_values("mrr", a, b, 0.95, seed=1)
    assert compare_values("mrr", a, b, 0.95, seed=1) == first
    other = compare_values("mrr", a, b, 0.95, seed=2)
    assert other != first
    assert other.low == pytest.approx(first.low, abs=0.06)


def test_a_higher_level_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=80), rng.normal(size=80)
    wide, narrow = (compare_values("mrr", a, b, level) for level in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("metric", "low", "high", "verdict"),
    [
        ("ndcg@10", 0.01, 0.02, "better"),
        ("ndcg@10", -0.02, -0.01, "worse"),
        ("rmse", 0.01, 0.02, "worse"),
        ("rmse", -0.02, -0.01, "better"),
        ("rmse", -0.01, 0.02, "same"),
        ("auc", 0.0, 0.02, "same"),
        ("auc", -0.02, 0.0, "same"),
        ("rmse", float("nan"), float("nan"), "worse"),
        ("auc", float("nan"), float("nan"), "worse"),
    ],
)
def test_verdicts(metric: str, low: float, high: float, verdict: str) -> None:
    found = Comparison(metric=metric, difference=(low + high) / 2, low=low, high=high, confidence=0.95)
    assert found.verdict == verdict


@pytest.mark.parametrize("kind", [k for k in TASKS if k != "binary"])
def test_example_values_average_to_the_primary_metric(kind: str) -> None:
    target, good, _ = examples(kind, np.random.default_rng(2))
    values = example_values(TASKS[kind], target, good)
    assert values.shape == (len(target),)
    mean = values.mean() ** 0.5 if kind == "regression" else values.mean()
    assert mean == pytest.approx(metrics.compute(TASKS[kind], target, good)[metrics.PRIMARY[kind]], rel=1e-5)


def test_auc_is_no_mean_over_examples() -> None:
    with pytest.raises(TypeError, match="no mean over examples"):
        example_values(TASKS["binary"], np.ones(2), np.ones(2))


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 12), labels=st.integers(2, 6), levels=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_label_ranking_precision_against_scikit_learn(rows: int, labels: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.random((rows, labels)) < 0.4).astype(float)  # rows without labels and with all of them too
    scores = rng.integers(0, levels, (rows, labels)) / levels  # with ties
    found = label_ranking_precision(target, scores)
    for row in range(rows):
        wanted = sk.label_ranking_average_precision_score(target[[row]], scores[[row]])
        assert found[row] == pytest.approx(wanted)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2, 60), levels=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_auc_against_scikit_learn(count: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.random(count) < 0.5).astype(np.float32)
    scores = rng.integers(0, levels, count) / levels
    both = 0 < target.sum() < count
    wanted = sk.roc_auc_score(target, scores) if both else 0.5
    assert auc(target, scores) == pytest.approx(wanted)
