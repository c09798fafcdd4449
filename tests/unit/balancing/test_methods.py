"""Every balancing method by name: what it does to losses and gradients, and that it survives a checkpoint."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mtrec.balancing.methods import GRADIENT_METHODS, METHODS, Balancer
from mtrec.config import Training
from mtrec.errors import ConfigError

TASKS = {"a": 1.0, "b": 2.0, "c": 0.5}
OVER_LOSSES = [m for m in METHODS if m not in GRADIENT_METHODS and m != "gradnorm"]
OVER_GRADIENTS = [m for m in METHODS if m not in OVER_LOSSES]


def losses(*values: float) -> dict[str, Tensor]:
    return dict(zip(TASKS, torch.tensor(values, requires_grad=True), strict=True))


def joint(balancer: Balancer, single: dict[str, Tensor]) -> Tensor:
    return balancer.joint(torch.stack(balancer.weighted(single)))


def test_the_scenario_knows_every_method() -> None:
    assert set(get_args(Training.model_fields["balancing"].annotation)) == set(METHODS)


def test_static_is_the_weighted_sum() -> None:
    balancer = Balancer("static", TASKS)
    assert float(joint(balancer, losses(2.0, 3.0, 8.0)).detach()) == 2 + 6 + 4


def test_a_weight_of_zero_switches_a_task_off() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    balancer = Balancer("static", {"a": 1.0, "b": 0.0})
    joint(balancer, {"a": x**2, "b": 7 * x}).backward()
    assert x.grad is not None
    assert float(x.grad) == 6


def test_a_task_without_a_loss_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Balancer("static", {"a": 1.0, "b": 1.0}).weighted({"a": torch.tensor(1.0)})


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(-3, 3)), min_size=1, max_size=6))
def test_the_gradient_of_the_sum_is_the_weighted_sum_of_gradients(tasks: list[tuple[float, float]]) -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    single = {f"t{i}": torch.sin(c * x).sum() + i * x.prod() for i, (_, c) in enumerate(tasks)}
    alpha = {f"t{i}": a for i, (a, _) in enumerate(tasks)}
    balancer = Balancer("static", alpha)
    (found,) = torch.autograd.grad(joint(balancer, single), x, retain_graph=True)
    parts = [alpha[n] * torch.autograd.grad(loss, x, retain_graph=True)[0] for n, loss in single.items()]
    torch.testing.assert_close(found, torch.stack(parts).sum(0), atol=1e-4, rtol=1e-4)


def test_log_sum_weighs_every_task_by_the_inverse_of_its_loss() -> None:
    given_losses = losses(2.0, 3.0, 8.0)
    balancer = Balancer("log_sum", TASKS)
    value = joint(balancer, given_losses)
    assert float(value.detach()) == pytest.approx(math.log(2) + math.log(6) + math.log(4), abs=1e-5)
    grads = torch.autograd.grad(value, list(given_losses.values()))
    assert [float(g) for g in grads] == pytest.approx([1 / 2, 1 / 3, 1 / 8], rel=1e-4)


@pytest.mark.parametrize("method", OVER_LOSSES)
def test_methods_over_losses_let_every_task_learn(method: str) -> None:
    given_losses = losses(2.0, 3.0, 8.0)
    balancer = Balancer(method, TASKS)
    value = joint(balancer, given_losses)
    grads = torch.autograd.grad(value, list(given_losses.values()))
    assert all(float(g) > 0 for g in grads)


CONFLICT = torch.tensor([[3.0, 0.0, 0.3], [-0.9, 0.5, 0.1], [0.2, 0.2, 0.2]])


@pytest.mark.parametrize("method", OVER_GRADIENTS)
def test_methods_over_gradients_leave_agreeing_tasks_going_the_same_way(method: str) -> None:
    torch.manual_seed(0)
    row = torch.tensor([1.0, -2.0, 0.5])
    found = Balancer(method, TASKS).combine(row.repeat(3, 1), torch.ones(3))
    assert torch.cosine_similarity(found, row, dim=0) > 0.999


@pytest.mark.parametrize("method", ["upgrad", "dualproj", "mgda", "nash_mtl"])
def test_no_task_is_made_worse_by_methods_that_promise_it(method: str) -> None:
    found = Balancer(method, TASKS).combine(CONFLICT, torch.ones(3))
    assert (CONFLICT @ CONFLICT.sum(0)).min() < 0, "the plain sum does"
    assert (CONFLICT @ found >= -1e-2).all()


def test_pcgrad_by_hand() -> None:
    """Two opposed rows: each loses its part along the other."""
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    found = Balancer("pcgrad", {"a": 1.0, "b": 1.0}).combine(torch.stack([a, b]), torch.ones(2))
    projected = (a - (a @ b) / (b @ b) * b) + (b - (b @ a) / (a @ a) * a)
    torch.testing.assert_close(found, projected)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_balancer_goes_on_like_an_unbroken_one(method: str) -> None:
    def epoch(balancer: Balancer, number: int) -> list[Tensor]:
        torch.manual_seed(number)
        found = []
        optimiser = torch.optim.SGD(balancer.learned, lr=0.1) if balancer.learned else None
        for _ in range(4):
            values = torch.rand(3, requires_grad=True) + 0.5
            if balancer.combines_gradients:
                found.append(balancer.combine(torch.randn(3, 6), values.detach()))
            else:
                value = balancer.joint(values)
                found.append(torch.autograd.grad(value, values, retain_graph=True)[0])
                if optimiser:
                    optimiser.zero_grad()
                    value.backward()
                    optimiser.step()
        balancer.end_epoch()
        return found

    unbroken = Balancer(method, TASKS)
    epoch(unbroken, 0)
    epoch(unbroken, 1)
    resumed = Balancer(method, TASKS)
    resumed.remember({name: value.clone() for name, value in unbroken.memory().items()})
    for mine, other in zip(epoch(resumed, 2), epoch(unbroken, 2), strict=True):
        torch.testing.assert_close(mine, other)


def test_famo_shifts_weight_to_the_task_that_falls_behind() -> None:
    balancer = Balancer("famo", {"a": 1.0, "b": 1.0})
    for step in range(60):
        values = torch.tensor([0.97**step, 1.0], requires_grad=True)
        value = balancer.joint(values)
    grads = torch.autograd.grad(value, values)[0] * values.detach()  # relative rates
    assert grads[1] > 1.2 * grads[0]


def test_dwa_weighs_by_the_rates_of_two_epochs() -> None:
    balancer = Balancer("dwa", {"a": 1.0, "b": 1.0})
    for a, b in ((1.0, 1.0), (0.5, 1.0)):
        values = torch.tensor([a, b], requires_grad=True)
        balancer.joint(values)
        balancer.end_epoch()
    grads = torch.autograd.grad(balancer.joint(values), values)[0]
    share = torch.softmax(torch.tensor([0.5, 1.0]) / 2, 0) * 2
    torch.testing.assert_close(grads, share)


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("static", {"c": 1.0}, "method 'static' takes none"),
        ("pcgrad", {"c": 1.0}, "method 'pcgrad' does not take them"),
        ("cagrad", {"radius": 1.0}, "method 'cagrad' does not take them"),
        ("stch", {"mu": -1.0}, "method 'stch' does not take them"),
        ("dwa", {"temperature": 0.0}, "method 'dwa' does not take them"),
    ],
)
def test_wrong_options_are_one_line(method: str, options: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=f"training.balancing_options: {says}"):
        Balancer(method, TASKS, options)


def test_options_reach_the_method() -> None:
    near, far = (Balancer("cagrad", TASKS, {"c": c}).combine(CONFLICT, torch.ones(3)) for c in (0.01, 0.9))
    assert not near.allclose(far, atol=1e-3)


def test_no_solver_speaks_up(recwarn: pytest.WarningsRecorder) -> None:
    rows = torch.tensor([[1.0, 0.2, 0.0], [0.1, 1e-6, 0.9]])
    balancer = Balancer("nash_mtl", {"a": 1.0, "b": 1.0})
    for _ in range(2):
        balancer.combine(rows, torch.ones(2))
    assert not recwarn.list
