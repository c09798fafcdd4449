"""Heads start at the training prior and speak the label's units."""

import math
from typing import Any

import pytest
import torch

from mtrec.config import Task, parse_scenario
from mtrec.data.labels import Label
from mtrec.models import losses
from mtrec.models.heads import Head, num_outputs


def task(**declared: Any) -> Task:
    return parse_scenario({"name": "test", "tasks": {"it": declared}}).tasks["it"]


REGRESSION = task(type="regression", on="pair", label="interactions.rating")
BINARY = task(type="binary", on="pair", exposure=["view"], positive=["purchase"])
CLASSES = task(type="classification", on="item", label="items.category")
MULTI = task(type="multilabel", on="item", label="items.tags")
PROFILE = task(type="profile", on="user", label="items.tags", cos_gt=0.5)
PRIORS: list[tuple[Task, Label]] = [
    (REGRESSION, Label(values=[], prior=[3.5], scale=2.0)),
    (BINARY, Label(values=[], prior=[0.2])),
    (CLASSES, Label(values=["a", "b", "c"], prior=[0.5, 0.3, 0.2])),
    (MULTI, Label(values=["a", "b"], prior=[0.6, 0.1])),
    (PROFILE, Label(values=["a", "b"], prior=[0.6, 0.1])),
    (MULTI, Label(values=["a"], prior=[0.25])),
]


@pytest.mark.parametrize(("declared", "label"), PRIORS, ids=lambda value: getattr(value, "type", ""))
def test_an_untrained_head_predicts_the_training_prior(declared: Task, label: Label) -> None:
    torch.manual_seed(0)
    head = Head(declared, label, num_inputs=6)
    outputs = head(torch.randn(4, 6))
    width = num_outputs(declared, label)
    vector = declared.type in ("multilabel", "profile", "classification")
    assert outputs.shape == ((4, width) if vector else (4,))
    wanted = torch.tensor(label.prior if vector else label.prior[0]).expand_as(outputs)
    torch.testing.assert_close(head.predict(outputs), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_extreme_priors_stay_finite_and_can_be_unlearned(share: float) -> None:
    head = Head(BINARY, Label(values=[], prior=[share]), num_inputs=3)
    loss = head.loss(head(torch.ones(2, 3)), torch.tensor([1.0 - share, 1.0 - share]), torch.ones(2))
    loss.backward()
    assert loss.isfinite()
    assert head.linear.bias.grad is not None
    assert head.linear.bias.grad.abs() > 0.5


def test_regression_is_learned_in_standard_deviations_and_said_in_units() -> None:
    head = Head(REGRESSION, PRIORS[0][1], num_inputs=3)
    outputs = torch.tensor([0.0, 1.0, -0.5])
    assert head.predict(outputs).tolist() == [3.5, 5.5, 2.5]
    target = torch.tensor([3.5, 3.5, math.nan])
    # Errors in standard deviations: 0 and 1.
    assert float(head.loss(outputs, target, ~target.isnan())) == 0.5


def test_numbers_stay_within_what_training_saw() -> None:
    limited = Label(values=[], prior=[3.5], scale=2.0, limits=[1.0, 5.0])
    head = Head(REGRESSION, limited, num_inputs=3)
    assert head.predict(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [1.0, 3.5, 5.0]
    # The loss is not clipped: a wild prediction is still corrected.
    outputs = torch.tensor([9.0], requires_grad=True)
    head.loss(outputs, torch.tensor([3.5]), torch.ones(1)).backward()
    assert outputs.grad is not None
    assert float(outputs.grad) == 18


def test_each_type_uses_its_own_loss() -> None:
    torch.manual_seed(1)
    every = torch.ones(5)
    raw, logits = torch.randn(5), torch.randn(5, 3)
    yes, many = (torch.rand(5) < 0.5).float(), (torch.rand(5, 3) < 0.5).float()
    three = Label(values=["a", "b", "c"], prior=[0.4, 0.3, 0.3])
    found = [
        (Head(BINARY, PRIORS[1][1], 2).loss(raw, yes, every), losses.binary_loss(raw, yes, every)),
        (Head(CLASSES, three, 2).loss(logits, yes, every), losses.classification_loss(logits, yes, every)),
        (Head(MULTI, three, 2).loss(logits, many, every), losses.multilabel_loss(logits, many, every)),
        (Head(PROFILE, three, 2).loss(logits, many, every), losses.profile_loss(logits, many, every, 0.5)),
    ]
    for loss, wanted in found:
        assert float(loss) == float(wanted)
