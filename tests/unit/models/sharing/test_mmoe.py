"""MMoE against its formula, expert by expert."""

import torch
from torch.nn import functional as F

from tests.unit.models.sharing.strategies import build


def test_the_mixture_by_its_formula() -> None:
    torch.manual_seed(0)
    model = build("mmoe", ["a", "b"])
    for gate in model.gates:
        torch.nn.init.normal_(gate.linear.weight)
    x = torch.randn(5, 6)
    normed = F.layer_norm(x, (6,))
    experts = [F.gelu(normed @ model.experts.weight[e] + model.experts.bias[e]) for e in range(3)]
    for task, gate in zip("ab", model.gates, strict=True):
        share = gate.linear(normed).softmax(-1)
        wanted = sum(share[:, [e]] * expert for e, expert in enumerate(experts))
        torch.testing.assert_close(model(x)[task], wanted)


def test_untrained_gates_take_the_mean_of_the_experts() -> None:
    model = build("mmoe", ["a", "b"])
    x = torch.randn(5, 6)
    found = model(x)
    torch.testing.assert_close(found["a"], model.experts(model.norm(x)).mean(1))
    assert found["a"].equal(found["b"])
