"""Temperature scaling: the temperature by hand, what it leaves alone, and where it comes from."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtrec.config import Scenario
from mtrec.data.splits import VALID
from mtrec.evaluation import metrics
from mtrec.evaluation.calibration import calibrate, fit_temperature, logits_of, uncalibrated
from mtrec.evaluation.predict import Predictions, predict
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle
from tests.unit.evaluation.kinds import KINDS

Start = tuple[Bundle, View, Catalogue]
ROWS = 4000


def test_a_yes_no_task_by_hand() -> None:
    """Says 0.88 (log-odds 2) where three of four are yes: the right log-odds are ln 3, so T = 2 / ln 3."""
    target = np.tile([1.0, 1.0, 1.0, 0.0], ROWS)
    found = fit_temperature(KINDS["binary"], target, np.full(len(target), 2.0))
    assert found == pytest.approx(2 / math.log(3), rel=1e-3)
    # The other way round, with log-odds of −0.5 and one yes in four: not sure enough.
    found = fit_temperature(KINDS["binary"], 1 - target, np.full(len(target), -0.5))
    assert found == pytest.approx(0.5 / math.log(3), rel=1e-3)


def test_classes_by_hand() -> None:
    """Logits (z, 0, 0) where the first is right in 3 of 5: e^(z/T) / (e^(z/T) + 2) = 0.6, so z / T = ln 3."""
    target = np.tile([0.0, 0.0, 0.0, 1.0, 2.0, metrics.UNSEEN], ROWS)
    logits = np.tile([4.0, 0.0, 0.0], (len(target), 1))
    assert fit_temperature(KINDS["classification"], target, logits) == pytest.approx(4 / math.log(3), rel=1e-3)


def test_labels_share_one_temperature() -> None:
    target = np.tile([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], (ROWS, 1))
    logits = np.tile([2.0, -2.0], (len(target), 1))
    assert fit_temperature(KINDS["multilabel"], target, logits) == pytest.approx(2 / math.log(3), rel=1e-3)


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
@pytest.mark.parametrize("target", [[], [0.0, 0.0], [1.0, 1.0]])
def test_without_yes_and_no_nothing_is_fitted(kind: str, target: list[float]) -> None:
    assert fit_temperature(KINDS[kind], np.array(target), np.ones(len(target))) == 1


def test_classes_that_training_never_saw_teach_nothing() -> None:
    assert fit_temperature(KINDS["classification"], np.full(3, metrics.UNSEEN), np.eye(3)) == 1


def test_a_small_part_without_a_mistake_does_not_make_the_model_certain() -> None:
    found = fit_temperature(KINDS["binary"], np.array([1.0, 0.0] * 5), np.array([1.0, -1.0] * 5))
    assert 0.2 < found < 1
    # The stationary point by hand: 10 · σ(−1/T) · (1/T) = −log T.
    assert 10 / (1 + math.exp(1 / found)) / found == pytest.approx(-math.log(found), rel=1e-3)


@pytest.mark.parametrize("kind", ["binary", "classification", "multilabel"])
def test_what_was_before_the_temperature_comes_back(kind: str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20 if kind == "binary" else (20, 3)) * 2
    whole = torch.from_numpy(logits)
    plain, scaled = (
        (whole / t).softmax(-1) if kind == "classification" else (whole / t).sigmoid() for t in (1, 2.5)
    )
    nobody = np.full(20, -1)
    given = Predictions(user=nobody, item=nobody, target=nobody, predicted=scaled.float().numpy(), temperature=2.5)
    assert uncalibrated(KINDS[kind], given) == pytest.approx(plain.numpy(), rel=1e-4)
    again = replace(given, predicted=plain.float().numpy(), temperature=1.0)
    assert uncalibrated(KINDS[kind], again) == pytest.approx(plain.numpy(), rel=1e-5)
    assert np.isfinite(logits_of(KINDS[kind], np.array([[0.0, 1.0, 0.0]], dtype=np.float32))).all()


def log_loss(found: Predictions) -> float:
    """What a temperature is fitted to: of classes that of the right one, otherwise that of each yes or no."""
    said, target = torch.from_numpy(found.predicted).double(), torch.from_numpy(found.target)
    if said.dim() > target.dim():
        return float(F.nll_loss(said.log(), target.long()))
    return float(F.binary_cross_entropy(said, target.double()))


def test_the_heads_get_what_the_validation_part_asks_for(shop_start: Start, shop: Scenario) -> None:
    bundle, view, catalogue = shop_start
    model = copy.deepcopy(bundle.model).eval()
    torch.manual_seed(0)
    with torch.no_grad():  # far too sure of itself
        model.head("like").linear.weight.normal_(std=2)
        model.head("category").linear.weight.normal_(std=2)
        model.head("tags").linear.weight.normal_(std=2)
    asked = (model, view, catalogue, {n: t for n, t in shop.tasks.items() if t.type != "next_item"}, VALID, 20)
    before = predict(*asked)[0]
    found = calibrate(model, before)
    probable = {n for n, t in shop.tasks.items() if t.type in ("binary", "classification", "multilabel")}
    assert set(found) == probable
    after = predict(*asked)[0]
    for name in ("like", "category", "tags"):
        task = shop.tasks[name]
        assert found[name] > 1.5, name
        assert float(model.head(name).temperature) == pytest.approx(found[name])
        assert after[name].temperature == pytest.approx(found[name])
        values = [metrics.compute(task, rows[name].target, rows[name].predicted) for rows in (before, after)]
        assert log_loss(after[name]) < log_loss(before[name]), name
        primary = metrics.PRIMARY[task.type]
        assert values[1][primary] == pytest.approx(values[0][primary], abs=1e-6), name
        assert uncalibrated(task, after[name]) == pytest.approx(before[name].predicted, abs=1e-4)
    for name in ("rating", "price", "profile"):
        assert model.head(name).temperature is None
        assert after[name].predicted == pytest.approx(before[name].predicted)
    # Fitted once more from what the calibrated model says, nothing changes.
    again = calibrate(model, after)
    assert again == pytest.approx(found, rel=1e-2)
