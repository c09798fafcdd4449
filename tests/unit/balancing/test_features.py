"""Gradients at the representation against gradients at the parameters."""

import pytest
import torch
from torch import Tensor, nn

from mtrec.balancing.features import Cut, backward_combined, cosines, effects, task_gradients
from mtrec.balancing.methods import GRADIENT_METHODS, Balancer


class Net(nn.Module):
    """An encoder, a trunk that two tasks share, and three heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Linear(4, 6)
        self.trunk = nn.Linear(6, 5)
        self.heads = nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1), nn.Linear(6, 1)])
        self.passes = 0
        self.encoder.register_full_backward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1

    def losses(self, shared: Tensor) -> list[Tensor]:
        trunk = self.trunk(shared).tanh()
        outs = [self.heads[0](trunk), self.heads[1](trunk), self.heads[2](shared)]
        return [(out - k).pow(2).mean() for k, out in enumerate(outs)]

    @property
    def above(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), *self.heads.parameters()]


INPUTS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)


def through_the_cut(net: Net, combine: object) -> dict[str, Tensor]:
    net.zero_grad()
    cut = Cut.through([net.encoder(INPUTS).tanh()])
    gradients = task_gradients(net.losses(cut.read[0]), cut, net.above)
    backward_combined(gradients, cut, combine)  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def test_the_sum_through_the_cut_is_plain_backward() -> None:
    net = Net()
    torch.stack(net.losses(net.encoder(INPUTS).tanh())).sum().backward()
    plain = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    found = through_the_cut(net, lambda rows: rows.sum(0))
    assert found.keys() == plain.keys() == dict(net.named_parameters()).keys()
    for name, grad in plain.items():
        torch.testing.assert_close(found[name], grad)


def test_the_encoder_runs_backward_once() -> None:
    net = Net()
    through_the_cut(net, Balancer("upgrad", dict.fromkeys("abc", 1.0)).core)
    assert net.passes == 1


def test_what_one_task_reaches_gets_its_own_gradient_whatever_the_method() -> None:
    net = Net()
    plain = through_the_cut(net, lambda rows: rows.sum(0))
    found = through_the_cut(net, lambda rows: rows.sum(0) * 0)
    for name in plain:
        if name.startswith("heads."):
            assert found[name].equal(plain[name])
        else:
            assert not found[name].any()


METHODS = [m for m in GRADIENT_METHODS if m != "graddrop"]  # draws a random sign per entry


@pytest.mark.parametrize("method", METHODS)
def test_equal_to_the_parameters_where_the_shared_layer_keeps_lengths_and_angles(method: str) -> None:
    """With an orthogonal map below the cut, gradients have the same angles at the features as at the weights."""
    torch.manual_seed(0)
    inputs = torch.linalg.qr(torch.randn(6, 6)).Q  # X Xᵀ = 1, so the Gramian of dW = Xᵀ G is that of G
    weight = nn.Parameter(torch.randn(6, 6))
    target = torch.randn(3, 6, 6)

    def losses(features: Tensor) -> list[Tensor]:
        return [(features - t).pow(2).sum().sqrt() * (k + 1) for k, t in enumerate(target)]

    def core() -> nn.Module:
        return Balancer(method, dict.fromkeys("abc", 1.0)).core

    cut = Cut.through([inputs @ weight])
    torch.manual_seed(3)
    backward_combined(task_gradients(losses(cut.read[0]), cut, []), cut, core())
    rows = [torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses(inputs @ weight)]
    torch.manual_seed(3)
    wanted = core()(torch.stack(rows)).view(6, 6)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, wanted, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("method", ["upgrad", "pcgrad"])
def test_equal_to_torchjd_at_the_parameters_when_the_representation_is_the_parameters(method: str) -> None:
    """An embedding table is its own representation; TorchJD's own backward over it is the reference."""
    from torchjd.autojac import jac_to_grad, mtl_backward

    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(5, 3))
    target = torch.randn(3, 5, 3)

    def losses(features: Tensor) -> list[Tensor]:
        return [(features - t).pow(2).mean() for t in target]

    cut = Cut.through([table * 1.0])
    balancer = Balancer(method, dict.fromkeys("abc", 1.0))
    torch.manual_seed(3)
    backward_combined(task_gradients(losses(cut.read[0]), cut, []), cut, balancer.core)
    assert table.grad is not None
    found, table.grad = table.grad, None
    features = table * 1.0
    mtl_backward(losses(features), features=features)
    torch.manual_seed(3)
    jac_to_grad([table], Balancer(method, dict.fromkeys("abc", 1.0)).core)
    torch.testing.assert_close(found, table.grad)


def test_a_task_that_never_reaches_the_representation_has_a_row_of_zeros() -> None:
    cut = Cut.through([torch.randn(3, requires_grad=True) * 1.0])
    own = nn.Parameter(torch.ones(2))
    gradients = task_gradients([cut.read[0].sum(), own.sum()], cut, [own])
    assert gradients.jacobian_KD.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert [grad.tolist() for _, grad in gradients.private] == [[1, 1]]


def test_cosines_and_effects_by_hand() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(cosines(rows)[:2, :2], torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
    assert not cosines(rows)[2].any()
    found = effects(rows, torch.tensor([10.0, 4.0, 1.0]))
    # A unit step on the first task moves along (0.6, 0.8): the first falls by 5 of 10, the second by 1.6 of 4.
    torch.testing.assert_close(found[0], torch.tensor([0.5, 0.4, 0.0]))
    torch.testing.assert_close(found[1], torch.tensor([0.4, 0.5, 0.0]))
