"""PLE: who reads which experts."""

import pytest
import torch

from tests.unit.models.sharing.strategies import build


def test_one_level_by_its_formula() -> None:
    torch.manual_seed(0)
    model = build("ple", ["a", "b"], private_experts=2)
    (level,) = model.levels
    x = torch.randn(5, 6)
    normed = model.norm(x)
    for t, task in enumerate("ab"):
        torch.nn.init.normal_(level.gates[t].linear.weight)
        share = level.gates[t].linear(normed).softmax(-1)
        experts = torch.cat([level.private[t](normed), level.shared(normed)], 1)
        assert experts.shape == (5, 2 + 3, 8)
        torch.testing.assert_close(model(x)[task], (share.unsqueeze(-1) * experts).sum(1))
    assert level.shared_gate is None


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_private_expert_of_the_last_level_belongs_to_its_task_alone(levels: int) -> None:
    model = build("ple", ["a", "b"], levels=levels)
    x = torch.randn(4, 6)
    before = {name: out.detach() for name, out in model(x).items()}
    with torch.no_grad():
        model.levels[-1].private[0].bias.add_(1.0)
    after = model(x)
    assert not after["a"].allclose(before["a"])
    assert after["b"].equal(before["b"])


def test_below_the_last_level_private_experts_are_shared_through_the_shared_gate() -> None:
    model = build("ple", ["a", "b"], levels=2)
    x = torch.randn(4, 6)
    before = model(x)["b"].detach()
    with torch.no_grad():
        model.levels[0].private[0].bias.add_(1.0)
    assert not model(x)["b"].allclose(before)
