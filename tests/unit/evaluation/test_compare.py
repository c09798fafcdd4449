"""Paired bootstrap: intervals that cover a known difference, and verdicts that follow from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mtrec.evaluation import metrics
from mtrec.evaluation.compare import Comparison, auc, compare, compare_values, example_values, weighted_auc
from tests.unit.evaluation.kinds import KINDS, ROW_KINDS


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


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_the_better_model_is_found_whichever_way_round(kind: str) -> None:
    target, good, bad = examples(kind, np.random.default_rng(0))
    primary = metrics.PRIMARY[kind]
    found = compare(KINDS[kind], primary, target, good, bad, 0.95)
    assert found.verdict == "better"
    assert compare(KINDS[kind], primary, target, bad, good, 0.95).verdict == "worse"
    # The difference is that of the metric itself.
    values = [metrics.compute(KINDS[kind], target, p)[primary] for p in (good, bad)]
    assert found.difference == pytest.approx(values[0] - values[1], abs=1e-6)
    assert found.low <= found.difference <= found.high


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_identical_models_are_the_same(kind: str) -> None:
    target, good, _ = examples(kind, np.random.default_rng(1))
    found = compare(KINDS[kind], metrics.PRIMARY[kind], target, good, good.copy(), 0.95)
    assert found.as_dict() == {
        "metric": metrics.PRIMARY[kind],
        "difference": 0,
        "low": 0,
        "high": 0,
        "confidence": 0.95,
        "groups": len(metrics.measured_rows(KINDS[kind], target).nonzero()[0]),
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


def correlated(rng: np.random.Generator, users: int = 40, each: int = 30) -> tuple[np.ndarray, ...]:
    """Squared errors of two models, equally good; every user likes one of them better on all of their rows."""
    user = np.repeat(np.arange(users), each)
    lean = rng.normal(size=users)[user]
    noise = rng.normal(size=(2, len(user)))
    return 2 + lean + 0.5 * noise[0], 2 + 0.5 * noise[1], user


def test_users_are_drawn_whole() -> None:
    """The truth, no difference, is covered as often as promised only when the rows of a user stay together."""
    by_user, by_row, trials = 0, 0, 60
    for seed in range(trials):
        candidate, champion, user = correlated(np.random.default_rng(seed))
        whole = compare_values("mrr", candidate, champion, 0.95, groups_X=user)
        rows = compare_values("mrr", candidate, champion, 0.95)
        assert (whole.groups, rows.groups) == (40, 1200)
        assert whole.difference == rows.difference
        by_user += whole.low <= 0 <= whole.high
        by_row += rows.low <= 0 <= rows.high
    assert by_user / trials >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials) - 0.02
    assert by_row / trials < 0.6


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_the_names_of_groups_and_the_order_of_rows_do_not_matter_much(kind: str) -> None:
    rng = np.random.default_rng(4)
    target, good, bad = examples(kind, rng)
    user = rng.integers(0, 15, len(target))
    first = compare(KINDS[kind], "x", target, good, bad, 0.95, groups_X=user)
    assert first.groups == 15
    assert compare(KINDS[kind], "x", target, good, bad, 0.95, groups_X=user * 7 + 100) == first
    order = rng.permutation(len(target))
    mixed = compare(KINDS[kind], "x", target[order], good[order], bad[order], 0.95, groups_X=user[order])
    assert (mixed.low, mixed.high) == pytest.approx((first.low, first.high), abs=1e-6)


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_intervals_are_those_of_rows_copied_by_hand(kind: str) -> None:
    """Draw users, put their rows one below the other, and compute the metric itself."""
    plain = {
        "regression": sk.root_mean_squared_error,
        "binary": sk.roc_auc_score,
        "classification": lambda t, p: (p.argmax(1) == t).mean(),
        "multilabel": lambda t, p: metrics.label_ranking_precision(t, p).mean(),
        "profile": lambda t, p: metrics.cosine(t, p).mean(),
    }[kind]
    rng = np.random.default_rng(6)
    target, good, bad = examples(kind, rng, 80)
    if kind in ("multilabel", "profile"):
        target[:, 0], target[:, 1] = 1, 0  # every row has an order, and a direction
    user = rng.integers(0, 12, 80)
    primary = metrics.PRIMARY[kind]
    found = compare(KINDS[kind], primary, target, good, bad, 0.9, groups_X=user)
    differences = []
    for _ in range(600):
        rows = np.concatenate([np.flatnonzero(user == u) for u in rng.integers(0, 12, 12)])
        values = [plain(target[rows], p[rows]) for p in (good, bad)]
        differences.append(values[0] - values[1])
    low, high = np.quantile(differences, [0.05, 0.95])
    wide = high - low
    assert found.low == pytest.approx(low, abs=0.15 * wide)
    assert found.high == pytest.approx(high, abs=0.15 * wide)


def test_rows_without_an_order_do_not_soften_a_difference() -> None:
    """Rows without labels, or with all, are equally good for both models and would halve the difference."""
    target, good, bad = examples("multilabel", np.random.default_rng(0))
    ranked = metrics.ranked_rows(target)
    target, good, bad = target[ranked], good[ranked], bad[ranked]
    plain = compare(KINDS["multilabel"], "lrap", target, good, bad, 0.95)
    more = [np.concatenate([target, np.zeros_like(target), np.ones_like(target)])]
    more += [np.concatenate([p, p, p]) for p in (good, bad)]
    assert compare(KINDS["multilabel"], "lrap", more[0], more[1], more[2], 0.95) == plain


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
    found = Comparison(metric=metric, difference=(low + high) / 2, low=low, high=high, confidence=0.95, groups=9)
    assert found.verdict == verdict


@pytest.mark.parametrize("kind", [k for k in ROW_KINDS if k != "binary"])
def test_example_values_average_to_the_primary_metric(kind: str) -> None:
    target, good, _ = examples(kind, np.random.default_rng(2))
    rows = metrics.measured_rows(KINDS[kind], target)
    values = example_values(KINDS[kind], target[rows], good[rows])
    assert values.shape == (rows.sum(),)
    mean = values.mean() ** 0.5 if kind == "regression" else values.mean()
    assert mean == pytest.approx(metrics.compute(KINDS[kind], target, good)[metrics.PRIMARY[kind]], rel=1e-5)


def test_auc_is_no_mean_over_examples() -> None:
    with pytest.raises(TypeError, match="no mean over examples"):
        example_values(KINDS["binary"], np.ones(2), np.ones(2))


def scored(rng: np.random.Generator, count: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Yes or no, and scores of so many distinct values, hence with ties."""
    return (rng.random(count) < 0.5).astype(np.float32), rng.integers(0, levels, count) / levels


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2, 60), levels=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_auc_against_scikit_learn(count: int, levels: int, seed: int) -> None:
    target, scores = scored(np.random.default_rng(seed), count, levels)
    both = 0 < target.sum() < count
    wanted = sk.roc_auc_score(target, scores) if both else np.nan
    assert auc(target, scores) == pytest.approx(wanted, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2, 60), levels=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_weighted_auc_against_scikit_learn(count: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target, scores = scored(rng, count, levels)
    group = rng.integers(0, 7, count)
    measure = weighted_auc(target, scores, group)
    for _ in range(3):  # one sorting serves any weights
        weights = rng.integers(0, 4, 7).astype(float)
        rows = weights[group]
        both = (rows * target).sum() > 0 and (rows * (1 - target)).sum() > 0
        wanted = sk.roc_auc_score(target, scores, sample_weight=rows) if both else np.nan
        assert measure(weights) == pytest.approx(wanted, nan_ok=True)


def rare(positives: int, fall: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """170 rows of as many users with few yes; targets, then scores before, after (AUC `fall` lower) and users."""
    target = np.zeros(170, dtype=np.float32)
    target[:positives] = 1
    noes = np.linspace(0, 1, 170 - positives)
    before, after = (np.concatenate([np.full(positives, level), noes]) for level in (0.675, 0.675 - fall))
    return target, before, after, np.arange(170)


@pytest.mark.parametrize("positives", [1, 2, 30])
def test_draws_without_a_yes_do_not_count_as_no_difference(positives: int) -> None:
    """With one yes a third of the draws has none; their zeros used to reach into the interval of a clear loss."""
    target, before, after, user = rare(positives, 0.1)
    found = compare(KINDS["binary"], "auc", target, after, before, 0.95, groups_X=user)
    assert found.difference == pytest.approx(-0.1, abs=0.01)
    assert found.low < found.difference < found.high < -0.05
    assert found.verdict == "worse"


def test_the_left_out_draws_are_those_that_sampling_by_hand_cannot_measure() -> None:
    target, before, after, _ = rare(1, 0.1)
    found = compare(KINDS["binary"], "auc", target, after, before, 0.9)
    rng = np.random.default_rng(1)
    differences: list[float] = []
    while len(differences) < 600:
        rows = rng.integers(0, 170, 170)
        if target[rows].any():
            values = [sk.roc_auc_score(target[rows], scores[rows]) for scores in (after, before)]
            differences.append(values[0] - values[1])
    low, high = np.quantile(differences, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_one_class_alone_is_compared_with_nothing() -> None:
    found = compare(KINDS["binary"], "auc", np.ones(20), np.linspace(0, 1, 20), np.zeros(20), 0.95)
    assert np.isnan([found.difference, found.low, found.high]).all()
    assert found.verdict == "worse"


def test_profiles_without_a_direction_do_not_soften_a_difference() -> None:
    """Their cosine is 0 for every model and would pull the difference to 0."""
    target, good, bad = examples("profile", np.random.default_rng(0))
    has = target.any(1)
    target, good, bad = target[has], good[has], bad[has]
    plain = compare(KINDS["profile"], "cosine", target, good, bad, 0.95)
    more = [np.concatenate([target, np.zeros_like(target)])] + [np.concatenate([p, p]) for p in (good, bad)]
    assert compare(KINDS["profile"], "cosine", more[0], more[1], more[2], 0.95) == plain
