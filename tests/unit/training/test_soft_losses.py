"""What a student loses by answering otherwise than its teacher."""

import pytest
import torch
from pydantic import TypeAdapter

from mtrec.config import Task
from mtrec.training.soft_losses import soft_loss
from tests.unit.tiny_shop import TASKS

KINDS = ["rating", "like", "category", "tags", "profile", "next_item"]


def task(name: str) -> Task:
    return TypeAdapter(Task).validate_python(TASKS[name])


@pytest.mark.parametrize("name", KINDS)
def test_zero_for_equal_answers_and_downhill_towards_the_teacher(name: str) -> None:
    shape = (50,) if name in ("rating", "like") else (50, 7)
    torch.manual_seed(0)
    theirs = torch.randn(shape).abs()
    assert float(soft_loss(task(name), theirs.clone(), theirs, 2.0)) == pytest.approx(0, abs=1e-6)
    mine = torch.randn(shape, requires_grad=True)
    loss = soft_loss(task(name), mine, theirs, 2.0)
    loss.backward()
    assert mine.grad is not None
    nearer = soft_loss(task(name), mine - 0.5 * mine.grad, theirs, 2.0)
    assert 0 < float(nearer) < float(loss)


def test_classes_by_hand() -> None:
    mine, theirs = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    p = torch.tensor([1.0, 0.0]).softmax(0)
    expected = 4 * float((p * (p / 0.5).log()).sum())
    assert float(soft_loss(task("category"), mine, theirs, 2.0)) == pytest.approx(expected)
    assert float(soft_loss(task("next_item"), mine, theirs, 2.0)) == pytest.approx(expected)
    both = soft_loss(task("tags"), mine, theirs, 2.0)
    yes = torch.tensor([1.0, 0.0]).sigmoid()
    divergence = yes * (yes / 0.5).log() + (1 - yes) * ((1 - yes) / 0.5).log()
    assert float(both) == pytest.approx(4 * float(divergence.mean()), abs=1e-6)
    assert float(soft_loss(task("rating"), torch.tensor([1.0]), torch.tensor([3.0]), 2.0)) == 4.0


def test_a_temperature_hardly_changes_the_size_of_small_gradients() -> None:
    torch.manual_seed(0)
    theirs = 0.01 * torch.randn(20, 5)
    sizes = []
    for temperature in (1.0, 4.0):
        mine = torch.zeros(20, 5, requires_grad=True)
        soft_loss(task("category"), mine, theirs, temperature).backward()
        assert mine.grad is not None
        sizes.append(float(mine.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_nothing_to_compare() -> None:
    assert float(soft_loss(task("category"), torch.zeros(0, 3), torch.zeros(0, 3), 2.0)) == 0
