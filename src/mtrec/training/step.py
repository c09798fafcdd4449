"""One training step: a batch of user sequences to one loss per task.

Shapes: B users, T events, X examples, V label values, N items, M sampled negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mtrec.balancing.features import Cut
from mtrec.config import NextItem
from mtrec.models.beliefs import LeftOut
from mtrec.models.inputs import View
from mtrec.models.losses import sampled_softmax_loss, softmax_ranking_loss
from mtrec.models.preferences import as_at_any_moment, future_targets, known
from mtrec.models.recommender import NEW, Catalogue, ItemVectors, Recommender, Texts
from mtrec.models.sending import sent
from mtrec.models.users import History
from mtrec.training.augmentation import Augmentation
from mtrec.training.distributed import Examples, Processes
from mtrec.training.places import Places, first_times

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

    def text(self, encode: Callable[[], Texts]) -> Texts:
        """The text vectors that the towers read."""
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
    mean_gap: float | None
    """Set where the test part begins at an instant, so that preferences are asked for at any moment."""
    learned_item_N: np.ndarray
    """True for items of the training part with a training interaction: those that item tasks learn from."""
    ranked_M: Tensor
    """Items with a training interaction."""
    sampling_N: Tensor
    """Probability of each item as a sampled negative; 0 for items without a training interaction."""
    as_new_N: Tensor
    """What a pair counts whose item's id is hidden: 1 over the item's training interactions."""
    id_dropout: float
    texts_per_step: int
    beliefs: LeftOut
    """What the posteriors say of each training row without it."""
    augmentation: Augmentation | None = None
    """Changes some of the texts that a step encodes."""
    through: Pass = AS_IT_IS
    processes: Processes = field(default_factory=Processes)
    """Those that share the step; rows and losses of a batch are everywhere those of all of them."""


@dataclass(frozen=True, kw_only=True)
class Representation:
    """What the tasks share in one step: the vectors of items and the states of users."""

    history: History
    rows_BT: np.ndarray
    """Interaction rows of the windows, −1 pads."""
    events: Places
    """Every event of the windows."""
    row_X: Tensor
    """Interaction row of each event."""
    user_B: Tensor
    user_ids_B: Tensor
    """Id slots after id dropout."""
    fresh: np.ndarray
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
    the loop seeds per step; of several processes, all but dropout from one that is alike in all of them.

    Args:
        model: in training mode.
        data: tensors shared by all steps; the catalogue's text vectors are refreshed in place.
        rows_BT: interaction rows of the batch, −1 pads; of several processes each takes its part.
    """
    view, catalogue, draw = data.view, data.catalogue, data.through.draw
    keep_N = draw(lambda: _keep(len(catalogue.tokens), data))
    fresh = draw(lambda: _choose_texts(rows_BT, data))
    change = data.augmentation
    changed = draw(lambda: change(fresh, data.processes.host_draws)) if change else None
    texts = data.through.text(lambda: model.fresh_text(catalogue, fresh, changed))
    paired = sent(_present(rows_BT, data), view.device)
    items = model.item_vectors(texts, catalogue.features, keep_N, paired)
    keep_B = draw(lambda: _keep(len(rows_BT), data))
    rows_BT, keep_B = data.processes.windows(rows_BT, keep_B)
    history = view.history(rows_BT)
    user_B = sent(view.dataset.user[rows_BT[:, 0]], view.device)
    users = view.users.rows(user_B)
    return Representation(
        history=history,
        rows_BT=rows_BT,
        events=Places.where(rows_BT >= 0, view.device),
        row_X=sent(rows_BT[rows_BT >= 0], view.device),
        user_B=user_B,
        user_ids_B=users.ids * keep_B,
        fresh=fresh,
        items=items,
        states=model.user_states(users, history, items, keep_B),
    )


def losses_of(model: Recommender, data: StepData, shared: Representation) -> dict[str, Tensor]:
    """Run the heads: one scalar per task, in the order of the scenario; see `Processes.means`."""
    view, items, events = data.view, shared.items, shared.events
    losses: dict[str, Examples] = {}

    item_X = events.of(shared.history.item_BT)
    has_id_X = items.ids_N[item_X] > 0
    pair_outputs = model.pair_outputs(
        events.before(shared.states),
        shared.user_ids_B[events.window_X],
        items,
        item_X,
        data.beliefs.of(shared.row_X, has_id_X),
    )
    # An item that nobody took is like those that few took: each item that stands for one counts alike.
    weight_X = torch.where(has_id_X, 1.0, data.as_new_N[item_X]) if NEW in model.bottoms else 1.0
    for name, output in pair_outputs.items():
        target_X = view.labels[name][shared.row_X]
        losses[name] = _examples(model, data, name, output, target_X, known(target_X) * weight_X)

    item_X = data.processes.part(data.through.draw(lambda: _item_examples(shared.fresh, data)))
    for name, output in model.item_outputs(items, item_X).items():
        losses[name] = _examples(model, data, name, output, view.labels[name][item_X])

    losses.update(_user_losses(model, data, shared))
    for name, task in model.tasks.items():
        if isinstance(task, NextItem):
            losses[name] = _next_item_loss(model, name, task, data, shared)
    return data.processes.means({name: losses[name] for name in model.tasks})


def _examples(
    model: Recommender, data: StepData, name: str, output: Tensor, target: Tensor, mask: Tensor | None = None
) -> Examples:
    """The loss of a head over the examples in the mask, or else over those with a label."""
    mask = known(target) if mask is None else mask
    data.through.note(name, mask, output)
    return Examples(mean=model.head(name).loss(output, target, mask), mask=mask)


def _user_losses(model: Recommender, data: StepData, shared: Representation) -> dict[str, Examples]:
    states, history = shared.states, shared.history
    tasks = {n: t for n, t in model.tasks.items() if t.on == "user" and not isinstance(t, NextItem)}
    losses: dict[str, Examples] = {}
    future = {n: t for n, t in tasks.items() if t.label_table == "items"}
    if future:
        before = states[:, :-1]
        outputs = model.user_outputs(before)
        for name, task in future.items():
            classes = model.head(name).linear.out_features
            target, mask = future_targets(task, data.view.labels[name], history, classes)
            if data.mean_gap is not None:
                mask = as_at_any_moment(mask, history.gap_BT, data.mean_gap)
            flat = (t.flatten(0, 1) for t in (outputs[name], target, mask))
            losses[name] = _examples(model, data, name, *flat)
    if len(future) < len(tasks):
        last = states[torch.arange(len(states), device=states.device), history.mask_BT.sum(1)]
        outputs = model.user_outputs(last)
        for name in tasks.keys() - future.keys():
            target = data.view.labels[name][shared.user_B]
            mask = known(target) & history.mask_BT.any(1)
            losses[name] = _examples(model, data, name, outputs[name], target, mask)
    return losses


def _next_item_loss(
    model: Recommender, name: str, task: NextItem, data: StepData, shared: Representation
) -> Examples:
    items, history, device = shared.items, shared.history, data.view.device
    taken_BT = first_times(_taken(task, shared.rows_BT, data.view), data.view.dataset.item[shared.rows_BT])
    events = Places.where(taken_BT, device)
    counted = torch.ones(len(events), device=device)
    num_items = len(items.ids_N)
    full = name in model.full
    draw = data.through.draw
    limit = max(MAX_LOGITS // (num_items if full else task.num_negatives), 1)
    if len(events) > limit:
        events = events.chosen(draw(lambda: sent(torch.randperm(len(events))[:limit], device)))
    states_XD, target_X = events.before(shared.states), events.of(history.item_BT)
    everyone = counted[: len(events)]
    if full:
        near_XS = model.nearby(name, items, history, row_X=events.window_X, place_X=events.time_X)
        logits_XN = model.rank_logits(name, states_XD, items, near_XS, data.sampling_N > 0)
        data.through.note(name, everyone, logits_XN)
        return Examples(mean=softmax_ranking_loss(logits_XN, target_X, everyone), mask=counted)
    generator = data.processes.draws
    negative_M = draw(
        lambda: torch.multinomial(data.sampling_N, task.num_negatives, replacement=True, generator=generator)
    )
    log_q_N = (data.sampling_N * task.num_negatives).clamp(min=1e-12).log()
    positive = model.rank_logits_of(name, states_XD, items, target_X)
    negative = model.rank_logits(name, states_XD, items.rows(negative_M), None)
    data.through.note(name, everyone, positive.unsqueeze(1), negative)
    hit_XM = negative_M.unsqueeze(0) == target_X.unsqueeze(1)
    loss = sampled_softmax_loss(positive, negative, log_q_N[negative_M], hit_XM, everyone)
    return Examples(mean=loss, mask=counted)


def _taken(task: NextItem, rows_BT: np.ndarray, view: View) -> np.ndarray:
    """True on events that count as taking an item, (B, T)."""
    there_BT: np.ndarray = rows_BT >= 0
    return there_BT & np.isin(view.event_R[rows_BT], view.event_codes(task.events)) if task.events else there_BT


def _keep(count: int, data: StepData) -> Tensor:
    drawn = torch.rand(count, device=data.view.device, generator=data.processes.draws)
    return (drawn >= data.id_dropout).long()


def _present(rows_BT: np.ndarray, data: StepData) -> np.ndarray:
    """Items in the windows, each once."""
    return np.unique(data.view.dataset.item[rows_BT[rows_BT >= 0]])


def _choose_texts(rows_BT: np.ndarray, data: StepData) -> np.ndarray:
    present = _present(rows_BT, data)
    order = torch.randperm(len(present), generator=data.processes.host_draws).numpy()
    chosen: np.ndarray = present[order[: data.texts_per_step]]
    return chosen


def _item_examples(fresh: np.ndarray, data: StepData) -> Tensor:
    size, generator = (ITEM_EXAMPLES,), data.processes.host_draws
    others = torch.randint(len(data.learned_item_N), size, generator=generator).numpy()
    candidates = np.union1d(fresh, others)
    return sent(candidates[data.learned_item_N[candidates]], data.view.device)
