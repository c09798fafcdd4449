"""Training in several processes: who computes what, and what they tell each other.

Every process knows the whole dataset and walks through the same batches. Of each batch it takes every n-th window,
of the texts to encode every n-th text; the vectors are gathered, and their gradients go back to who encoded them.
The losses are means over the examples of all processes, and their gradients are summed once per step. So a step
means the same in any number of processes. What is drawn for the batch as a whole (ids dropped, texts, negatives)
comes from a generator that is alike everywhere; dropout is drawn by each process on its own.

Why not `DistributedDataParallel`: its hooks see one backward pass of one module. A step here may go backward
several times and through `torch.autograd.grad` (`mtrec.balancing.features`), which they would miss. `fully_shard`
is used as it is, on the encoder, where the weights are.

Shapes: B windows, T events, X examples, K tasks, D entries of a Jacobian, n texts, E the encoder's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.errors import RunError
from mtrec.models.encoder import TextEncoder, transformer_layers
from mtrec.models.losses import EMPTY
from mtrec.models.text_batches import Share

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A task's loss over the examples that one process holds."""

    mean: Tensor
    """Over those in the mask; 0 when there is none."""
    mask: Tensor


class Processes:
    """The processes of one run, seen from one of them. `Processes()` is a run of one, and does nothing.

    Args:
        rank: number of this process.
        size: how many there are.
        shards: whether the encoder's weights are split among them.
        device: where the tensors are.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, *, shards: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.rank, self.size, self.shards, self.device = rank, size, shards, torch.device(device)
        self.draws = torch.Generator(device) if size > 1 else None
        """Draws the same in every process; None: torch's global generator does."""
        self.host_draws = torch.Generator() if size > 1 and self.device.type != "cpu" else self.draws
        """The same for what is drawn on the host, so that no GPU is waited for."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, logs and validates."""
        return self.rank == 0

    # -------------------------------------------------------------------------------------- setting up

    def spread(self, encoder: TextEncoder) -> None:
        """Split the texts of an encoder among the processes, and its weights too where they are sharded."""
        if self.size == 1:
            return
        encoder.share = Share(rank=self.rank, size=self.size, gather=_Gather.apply)
        if not self.shards:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        encoder.reuse(None)  # all processes must run through the same layers
        encoder.share = Share(rank=self.rank, size=self.size, gather=_Gather.apply, one_group=True)
        mesh = init_device_mesh(self.device.type, (self.size,))
        for part in (*transformer_layers(encoder.backbone), encoder.backbone):
            fully_shard(part, mesh=mesh)
        for module in encoder.backbone.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # sums, like all gradients here
                module.set_force_sum_reduction_for_comms(True)

    def start_alike(self, model: nn.Module) -> None:
        """Take over the first process's weights, those that are not sharded."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                if not _sharded(tensor):
                    dist.broadcast(tensor, 0)

    def agree(self, value: Any, what: str) -> None:
        """Check that all processes have the same.

        Raises:
            RunError: they do not, in every process.
        """
        if self.size == 1:
            return
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        if any(other != found[0] for other in found):
            raise RunError(
                f"training: the {self.size} processes do not have the same {what}; give all of them the same "
                "scenario and code, and dataset and checkpoints on a volume that they share"
            )

    # -------------------------------------------------------------------------------------- one step

    def seed(self, seed: int) -> None:
        """Begin the random draws of a step."""
        if self.draws is None or self.host_draws is None:
            torch.manual_seed(seed)
        else:
            torch.manual_seed(hash((seed, self.rank)) % 2**31)
            self.draws.manual_seed(seed)
            self.host_draws.manual_seed(seed)

    def draw_alike(self) -> None:
        """From here to the next `seed` torch's global generator draws the same in every process."""
        if self.draws is not None:
            torch.manual_seed(self.draws.initial_seed())

    def part(self, values_X: Tensor) -> Tensor:
        """This process's share of what all of them have."""
        return values_X if self.size == 1 else values_X[self.rank :: self.size]

    def windows(self, rows_BT: np.ndarray, values_B: Tensor) -> tuple[np.ndarray, Tensor]:
        """This process's windows of a batch with their values; one without events where there are too few."""
        if self.size == 1:
            return rows_BT, values_B
        if self.rank >= len(rows_BT):
            return np.full_like(rows_BT[:1], -1), values_B[:1]
        return rows_BT[self.rank :: self.size], values_B[self.rank :: self.size]

    def means(self, losses: Mapping[str, Examples]) -> dict[str, Tensor]:
        """The tasks' mean losses over the examples of all processes.

        Their values are the same everywhere; their gradients are this process's part, for `sum_gradients`.
        """
        if self.size == 1:
            return {name: loss.mean for name, loss in losses.items()}
        means_K = torch.stack([loss.mean.detach().float() for loss in losses.values()])
        counts_K = torch.stack([loss.mask.sum() for loss in losses.values()]).float()
        total_2K = torch.stack([counts_K, counts_K * means_K])
        dist.all_reduce(total_2K)
        all_K = total_2K[0].clamp(min=EMPTY)
        shares, values = (counts_K / all_K).unbind(), (total_2K[1] / all_K).unbind()
        parts = [loss.mean * share for loss, share in zip(losses.values(), shares, strict=True)]
        return {
            name: part + (value - part.detach()) for name, part, value in zip(losses, parts, values, strict=True)
        }

    def jacobian(self, local_KD: Tensor, own: int) -> Tensor:
        """The Jacobian of all processes' tasks, the same everywhere.

        Args:
            local_KD: this process's part of it.
            own: how many columns at the front belong to what it alone has (its users' states). The others belong
                to what all have, and are summed.
        """
        if self.size == 1:
            return local_KD
        rest_KD = local_KD[:, own:].contiguous()
        dist.all_reduce(rest_KD)
        widths = self._widths(own)
        padded_KD = F.pad(local_KD[:, :own], (0, max(widths) - own))
        parts = padded_KD.new_empty(self.size, *padded_KD.shape)
        dist.all_gather_single(parts.flatten(0, 1), padded_KD)
        return torch.cat([*(part[:, :width] for part, width in zip(parts, widths, strict=True)), rest_KD], dim=1)

    def across(self, combine: Callable[[Tensor], Tensor], own: int) -> Callable[[Tensor], Tensor]:
        """Let a method that combines the rows of a Jacobian see all processes' and get this one's columns back.

        Of the columns that all have each gets an equal share, because `sum_gradients` adds them up.
        """
        if self.size == 1:
            return combine

        def combined(local_KD: Tensor) -> Tensor:
            row_D = combine(self.jacobian(local_KD, own))
            widths = self._widths(own)
            start = sum(widths[: self.rank])
            return torch.cat([row_D[start : start + own], row_D[sum(widths) :] / self.size])

        return combined

    def _widths(self, own: int) -> list[int]:
        found = torch.empty(self.size, dtype=torch.long, device=self.device)
        dist.all_gather_single(found, torch.tensor([own], device=self.device))
        return found.tolist()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of what all processes have."""
        if self.size == 1:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes; those of sharded weights are added up already."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None and not _sharded(p)]
        flat = torch.cat([grad.flatten() for grad in grads])
        dist.all_reduce(flat)
        for grad, whole in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(whole.view_as(grad))

    def clip_gradients(self, parameters: Iterable[nn.Parameter], limit: float) -> None:
        """Shorten the gradient of all weights together to a length, as `clip_grad_norm_` does."""
        if not self.shards:
            nn.utils.clip_grad_norm_(parameters, limit)
            return
        parameters = [p for p in parameters if p.grad is not None]
        plain = [p.grad for p in parameters if p.grad is not None and not _sharded(p)]
        sharded: list[Tensor] = [p.grad.to_local() for p in parameters if _sharded(p)]  # type: ignore[union-attr]
        square = nn.utils.get_total_norm(sharded).to(self.device) ** 2
        dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(plain) ** 2).sqrt()
        torch._foreach_mul_(plain + sharded, (limit / (norm + 1e-6)).clamp(max=1))

    # -------------------------------------------------------------------------------------- between steps

    def from_lead(self, compute: Callable[[], T]) -> T:
        """What the first process computes, which the others wait for."""
        if self.size == 1:
            return compute()
        told: list[Any] = [compute() if self.leads else None]
        dist.broadcast_object_list(told, 0)
        found: T = told[0]
        return found


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as one process would have them; all processes must ask for sharded ones together."""
    return {name: _whole(tensor) for name, tensor in tensors.items()}


def _whole(tensor: Any) -> Tensor:
    found: Tensor = tensor.detach().full_tensor().cpu() if _sharded(tensor) else tensor
    return found


def placed(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `whole`: each is sharded as the one of its name and shape in `like` is."""
    return {name: _placed(tensor, like.get(name, tensor)) for name, tensor in tensors.items()}


def _placed(tensor: Tensor, like: Tensor) -> Tensor:
    if not _sharded(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


class _Gather(torch.autograd.Function):
    """(n, E) of every process to (size · n, E), by rank; backward, the sum of what each made of its vectors."""

    @staticmethod
    def forward(ctx: Any, own_NE: Tensor) -> Tensor:
        all_NE = own_NE.new_empty(len(own_NE) * dist.get_world_size(), *own_NE.shape[1:])
        dist.all_gather_single(all_NE, own_NE.contiguous())
        return all_NE

    @staticmethod
    def backward(ctx: Any, grad_NE: Tensor) -> Tensor:
        own_NE = grad_NE.new_empty(len(grad_NE) // dist.get_world_size(), *grad_NE.shape[1:])
        dist.reduce_scatter_single(own_NE, grad_NE.contiguous())
        return own_NE
