"""Task gradients at the shared representation, combined there, and sent through the encoder once.

The model is cut where the towers end and the heads begin. Above the cut each task's graph runs backward once, on
its own; that gives the K × D Jacobian of the losses at the representation. A method of `mtrec.balancing.methods`
makes one gradient of its K rows, and that one runs backward through the towers and the encoder. The cost below the
cut does not grow with the number of tasks (Sener & Koltun 2018, arXiv:1810.04650, section 3.3, do so for MGDA).

Shapes: K tasks, D entries of the representation and of the parameters above the cut that tasks share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Combine = Callable[[Tensor], Tensor]
"""Jacobian (K, D) to one gradient (D,)."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The shared representation, twice: as the towers made it, and as leaves that the heads read."""

    made: list[Tensor]
    read: list[Tensor]

    @classmethod
    def through(cls, tensors: Sequence[Tensor]) -> Cut:
        """Cut the graph at some tensors."""
        return cls(made=list(tensors), read=[t.detach().requires_grad_() for t in tensors])

    def backward(self, grads: Sequence[Tensor | None]) -> None:
        """Go on below the cut with the gradients of `read`."""
        pairs = [(t, g) for t, g in zip(self.made, grads, strict=True) if t.requires_grad and g is not None]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])


@dataclass(frozen=True, kw_only=True)
class TaskGradients:
    """Gradients above a cut."""

    jacobian_KD: Tensor
    """One row per task over the representation and then over `shared`."""
    shared: list[nn.Parameter]
    """Parameters that more than one task reaches."""
    private: list[tuple[nn.Parameter, Tensor]]
    """Parameters that one task reaches, with their gradient."""


def task_gradients(
    losses: Sequence[Tensor], cut: Cut, parameters: Sequence[nn.Parameter], *, keep_graph: bool = False
) -> TaskGradients:
    """Run each loss backward down to the cut.

    Args:
        losses: K scalars that depend on `cut.read`; not slices of one tensor, whose graphs would all be the same.
        cut: where to stop.
        parameters: those that may lie above the cut.
        keep_graph: leave the graphs for another backward.
    """
    rows, found = [], []
    for k, loss in enumerate(losses):
        grads = torch.autograd.grad(
            loss, [*cut.read, *parameters], retain_graph=keep_graph or k + 1 < len(losses), allow_unused=True
        )
        rows.append([torch.zeros_like(t) if g is None else g for t, g in zip(cut.read, grads, strict=False)])
        found.append(grads[len(cut.read) :])
    shared, private = [], []
    for parameter, grads in zip(parameters, zip(*found, strict=True), strict=True):
        own = [grad for grad in grads if grad is not None]
        if len(own) == 1:
            private.append((parameter, own[0]))
        elif own:
            shared.append(parameter)
            for row, grad in zip(rows, grads, strict=True):
                row.append(torch.zeros_like(parameter) if grad is None else grad)
    jacobian_KD = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    return TaskGradients(jacobian_KD=jacobian_KD, shared=shared, private=private)


def backward_combined(gradients: TaskGradients, cut: Cut, combine: Combine) -> None:
    """Combine the rows and send the result through everything that the tasks share, once.

    Adds to `grad` of every parameter; a private one gets its own task's gradient.
    """
    tensors = [*cut.read, *gradients.shared]
    parts = combine(gradients.jacobian_KD).split([t.numel() for t in tensors])
    combined = [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]
    for parameter, grad in [*gradients.private, *zip(gradients.shared, combined[len(cut.read) :], strict=True)]:
        parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad
    cut.backward(combined[: len(cut.read)])


def cosines(jacobian_KD: Tensor) -> Tensor:
    """Cosines between the tasks' gradients, (K, K); 0 where one vanishes."""
    norm_K1 = jacobian_KD.norm(dim=1, keepdim=True).clamp(min=1e-12)
    unit_KD = jacobian_KD / norm_K1
    return unit_KD @ unit_KD.T


def effects(jacobian_KD: Tensor, losses_K: Tensor) -> Tensor:
    """What a step on one task does to the others: row i, column j is the relative fall of loss j, (K, K).

    First order, for a step of length 1 against the gradient of task i: gᵢ·gⱼ / (|gᵢ| Lⱼ). This is the inter-task
    affinity of Fifty et al. 2021 (arXiv:2109.04617) without its second forward pass.
    """
    norm_K1 = jacobian_KD.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (jacobian_KD @ jacobian_KD.T) / norm_K1 / losses_K.abs().clamp(min=1e-12)
