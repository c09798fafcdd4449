"""The joint loss with static weights; its gradient on the whole model is tested beside the model."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtrec.balancing.static import joint_loss


def test_the_weighted_sum_by_hand() -> None:
    losses = {"rating": torch.tensor(2.0), "category": torch.tensor(3.0), "next_item": torch.tensor(0.5)}
    assert float(joint_loss(losses, {"rating": 1.0, "category": 0.5, "next_item": 4.0})) == 5.5


def test_a_weight_of_zero_switches_a_task_off() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    joint = joint_loss({"a": x**2, "b": 7 * x}, {"a": 1.0, "b": 0.0})
    joint.backward()
    assert float(joint.detach()) == 9
    assert x.grad is not None
    assert float(x.grad) == 6


def test_a_task_without_a_weight_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        joint_loss({"a": torch.tensor(1.0)}, {"b": 1.0})


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-3, 3)), min_size=1, max_size=6))
def test_its_gradient_is_the_weighted_sum_of_the_tasks_gradients(tasks: list[tuple[float, float]]) -> None:
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    losses = {f"t{i}": torch.sin(c * x).sum() + i * x.prod() for i, (_, c) in enumerate(tasks)}
    alpha = {f"t{i}": a for i, (a, _) in enumerate(tasks)}
    (joint,) = torch.autograd.grad(joint_loss(losses, alpha), x, retain_graph=True)
    single = [alpha[n] * torch.autograd.grad(loss, x, retain_graph=True)[0] for n, loss in losses.items()]
    torch.testing.assert_close(joint, torch.stack(single).sum(0))
