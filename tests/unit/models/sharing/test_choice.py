"""What holds for every sharing strategy."""

import pytest
import torch

from mtrec.models.sharing.mmoe import MMoE
from mtrec.models.sharing.ple import PLE
from mtrec.models.sharing.shared_bottom import SharedBottom
from tests.unit.models.sharing.strategies import build

STRATEGIES = ["shared_bottom", "mmoe", "ple"]


@pytest.mark.parametrize(("sharing", "kind"), zip(STRATEGIES, [SharedBottom, MMoE, PLE], strict=True))
def test_the_scenario_names_the_strategy(sharing: str, kind: type) -> None:
    assert isinstance(build(sharing, ["a"]), kind)


@pytest.mark.parametrize("sharing", STRATEGIES)
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (0, 6)])
def test_each_task_gets_its_features(sharing: str, shape: tuple[int, ...]) -> None:
    found = build(sharing, ["a", "b"], levels=2)(torch.randn(shape))
    assert {name: tuple(out.shape) for name, out in found.items()} == dict.fromkeys("ab", (*shape[:-1], 8))


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_examples_are_independent(sharing: str) -> None:
    model = build(sharing, ["a", "b"], levels=2)
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(model(x)["b"][2, 1], model(x[2, 1])["b"])


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_every_parameter_learns(sharing: str) -> None:
    torch.manual_seed(0)
    model = build(sharing, ["a", "b"], levels=2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # what starts at zero passes its gradient on from the second step
        optimiser.zero_grad()
        found = model(torch.randn(20, 6))
        (found["a"].pow(2).mean() + found["b"].sin().mean()).backward()
        optimiser.step()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("sharing", STRATEGIES)
def test_a_task_reaches_what_is_shared_and_its_own_conditioning_only(sharing: str) -> None:
    model = build(sharing, ["a", "b"])
    torch.nn.init.normal_(model.conditioning.modulation.weight)
    model(torch.randn(20, 6))["a"].pow(2).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    embedding = grads.pop("conditioning.embedding")
    assert embedding is not None
    assert embedding[0].any()
    assert not embedding[1].any()
    untouched = {name for name, grad in grads.items() if grad is None or not grad.any()}
    assert all(".private.1." in n or "gates.1." in n for n in untouched)
    assert bool(untouched) == (sharing != "shared_bottom")
