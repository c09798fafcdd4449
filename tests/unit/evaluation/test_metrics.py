"""Every metric: small cases worked out by hand, then scikit-learn and torchmetrics on random ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mtrec.evaluation import metrics as m
from tests.unit.evaluation.kinds import KINDS, ROW_KINDS

# ------------------------------------------------------------------------------------------------ by hand


def test_regression_by_hand() -> None:
    found = m.regression(np.array([1.0, 2.0, 4.0]), np.array([1.0, 4.0, 3.0]))
    assert found == pytest.approx({"mse": 5 / 3, "rmse": math.sqrt(5 / 3), "mae": 1.0})


def test_binary_by_hand() -> None:
    # Sorted by probability: 0.9 yes, 0.6 no, 0.4 yes, 0.1 no. Of the four yes–no pairs three are in order.
    found = m.binary(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.6, 0.4, 0.1]))
    assert found["auc"] == 0.75
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["accuracy"] == found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["log_loss"] == pytest.approx(-(2 * math.log(0.9) + 2 * math.log(0.4)) / 4)
    # Each row is a bin of its own: errors 0.1, 0.6, 0.6, 0.1.
    assert found["ece"] == pytest.approx(0.35)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_one_class_cannot_tell_is_not_measured(value: float) -> None:
    target, probability = np.full(4, value), np.array([0.9, 0.6, 0.4, 0.1])
    found = m.binary(target, probability)
    unmeasured = {name for name, number in found.items() if math.isnan(number)}
    assert unmeasured == {"auc", "average_precision", *(() if value else ("recall", "f1"))}
    assert found["accuracy"] == 0.5
    assert m.skill(KINDS["binary"], target, probability, [0.5]) == 0


def test_classification_by_hand() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    found = m.classification(np.array([0.0, 1.0, 1.0, 2.0]), probability)
    assert found["accuracy"] == found["micro_f1"] == 0.75
    # Class 0: precision 1/2, recall 1; class 1: 1, 1/2; class 2: 1, 1. F1: 2/3, 2/3, 1.
    assert found["macro_precision"] == pytest.approx(2.5 / 3)
    assert found["macro_recall"] == pytest.approx(2.5 / 3)
    assert found["macro_f1"] == pytest.approx(7 / 9)
    assert found["log_loss"] == pytest.approx(-math.log(0.7 * 0.7 * 0.3 * 0.8) / 4)
    # Bins of the certainty: 0.6 wrong, two of 0.7 right, 0.8 right.
    assert found["ece"] == pytest.approx((0.6 + 2 * 0.3 + 0.2) / 4)


def test_multilabel_by_hand() -> None:
    target = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    probability = np.array([[0.9, 0.6, 0.4], [0.2, 0.8, 0.6]])
    found = m.multilabel(target, probability)
    # Row 1: labels at ranks 1 and 3, (1/1 + 2/3) / 2; row 2: rank 1.
    assert found["lrap"] == pytest.approx((5 / 6 + 1) / 2)
    # At one half: hits 2, wrong 2 (row 1 label 2, row 2 label 3), missed 1.
    assert found["micro_f1"] == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["hamming_loss"] == pytest.approx(3 / 6)
    # Bins of all six decisions: 0.2 no, 0.4 yes, two of 0.6 no, 0.8 yes, 0.9 yes.
    assert found["ece"] == pytest.approx((0.2 + 0.6 + 2 * 0.6 + 0.2 + 0.1) / 6)


def test_rows_without_labels_or_with_all_are_not_ranked() -> None:
    target = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    probability = np.array([[0.9, 0.6, 0.4], [0.2, 0.8, 0.6], [0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    assert m.ranked_rows(target).tolist() == [True, True, False, False]
    found = m.multilabel(target, probability)
    assert found["lrap"] == pytest.approx((5 / 6 + 1) / 2)  # as without the two rows
    # Decisions about single labels do count: three more of six are wrong.
    assert found["hamming_loss"] == pytest.approx((3 + 3) / 12)
    assert math.isnan(m.multilabel(target[2:], probability[2:])["lrap"])
    assert m.skill(KINDS["multilabel"], target[2:], probability[2:], []) == 0
    assert m.measured_rows(KINDS["multilabel"], target).tolist() == [True, True, False, False]
    assert m.measured_rows(KINDS["regression"], target[:, 0]).all()


def test_labels_that_nobody_has_or_is_given_are_no_part_of_the_mean() -> None:
    """A label of the vocabulary that the test part lacks used to count as an F1 of 0, however good the model."""
    target = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    perfect = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]])
    assert m.multilabel(target, perfect)["macro_f1"] == 1
    # One that is given to a row but belongs to none is a mistake: it has an F1 of 0.
    alarm = np.array([[0.9, 0.1, 0.8], [0.1, 0.9, 0.1]])
    assert m.multilabel(target, alarm)["macro_f1"] == pytest.approx(2 / 3)
    nothing = m.multilabel(np.zeros((2, 3)), np.full((2, 3), 0.1))
    assert math.isnan(nothing["macro_f1"])
    assert math.isnan(nothing["micro_f1"])
    assert nothing["hamming_loss"] == 0


def test_a_class_that_training_never_saw_is_wrong() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    target = np.array([0.0, 1.0, m.UNSEEN, m.UNSEEN])
    found = m.classification(target, probability)
    assert found["accuracy"] == found["micro_f1"] == 0.5
    # F1 of class 0: 2/3, of class 1: 1, of class 2 (predicted once, never true): 0, of the unseen: 0.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1) / 4)
    assert found["log_loss"] == pytest.approx(-math.log(0.7 * 0.7) / 2)
    # Bins of the certainty: 0.6 wrong, two of 0.7 right, 0.8 wrong.
    assert found["ece"] == pytest.approx((0.6 + 2 * 0.3 + 0.8) / 4)
    none = m.classification(target[2:], probability[2:])
    assert none["accuracy"] == 0
    assert math.isnan(none["log_loss"])
    assert m.skill(KINDS["classification"], target, probability, []) == 0.5


def test_cosine_by_hand() -> None:
    target = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    predicted = np.array([[3.0, 4.0], [2.0, 2.0], [1.0, 1.0]])
    assert m.cosine(target, predicted) == pytest.approx([0.6, 1.0, 0.0])
    # A target without a direction is left out; a prediction without one is a miss.
    assert m.compute(KINDS["profile"], target, predicted) == pytest.approx({"cosine": 1.6 / 2})
    assert m.compute(KINDS["profile"], target, predicted * [[0], [1], [1]]) == pytest.approx({"cosine": 0.5})
    assert m.measured_rows(KINDS["profile"], target).tolist() == [True, True, False]
    assert math.isnan(m.compute(KINDS["profile"], target[2:], predicted[2:])["cosine"])
    assert m.skill(KINDS["profile"], target[2:], predicted[2:], []) == 0


def test_reliability_by_hand() -> None:
    rows = m.reliability(np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.02, 0.04, 0.95, 1.0]))
    assert rows == [
        {"predicted": pytest.approx(0.03), "observed": 0.5, "count": 2},
        {"predicted": pytest.approx(0.975), "observed": 1.0, "count": 2},
    ]
    error = m.expected_calibration_error(np.array([0, 1, 1, 1]), np.array([0.02, 0.04, 0.95, 1.0]))
    assert error == pytest.approx((0.47 + 0.025) / 2)
    assert m.expected_calibration_error(np.array([]), np.array([])) == 0


def test_ranks_by_hand() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.1, 0.5, 0.7])
    allowed = np.array([True, True, True, True, True, False])
    # Candidates 0.9, 0.5 three times, 0.1: the ties share the mean of ranks 2, 3 and 4.
    assert m.mean_ranks(scores, allowed, np.array([0, 1, 4, 3])).tolist() == [1, 3, 3, 5]


def test_a_model_without_opinion_ranks_in_the_middle() -> None:
    ranks = m.mean_ranks(np.zeros(101), np.ones(101, dtype=bool), np.array([0, 100]))
    assert ranks.tolist() == [51, 51]
    assert m.ranking_of_user(ranks)["hr@10"] == 0


def test_ranking_by_hand() -> None:
    found = m.ranking_of_user(np.array([2.0, 12.0, 60.0]))
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert found == pytest.approx(
        {
            "mrr": 0.5,
            "hr@10": 1.0,
            "recall@10": 1 / 3,
            "ndcg@10": (1 / math.log2(3)) / ideal,
            "hr@50": 1.0,
            "recall@50": 2 / 3,
            "ndcg@50": (1 / math.log2(3) + 1 / math.log2(13)) / ideal,
        }
    )
    missed = m.ranking_of_user(np.array([60.0]))
    assert missed["hr@10"] == missed["ndcg@10"] == missed["recall@10"] == 0
    assert missed["mrr"] == 1 / 60


def test_the_best_ranking_has_an_ndcg_of_one() -> None:
    assert m.ranking_of_user(np.arange(1.0, 4.0))["ndcg@10"] == pytest.approx(1)
    # More relevant items than places: the ideal fills the places.
    many = m.ranking_of_user(np.arange(1.0, 31.0))
    assert many["ndcg@10"] == pytest.approx(1)
    assert many["recall@10"] == pytest.approx(1 / 3)


def test_ranking_is_the_mean_over_users() -> None:
    users = [m.ranking_of_user(np.array([1.0])), m.ranking_of_user(np.array([100.0]))]
    assert m.ranking(users)["hr@10"] == 0.5
    assert m.ranking(users)["mrr"] == pytest.approx(0.505)
    assert m.ranking([]) == {}


# ------------------------------------------------------------------------------------------------ against others


@pytest.fixture(params=range(3))
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    return np.random.default_rng(request.param)


def test_regression_and_binary_against_scikit_learn(rng: np.random.Generator) -> None:
    target, predicted = rng.normal(size=300), rng.normal(size=300)
    found = m.regression(target, predicted)
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(target, predicted))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(target, predicted))
    yes = (rng.random(300) < 0.3).astype(np.float32)
    probability = np.round(rng.random(300), 2).astype(np.float32)  # with ties
    found = m.compute(KINDS["binary"], yes, probability)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(yes, probability))
    assert found["f1"] == pytest.approx(sk.f1_score(yes, probability >= 0.5))
    assert found["precision"] == pytest.approx(sk.precision_score(yes, probability >= 0.5))
    assert found["recall"] == pytest.approx(sk.recall_score(yes, probability >= 0.5))
    assert found["log_loss"] == pytest.approx(sk.log_loss(yes, probability.clip(1e-7, 1 - 1e-7)), rel=1e-5)


def test_classification_and_multilabel_against_scikit_learn(rng: np.random.Generator) -> None:
    target = rng.integers(0, 4, 300).astype(np.float32)
    probability = rng.dirichlet(np.ones(5), 300)  # the fifth class never occurs
    found = m.compute(KINDS["classification"], target, probability)
    chosen = probability.argmax(1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(target, chosen))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(target, chosen, average="macro", zero_division=0))
    many = (rng.random((200, 6)) < 0.3).astype(np.float32)
    scores = np.round(rng.random((200, 6)), 1)
    found = m.compute(KINDS["multilabel"], many, scores)
    ranked = (many.sum(1) > 0) & (many.sum(1) < 6)
    assert 0 < ranked.sum() < 200
    wanted = sk.label_ranking_average_precision_score(many[ranked].astype(int), scores[ranked])
    assert found["lrap"] == pytest.approx(wanted)
    assert found["hamming_loss"] == pytest.approx(np.mean((scores >= 0.5) != many))


def test_calibration_against_torchmetrics(rng: np.random.Generator) -> None:
    from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

    probability = rng.random(500)
    yes = (rng.random(500) < probability**2).astype(int)
    wanted = binary_calibration_error(torch.from_numpy(probability), torch.from_numpy(yes), n_bins=10, norm="l1")
    assert m.expected_calibration_error(yes, probability) == pytest.approx(float(wanted), abs=1e-6)
    classes = rng.dirichlet(np.ones(4), 400)
    target = rng.integers(0, 4, 400)
    wanted = multiclass_calibration_error(
        torch.from_numpy(classes), torch.from_numpy(target), num_classes=4, n_bins=10, norm="l1"
    )
    assert m.classification(target.astype(float), classes)["ece"] == pytest.approx(float(wanted), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(items=st.integers(5, 80), share=st.floats(0.02, 0.9), seen=st.floats(0, 0.5), seed=st.integers(0, 10_000))
def test_full_ranking_against_a_plain_sort(items: int, share: float, seen: float, seed: int) -> None:
    """Sort the candidates, look where the relevant ones stand; scikit-learn and torchmetrics agree."""
    from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_recall, retrieval_reciprocal_rank

    rng = np.random.default_rng(seed)
    scores = rng.permutation(items) + 1.0  # torchmetrics takes a score of 0 or less as no prediction
    allowed = rng.random(items) >= seen
    relevant = np.flatnonzero(allowed & (rng.random(items) < share))
    if len(relevant) == 0 or allowed.sum() < 2:
        return
    order = [i for i in np.argsort(-scores) if allowed[i]]
    ranks = m.mean_ranks(scores, allowed, relevant)
    assert ranks.tolist() == [order.index(i) + 1 for i in relevant]
    found = m.ranking_of_user(ranks)
    gain = np.isin(np.flatnonzero(allowed), relevant).astype(int)
    given_scores, hits = torch.from_numpy(scores[allowed]), torch.from_numpy(gain).bool()
    assert found["mrr"] == pytest.approx(float(retrieval_reciprocal_rank(given_scores, hits)))
    for k in (10, 50):
        first = order[:k]
        inside = [i for i in first if i in relevant]
        assert found[f"hr@{k}"] == float(bool(inside)) == float(retrieval_hit_rate(given_scores, hits, top_k=k))
        assert found[f"recall@{k}"] == pytest.approx(len(inside) / len(relevant))
        assert found[f"recall@{k}"] == pytest.approx(float(retrieval_recall(given_scores, hits, top_k=k)))
        assert found[f"ndcg@{k}"] == pytest.approx(sk.ndcg_score([gain], [scores[allowed]], k=k))


@settings(deadline=None, max_examples=40)
@given(levels=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_ties_share_the_mean_of_all_orders(levels: int, seed: int) -> None:
    """A tied rank is the mean over all tie breaks, so that the order of the catalogue cannot help."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, 12).astype(float)
    allowed = np.ones(12, dtype=bool)
    item = int(rng.integers(12))
    above, equal = int((scores > scores[item]).sum()), int((scores == scores[item]).sum())
    rank = m.mean_ranks(scores, allowed, np.array([item]))[0]
    assert rank == above + np.mean(np.arange(1, equal + 1))
    shuffled = rng.permutation(12)
    place = int(np.flatnonzero(shuffled == item)[0])
    assert m.mean_ranks(scores[shuffled], allowed, np.array([place]))[0] == rank


# ------------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_every_type_has_its_primary_metric_and_nothing_without_examples(kind: str) -> None:
    rng = np.random.default_rng(0)
    shape = (20, 3) if kind in ("multilabel", "profile") else (20,)
    target = (rng.random(shape) < 0.5).astype(np.float32)
    wide = kind in ("multilabel", "profile", "classification")
    predicted = rng.dirichlet(np.ones(3), 20) if wide else rng.random(20)
    found = m.compute(KINDS[kind], target, predicted)
    assert m.PRIMARY[kind] in found
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    assert m.compute(KINDS[kind], target[:0], predicted[:0]) == {}


def test_ranking_is_not_scored_row_by_row() -> None:
    with pytest.raises(TypeError, match="ranking"):
        m.compute(KINDS["next_item"], np.ones(2), np.ones(2))


def test_what_is_better_is_known_for_every_metric() -> None:
    assert [name for name in ("rmse", "mae", "log_loss", "ece", "hamming_loss") if m.higher_is_better(name)] == []
    good = ["auc", "accuracy", "micro_f1", "lrap", "cosine", "ndcg@10", "mrr", "coverage@10", "average_precision"]
    assert [name for name in good if not m.higher_is_better(name)] == []


def test_skill_is_zero_without_skill_and_grows_with_it() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(3, 1, 200)
    mean = [3.0]
    assert m.skill(KINDS["regression"], target, np.full(200, 3.0), mean) == pytest.approx(0)
    assert m.skill(KINDS["regression"], target, target, mean) == 1
    assert m.skill(KINDS["regression"], target, 6 - target, mean) < 0
    yes = (target > 3).astype(float)
    assert m.skill(KINDS["binary"], yes, np.full(200, 0.5), [0.5]) == 0
    assert m.skill(KINDS["binary"], yes, yes, [0.5]) == 1
    half = np.where(rng.random(200) < 0.5, yes, 0.5)
    assert 0 < m.skill(KINDS["binary"], yes, half, [0.5]) < 1
    assert m.skill(KINDS["profile"], np.eye(3), np.eye(3), []) == 1
    assert m.skill(KINDS["regression"], target[:0], target[:0], mean) == 0


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 12), labels=st.integers(2, 6), levels=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_label_ranking_precision_against_scikit_learn(rows: int, labels: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = (rng.random((rows, labels)) < 0.4).astype(float)  # rows with all labels too
    target[target.sum(1) == 0, 0] = 1
    scores = rng.integers(0, levels, (rows, labels)) / levels  # with ties
    found = m.label_ranking_precision(target, scores)
    for row in range(rows):
        wanted = sk.label_ranking_average_precision_score(target[[row]], scores[[row]])
        assert found[row] == pytest.approx(wanted)
