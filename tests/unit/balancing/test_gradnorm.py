"""GradNorm by hand, and what it is for."""

import pytest
import torch

from mtrec.balancing.gradnorm import GradNorm


def test_the_first_step_by_hand() -> None:
    """At the start all ratios are 1, so the target is the mean norm: 2, of norms 3 and 1."""
    method = GradNorm(2, lr=0.025)
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    combined = method(rows, torch.tensor([4.0, 0.1]))
    assert combined.tolist() == [3.0, 1.0], "weights begin at 1"
    # Adam's first step is lr against the sign: down for the first, up for the second; their sum is 2 again.
    assert method.weights.tolist() == pytest.approx([0.975, 1.025], abs=1e-4)


def test_norms_are_balanced_in_the_end() -> None:
    method = GradNorm(2)
    rows = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    for _ in range(200):
        method(rows, torch.ones(2))
    assert method.weights.tolist() == pytest.approx([0.5, 1.5], abs=0.05)


def test_a_task_that_lags_behind_gets_more() -> None:
    method = GradNorm(2)
    rows = torch.eye(2)
    method(rows, torch.tensor([1.0, 1.0]))
    for _ in range(100):
        method(rows, torch.tensor([0.5, 1.0]))
    assert method.weights[1] > 1.2 > method.weights[0]
    assert float(method.weights.detach().sum()) == pytest.approx(2)
