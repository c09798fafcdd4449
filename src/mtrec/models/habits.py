"""What a user's recent items carry, as the answer that user tasks over an item column start from.

The next items of somebody who bought shoes are likely shoes: the shares of the label's values among the items of
the history, shrunken to the shares among all users, (n · share + κ · prior) / (n + κ). This is the posterior mean
under a Dirichlet prior (Zhai & Lafferty 2004, doi:10.1145/984321.984322, for words in documents). κ, and for
classes how sharply the shares decide, are chosen on the training rows, whose own later events are the targets.
Heads add what else they learn.

Labels of held-out items and of items that training never saw count as absent.

Shapes: S item slots (0 unknown), V label values, B users, T events, X examples, D width of all tasks' sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.config import Classification, MultiLabel, Profile, Task
from mtrec.data.splits import TRAIN
from mtrec.models.inputs import View
from mtrec.models.preferences import as_at_any_moment, future_targets
from mtrec.models.users import History

KAPPAS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
SHARPNESS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
MOST_USERS = 2_000
"""Users whose training rows choose κ and the sharpness."""
CHUNK = 256
"""Users whose rows are worked on at a time."""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Raw outputs, targets and weights of X examples to their mean loss."""


def has_habit(task: Task) -> bool:
    """Whether a task asks what kind of items a user takes next."""
    asks = isinstance(task, (Classification, MultiLabel, Profile))
    return asks and task.on == "user" and task.label_table == "items"


class Habit(nn.Module):
    """One task's sums over a history and the answer they give. Nothing here is trained."""

    values: Tensor
    known: Tensor
    prior: Tensor
    kappa: Tensor
    sharpness: Tensor

    def __init__(self, task: Task, num_slots: int, num_values: int) -> None:
        super().__init__()
        self.task = task
        self.register_buffer("values", torch.zeros(num_slots, num_values))
        self.register_buffer("known", torch.zeros(num_slots))
        self.register_buffer("prior", torch.zeros(num_values))
        self.register_buffer("kappa", torch.ones(()))
        self.register_buffer("sharpness", torch.zeros(()))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """A model that was saved before there were habits answers without."""
        for name, buffer in self.named_buffers(recurse=False):
            state_dict.setdefault(f"{prefix}{name}", torch.zeros_like(buffer))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def sums(self, slot_BT: Tensor) -> Tensor:
        """Label sums and counts of the items before each event and after the last, (B, T + 1, V + 1)."""
        carried = torch.cat([F.embedding(slot_BT, self.values), F.embedding(slot_BT, self.known[:, None])], dim=-1)
        return F.pad(carried.cumsum(1), (0, 0, 1, 0))

    def answer(self, sums_XV1: Tensor, kappa: float | None = None, sharpness: float | None = None) -> Tensor:
        """What the head's raw outputs are added to, (X, V): a unit vector for a profile, else log-odds."""
        k = self.kappa if kappa is None else kappa
        sharp = self.sharpness if sharpness is None else sharpness
        sums, count = sums_XV1[..., :-1], sums_XV1[..., -1:]
        share = (sums + k * self.prior) / (count + k).clamp(min=1e-9)
        if isinstance(self.task, Profile):
            return sharp * F.normalize(share, dim=-1)
        share = share.clamp(1e-6, 1 - 1e-6)
        if isinstance(self.task, Classification):
            return sharp * share.log()
        return sharp * (1 - (1 - share) ** self.task.horizon).logit(eps=1e-6)

    @torch.no_grad()
    def start_from(
        self,
        labels_N: Tensor,
        slot_N: Tensor,
        learned_N: Tensor,
        histories: Sequence[History],
        loss: Loss,
        *,
        mean_gap: float | None,
    ) -> None:
        """Read the labels of the training items, and choose κ and the sharpness on training histories.

        Args:
            labels_N: of all items, (N,) or (N, V); NaN where missing.
            slot_N: their id slots.
            learned_N: True for items whose label training may see.
            histories: batches of training rows; one at a time is worked on.
            loss: the task's, of raw outputs.
            mean_gap: ask at any moment (`as_at_any_moment`); None: before any event.
        """
        values_NV = labels_N.unsqueeze(-1) if labels_N.dim() == 1 else labels_N
        there_N = learned_N & (slot_N > 0) & ~values_NV.isnan().any(-1)
        if isinstance(self.task, Classification):
            values_NV = F.one_hot(labels_N.nan_to_num().long(), len(self.prior)).float()
        self.values[slot_N[there_N]] = values_NV[there_N]
        self.known[slot_N[there_N]] = 1.0
        visible_N = labels_N.clone()
        visible_N[~there_N] = torch.nan
        slots = [slot_N[history.item_BT] * history.mask_BT for history in histories]
        total = torch.stack([self.sums(slot_BT)[:, -1].sum(0) for slot_BT in slots]).sum(0)
        self.prior.copy_(total[:-1] / total[-1].clamp(min=1))
        tried = [(k, s) for k in KAPPAS for s in ((1.0,) if isinstance(self.task, Profile) else SHARPNESS)]
        losses = np.zeros(len(tried))
        for history, slot_BT in zip(histories, slots, strict=True):
            target, mask = future_targets(self.task, visible_N, history, len(self.prior))
            weight = mask.float() if mean_gap is None else as_at_any_moment(mask, history.gap_BT, mean_gap)
            sums, target, weight = (t.flatten(0, 1) for t in (self.sums(slot_BT)[:, :-1], target, weight))
            each = [float(loss(self.answer(sums, k, s), target, weight)) for k, s in tried]
            losses += np.array(each) * float(weight.sum())
        kappa, sharpness = tried[int(losses.argmin())]
        self.kappa.fill_(kappa)
        self.sharpness.fill_(sharpness)


class Habits(nn.Module):
    """The habits of all tasks that have one, side by side behind each user's state.

    Args:
        tasks: those that have one (`has_habit`).
        num_slots: S.
        num_values: V of each.
    """

    def __init__(self, tasks: Mapping[str, Task], num_slots: int, num_values: Mapping[str, int]) -> None:
        super().__init__()
        self.each = nn.ModuleDict({name: Habit(task, num_slots, num_values[name]) for name, task in tasks.items()})
        self.width = sum(num_values[name] + 1 for name in tasks)
        """D."""

    def items(self) -> Iterator[tuple[str, Habit]]:
        """Tasks with their habits."""
        for name, habit in self.each.items():
            assert isinstance(habit, Habit)
            yield name, habit

    def forward(self, slot_BT: Tensor) -> Tensor:
        """Sums over the histories, (B, T + 1, D)."""
        return torch.cat([habit.sums(slot_BT) for _, habit in self.items()], dim=-1)

    def add_to(self, outputs: dict[str, Tensor], sums_XD: Tensor) -> dict[str, Tensor]:
        """The outputs of the heads with the habits' answers added."""
        parts = sums_XD.detach().split([len(habit.prior) + 1 for _, habit in self.items()], dim=-1)
        answers = {name: habit.answer(part) for (name, habit), part in zip(self.items(), parts, strict=True)}
        return {name: out + answers[name] if name in answers else out for name, out in outputs.items()}


def start_habits(habits: Habits, view: View, length: int, losses: Callable[[str], Loss], *, by_time: bool) -> None:
    """Fit every habit to the training rows.

    Args:
        habits: of a new model.
        view: the dataset through its encoding.
        length: events of a history.
        losses: gives each task's loss.
        by_time: the test part begins at an instant.
    """
    if not habits.width:
        return
    dataset, mean_gap = view.dataset, view.mean_gap(TRAIN) if by_time else None
    users = np.unique(dataset.user[dataset.part == TRAIN])
    users = users[:: -(-len(users) // MOST_USERS)]
    chunks = np.array_split(users, -(-len(users) // CHUNK))
    histories = [view.history(view.recent_rows(chunk, TRAIN + 1, length)) for chunk in chunks]
    learned_N = torch.from_numpy((dataset.items["part"] == TRAIN).to_numpy()).to(view.device)
    for name, habit in habits.items():
        labels_N = view.labels[name]
        habit.start_from(labels_N, view.items.ids, learned_N, histories, losses(name), mean_gap=mean_gap)
