"""Thresholds by hand, and where they are taken from."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from mtrec.config import MultiLabel
from mtrec.evaluation import metrics
from mtrec.evaluation.predict import Predictions
from mtrec.evaluation.thresholds import MIN_CARRIERS, best_threshold, choose_thresholds, per_label
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle
from tests.unit.evaluation.kinds import KINDS

Start = tuple[Bundle, View, Catalogue]


@pytest.mark.parametrize(
    ("target", "probability", "wanted"),
    [
        ([1, 1, 0, 0], [0.4, 0.3, 0.2, 0.1], 0.25),  # all and only the yes
        ([1, 0, 1, 0], [0.4, 0.3, 0.2, 0.1], 0.15),  # F1 of 1, 2, 3 and 4 given: 2/3, 1/2, 4/5, 2/3
        ([0, 1], [0.9, 0.1], 0.05),  # down to nothing: half of the lowest
        ([0, 0], [0.9, 0.8], 0.5),  # nothing to find
        ([1, 0, 0, 0], [0.6, 0.2, 0.2, 0.2], 0.4),
        ([1, 0, 1], [0.7, 0.7, 0.1], 0.05),  # equal ones are given together: F1 of 2 and 3: 1/2, 4/5
    ],
)
def test_the_threshold_of_the_best_f1(target: list[int], probability: list[float], wanted: float) -> None:
    assert best_threshold(np.array(target, dtype=float), np.array(probability)) == pytest.approx(wanted)


def test_no_other_threshold_is_better() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(60).round(2)
    target = (rng.random(60) < probability**2).astype(float)

    def f1(threshold: float) -> float:
        return metrics.multilabel(target[:, None], probability[:, None], threshold)["micro_f1"]

    assert f1(best_threshold(target, probability)) == max(f1(t) for t in np.unique(probability))


def test_rare_labels_take_the_common_threshold() -> None:
    few = MIN_CARRIERS - 1
    target = np.zeros((20, 2))
    target[:10, 0] = target[:few, 1] = 1
    probability = np.stack([np.where(target[:, 0] > 0, 0.4, 0.2), np.where(target[:, 1] > 0, 0.1, 0.05)], 1)
    chosen = per_label(target, probability)
    assert chosen[0] == pytest.approx(0.3)
    # Over all 40 decisions: 10 of 14 with 0.4 alone, F1 20/24; with 0.2 20/34; with 0.1 28/38.
    assert chosen[1] == pytest.approx(0.3)
    target[few, 1], probability[few, 1] = 1, 0.1  # one carrier more
    assert per_label(target, probability)[1] == pytest.approx(0.075)


def test_evaluation_counts_what_the_thresholds_give() -> None:
    target = np.array([[1.0, 0.0], [1.0, 1.0]])
    probability = np.array([[0.4, 0.6], [0.3, 0.9]])
    task = KINDS["multilabel"]
    assert metrics.compute(task, target, probability)["micro_f1"] == pytest.approx(2 / (2 + 1 + 2))
    own = metrics.compute(task, target, probability, np.array([0.3, 0.7]))
    assert own["micro_f1"] == own["macro_f1"] == 1
    assert own["hamming_loss"] == 0
    assert own["lrap"] == metrics.compute(task, target, probability)["lrap"]


@pytest.mark.parametrize("strategy", ["fixed", "per_label"])
def test_only_a_task_that_asks_for_thresholds_gets_them(shop_start: Start, strategy: str) -> None:
    bundle = shop_start[0]
    model = copy.deepcopy(bundle.model)
    head = model.head("tags")
    assert isinstance(head.task, MultiLabel)
    assert head.thresholds is not None
    head.task = head.task.model_copy(update={"thresholds": strategy})
    labels = len(bundle.encoding.labels["tags"].values)
    rng = np.random.default_rng(1)
    nobody = np.full(50, -1)
    given = Predictions(
        user=nobody, item=nobody, target=(rng.random((50, labels)) < 0.3) * 1.0, predicted=rng.random((50, labels))
    )
    found = choose_thresholds(model, {"tags": given, "category": given})
    if strategy == "fixed":
        assert found == {}
        assert (head.thresholds == 0.5).all()
    else:
        assert found == {"tags": per_label(given.target, given.predicted).tolist()}
        assert head.thresholds.tolist() == pytest.approx(found["tags"])
    nothing = replace(given, target=given.target[:0], predicted=given.predicted[:0])
    assert choose_thresholds(model, {"tags": nothing}) == {}
