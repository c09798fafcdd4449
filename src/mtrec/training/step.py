"""One training step: a batch of user sequences to one loss per task.

Shapes: B users, T events, X examples, V label values, N items, M sampled negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.balancing.features import Cut
from mtrec.config import NextItem
from mtrec.models.inputs import View
from mtrec.models.losses import sampled_softmax_loss, softmax_ranking_loss
from mtrec.models.preferences import future_targets, known
from mtrec.models.recommender import Catalogue, ItemVectors, Recommender
from mtrec.models.users import History
from mtrec.training.augmentation import Augmentation

T = TypeVar("T")
ITEM_EXAMPLES = 512
"""Items per step that item tasks learn from."""
MAX_LOGITS = 2**23
"""Bound on users × items in one ranking loss; beyond it positions are sampled."""


class Pass:
    """One pass of a batch through the model. This one leaves everything as it is; `regularisation` has another."""

    def draw(self, make: Callable[[], T]) -> T:
        """A random choice that a second pass of the same batch must share; dropout is none."""
        return make()

    def text(self, encode: Callable[[], Tensor]) -> Tensor:
        """The text vectors that the towers read, (N, E)."""
        return encode()

    def note(self, name: str, mask_X: Tensor, *outputs: Tensor) -> None:
        """Hear a task's raw outputs, (X,) or in parts (X, …), and which of them count."""


AS_IT_IS = Pass()


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What every step of a run shares."""

    view: View
    """Labels of held-out items and users are missing in it."""
    catalogue: Catalogue
    learned_item_N: Tensor
    """True for items of the training part with a training interaction: those that item tasks learn from."""
    sampling_N: Tensor
    """Probability of each item as a sampled negative; 0 for items without a training interaction."""
    id_dropout: float
    texts_per_step: int
    augmentation: Augmentation | None = None
    through: Pass = AS_IT_IS


@dataclass(frozen=True, kw_only=True)
class Representation:
    """What the tasks share in one step: the vectors of items and the states of users."""

    history: History
    row_X: Tensor
    """Interaction row of each event in the history's mask."""
    user_B: Tensor
    user_ids_B: Tensor
    """Id slots after id dropout."""
    fresh: Tensor
    """Items whose text was encoded in this step."""
    items: ItemVectors
    states: Tensor
    """Before each event and after the last, (B, T + 1, D)."""

    def cut(self) -> tuple[Cut, Representation]:
        """End the heads' graphs here; see `mtrec.balancing.features`."""
        parts = {f.name: getattr(self.items, f.name) for f in fields(self.items) if f.name != "ids_N"}
        names = [name for name, part in parts.items() if part is not None]
        cut = Cut.through([self.states, *(parts[name] for name in names)])
        states, *rest = cut.read
        return cut, replace(self, states=states, items=replace(self.items, **dict(zip(names, rest, strict=True))))


def task_losses(model: Recommender, data: StepData, rows_BT: np.ndarray) -> dict[str, Tensor]:
    """One scalar per task for a batch of windows: `represent`, then `losses_of`."""
    return losses_of(model, data, represent(model, data, rows_BT))


def represent(model: Recommender, data: StepData, rows_BT: np.ndarray) -> Representation:
    """Run the encoder and the towers for a batch of windows.

    Random draws (dropout, ids dropped, texts encoded afresh, negatives) come from torch's global generator, which
    the loop seeds per step.

    Args:
        model: in training mode.
        data: tensors shared by all steps; the catalogue's text vectors are refreshed in place.
        rows_BT: interaction rows of the batch, −1 pads.
    """
    view, catalogue, draw = data.view, data.catalogue, data.through.draw
    history = view.history(rows_BT)
    keep_N = draw(lambda: _keep(len(catalogue.tokens), data.id_dropout, view.device))
    fresh = draw(lambda: _choose_texts(history, data))
    change = data.augmentation
    changed = draw(lambda: change(fresh)) if change else None
    text_NE = data.through.text(lambda: model.fresh_text(catalogue, fresh, changed))
    items = model.item_vectors(text_NE, catalogue.features, keep_N)
    user_B = torch.from_numpy(view.dataset.user[rows_BT[:, 0]]).to(view.device)
    users = view.users.rows(user_B)
    keep_B = draw(lambda: _keep(len(user_B), data.id_dropout, view.device))
    return Representation(
        history=history,
        row_X=torch.from_numpy(rows_BT[rows_BT >= 0]).to(view.device),
        user_B=user_B,
        user_ids_B=users.ids * keep_B,
        fresh=fresh,
        items=items,
        states=model.user_states(users, history, items, keep_B),
    )


def losses_of(model: Recommender, data: StepData, shared: Representation) -> dict[str, Tensor]:
    """Run the heads: one scalar per task, in the order of the scenario."""
    view, items, history = data.view, shared.items, shared.history
    before, mask = shared.states[:, :-1], history.mask_BT
    losses: dict[str, Tensor] = {}

    pair_outputs = model.pair_outputs(
        before[mask], shared.user_ids_B.unsqueeze(1).expand_as(mask)[mask], items, history.item_BT[mask]
    )
    for name, output in pair_outputs.items():
        target = view.labels[name][shared.row_X]
        losses[name] = _head_loss(model, data, name, output, target, known(target))

    item_X = data.through.draw(lambda: _item_examples(shared.fresh, data))
    for name, output in model.item_outputs(F.embedding(item_X, items.text_ND)).items():
        target = view.labels[name][item_X]
        losses[name] = _head_loss(model, data, name, output, target, known(target))

    losses.update(_user_losses(model, data, shared))
    for name, task in model.tasks.items():
        if isinstance(task, NextItem):
            losses[name] = _next_item_loss(model, name, task, data, shared)
    return {name: losses[name] for name in model.tasks}


def _user_losses(model: Recommender, data: StepData, shared: Representation) -> dict[str, Tensor]:
    states, history = shared.states, shared.history
    tasks = {n: t for n, t in model.tasks.items() if t.on == "user" and not isinstance(t, NextItem)}
    losses = {}
    future = {n: t for n, t in tasks.items() if t.label_table == "items"}
    if future:
        before = states[:, :-1]
        outputs = model.user_outputs(before)
        for name, task in future.items():
            target, mask = future_targets(task, data.view.labels[name], history)
            target_X, mask_X = target.flatten(0, 1), mask.flatten()
            losses[name] = _head_loss(model, data, name, outputs[name].flatten(0, 1), target_X, mask_X)
    if len(future) < len(tasks):
        last = states[torch.arange(len(states), device=states.device), history.mask_BT.sum(1)]
        outputs = model.user_outputs(last)
        for name in tasks.keys() - future.keys():
            target = data.view.labels[name][shared.user_B]
            losses[name] = _head_loss(model, data, name, outputs[name], target, known(target))
    return losses


def _head_loss(
    model: Recommender, data: StepData, name: str, outputs: Tensor, target: Tensor, mask_X: Tensor
) -> Tensor:
    data.through.note(name, mask_X, outputs)
    return model.head(name).loss(outputs, target, mask_X)


def _next_item_loss(
    model: Recommender, name: str, task: NextItem, data: StepData, shared: Representation
) -> Tensor:
    items, history, before = shared.items, shared.history, shared.states[:, :-1]
    taken_BT = history.mask_BT & _taken(task, history.event_BT, data.view)
    counts = taken_BT & ~_repeats(history.item_BT, taken_BT)
    states_XD, target_X, (row_X, place_X) = before[counts], history.item_BT[counts], counts.nonzero(as_tuple=True)
    num_items = len(items.ids_N)
    full = name in model.full
    draw = data.through.draw
    limit = max(MAX_LOGITS // (num_items if full else task.num_negatives), 1)
    if len(target_X) > limit:
        chosen = draw(lambda: torch.randperm(len(target_X), device=target_X.device)[:limit])
        states_XD, target_X = states_XD[chosen], target_X[chosen]
        row_X, place_X = row_X[chosen], place_X[chosen]
    everyone = torch.ones(len(target_X), device=target_X.device)
    if full:
        near_XS = model.nearby(name, items, history, row_X=row_X, place_X=place_X)
        logits_XN = model.rank_logits(name, states_XD, items, near_XS, data.sampling_N > 0)
        data.through.note(name, everyone, logits_XN)
        return softmax_ranking_loss(logits_XN, target_X, everyone)
    negative_M = draw(lambda: torch.multinomial(data.sampling_N, task.num_negatives, replacement=True))
    log_q_N = (data.sampling_N * task.num_negatives).clamp(min=1e-12).log()
    positive = model.rank_logits_of(name, states_XD, items, target_X)
    negative = model.rank_logits(name, states_XD, items.rows(negative_M), None)
    data.through.note(name, everyone, positive.unsqueeze(1), negative)
    hit_XM = negative_M.unsqueeze(0) == target_X.unsqueeze(1)
    return sampled_softmax_loss(positive, negative, log_q_N[negative_M], hit_XM, everyone)


def _taken(task: NextItem, event_BT: Tensor, view: View) -> Tensor:
    return torch.isin(event_BT, view.event_codes(task.events)) if task.events else event_BT >= 0


def _repeats(item_BT: Tensor, taken_BT: Tensor) -> Tensor:
    """True where a user took the same item earlier in the window: what was taken is never recommended again."""
    same_BTT = (item_BT.unsqueeze(2) == item_BT.unsqueeze(1)) & taken_BT.unsqueeze(1)
    return same_BTT.tril(-1).any(2)


def _keep(count: int, dropout: float, device: torch.device) -> Tensor:
    return (torch.rand(count, device=device) >= dropout).long()


def _choose_texts(history: History, data: StepData) -> Tensor:
    present = history.item_BT[history.mask_BT].unique()
    return present[torch.randperm(len(present), device=present.device)[: data.texts_per_step]]


def _item_examples(fresh: Tensor, data: StepData) -> Tensor:
    others = torch.randint(len(data.learned_item_N), (ITEM_EXAMPLES,), device=fresh.device)
    candidates = torch.cat([fresh, others]).unique()
    return candidates[data.learned_item_N[candidates]]
