"""Targets of user tasks over an item column: what the next events say about the user.

Shapes: B users, T events, N items, V label values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.config import Binary, Classification, Profile, Regression, Task
from mtrec.models.users import History

MIN_FUTURE = 3
"""A preference needs at least so many labelled events ahead (or the task's horizon, when smaller)."""


def known(target: Tensor) -> Tensor:
    """True where a label is there; a vector label is missing when any of its values is. (X,)."""
    missing = target.isnan()
    return ~(missing if missing.dim() == 1 else missing.any(-1))


def future_targets(
    task: Task, labels_N: Tensor, history: History, classes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Targets for the state before each event of a window.

    Args:
        task: a user task with an item label.
        labels_N: labels of all items, (N,) or (N, V); NaN where missing.
        history: windows whose own later events are the future.
        classes: how many there are; None: as many as the labels show, for which the host waits for them.

    Returns:
        Targets (B, T) or (B, T, V), and the mask (B, T) of those with at least `MIN_FUTURE` labelled events
        ahead (or the task's horizon, when smaller).
    """
    values_NV, usable_N = _as_values(task, labels_N, classes)
    usable_BT1 = (history.mask_BT & usable_N[history.item_BT]).unsqueeze(-1).float()
    total = _ahead(values_NV[history.item_BT] * usable_BT1, task.horizon)
    count = _ahead(usable_BT1, task.horizon)
    enough = count.squeeze(-1) >= min(MIN_FUTURE, task.horizon)
    return _reduce(task, total, count), enough & history.mask_BT


def as_at_any_moment(mask_BT: Tensor, gap_BT: Tensor, mean_gap: float) -> Tensor:
    """Weights of the moments before each event, as a cut at any moment meets them; about 1 on average.

    Most events follow another of the same visit, but a moment drawn from the clock falls between two visits: into
    a gap with a probability in proportion to its length (length-biased sampling; Cox 1969). Where preferences are
    asked for at such a moment, what the same visit tells is not there to be used.

    Args:
        mask_BT: moments that count.
        gap_BT: days since the event before.
        mean_gap: mean of all gaps (`View.mean_gap`); with 0 there are no times, and all moments count the same.
    """
    return mask_BT * (gap_BT.clamp(min=0) / mean_gap if mean_gap else 1.0)


def preference_of_rows(task: Task, labels_N: Tensor, items_M: Tensor) -> Tensor:
    """The target that M events define, () or (V,); NaN when fewer of them have a label than training asks for."""
    values_NV, usable_N = _as_values(task, labels_N)
    chosen = items_M[usable_N[items_M]]
    total, count = values_NV[chosen].sum(0), usable_N[items_M].sum().float().view(1)
    target = _reduce(task, total, count)
    return target if len(chosen) >= min(MIN_FUTURE, task.horizon) else target.new_full(target.shape, float("nan"))


def _as_values(task: Task, labels_N: Tensor, classes: int | None = None) -> tuple[Tensor, Tensor]:
    usable_N = known(labels_N)
    if isinstance(task, Classification):
        numbers = labels_N.nan_to_num().long()
        classes = classes or int(numbers.max()) + 1
        return (numbers.unsqueeze(1) == torch.arange(classes, device=numbers.device)).float(), usable_N
    values = labels_N.nan_to_num()
    return (values.unsqueeze(-1) if values.dim() == 1 else values), usable_N


def _reduce(task: Task, total: Tensor, count: Tensor) -> Tensor:
    """Most frequent class, mean profile, mean number, majority of yes, or any occurrence of a label."""
    mean = total / count.clamp(min=1)
    if isinstance(task, Classification):
        return total.argmax(-1).float()
    if isinstance(task, Profile):
        return mean
    if isinstance(task, Regression):
        return mean.squeeze(-1)
    if isinstance(task, Binary):
        return (mean.squeeze(-1) >= 0.5).float()
    return (total > 0).float()


def _ahead(values_BTV: Tensor, horizon: int) -> Tensor:
    """Sum over the events t … t + horizon − 1 of the window, for every t."""
    T = values_BTV.shape[1]
    total = F.pad(values_BTV.cumsum(1), (0, 0, 1, 0))
    total = F.pad(total.transpose(1, 2), (0, horizon), mode="replicate").transpose(1, 2)
    return total[:, horizon : horizon + T] - total[:, :T]
