"""What the posteriors of a model say of pairs: from a user's rows, and of training rows without themselves.

Shapes: B users, Y events, R interactions, X pairs, P posteriors, Q = 2 P: a mean and a log deviation of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtrec.data.splits import TRAIN
from mtrec.models.inputs import View
from mtrec.models.posterior import Events, Posterior
from mtrec.models.posterior_fit import fit, implicit_directions, user_columns
from mtrec.models.recommender import Recommender

WIDEST = 256
"""A categorical or list column with more values is no prior column of an item."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What B users did: interaction rows, or items alone."""

    num_users: int
    owner_Y: np.ndarray
    """Which of the B users, in [0, B)."""
    item_Y: np.ndarray
    row_Y: np.ndarray | None
    """Interaction rows; None: items without labels."""

    @classmethod
    def before(cls, view: View, users_B: np.ndarray, part: int) -> Past:
        """Everything that users did in the parts before one; −1 in `users_B` is nobody."""
        starts, ends = (np.searchsorted(view.dataset.user, users_B, side=side) for side in ("left", "right"))
        counts = ends - starts
        rows = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        known = view.dataset.part[rows] < part
        owner, rows = np.repeat(np.arange(len(users_B)), counts)[known], rows[known]
        return cls(num_users=len(users_B), owner_Y=owner, item_Y=view.dataset.item[rows], row_Y=rows)


@torch.no_grad()
def beliefs(model: Recommender, view: View, past: Past, user_X: Tensor, slot_X: Tensor) -> Tensor:
    """What the posteriors say of pairs, (X, Q).

    Args:
        model: asked for its posteriors; an ensemble for those of its members, one after the other.
        view: of the dataset that `past` points into.
        past: what the users did.
        user_X: which of the users, in [0, B).
        slot_X: id slots of the items.
    """
    found = [slot_X.new_zeros(len(slot_X), 0, dtype=torch.float32)]
    for member in model.each():
        for name, posterior in _posteriors(member):
            users = posterior.users(_events(member, view, name, past), past.num_users)
            found.append(posterior(users, user_X, slot_X))
    return torch.cat(found, dim=1)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What the posteriors say of each training row without it; 0 for other rows."""

    known_RQ: Tensor
    unseen_RQ: Tensor
    """The same for an item that nobody had taken, for rows whose item id is dropped."""

    def of(self, row_X: Tensor, known_X: Tensor) -> Tensor:
        """(X, Q) for interaction rows whose item's id is known or not."""
        return torch.where(known_X.unsqueeze(1), self.known_RQ[row_X], self.unseen_RQ[row_X])


@torch.no_grad()
def left_out(model: Recommender, view: View) -> LeftOut:
    """What training feeds the heads in place of `beliefs`."""
    past = Past.before(view, np.arange(view.dataset.users.height), TRAIN + 1)
    size = (len(view.dataset.part), 2 * len(model.posteriors))
    known, unseen = (torch.zeros(size, device=view.device) for _ in range(2))
    for q, (name, posterior) in enumerate(_posteriors(model)):
        events = _events(model, view, name, past)
        answers = posterior.left_out(posterior.users(events, past.num_users), events)
        for table, answer in zip((known, unseen), answers, strict=True):
            table[torch.from_numpy(past.row_Y), 2 * q : 2 * q + 2] = answer
    return LeftOut(known_RQ=known, unseen_RQ=unseen)


def start_posteriors(model: Recommender, view: View) -> None:
    """Fit every posterior to the training rows."""
    past = Past.before(view, np.arange(view.dataset.users.height), TRAIN + 1)
    slot_Y = view.items.ids.cpu().numpy()[past.item_Y]
    posteriors = _posteriors(model)
    if not posteriors:
        return
    num_slots = len(posteriors[0][1].item_mean)
    columns_SM, basis_SM = implicit_directions(past.owner_Y, slot_Y, (past.num_users, num_slots))
    implicit_UM = np.zeros((past.num_users, basis_SM.shape[1]))
    np.add.at(implicit_UM, past.owner_Y, basis_SM[slot_Y])
    users_UC = user_columns(np.bincount(past.owner_Y, minlength=past.num_users), implicit_UM)
    count_S = np.log1p(np.bincount(slot_Y, minlength=num_slots))[:, None] / 4
    one, attributes = np.ones_like(count_S), _attributes(view, num_slots)
    items_SC = np.concatenate([one, count_S, attributes, columns_SM], axis=1)
    new_items_SC = np.concatenate([one, 0 * count_S, attributes, 0 * columns_SM], axis=1)
    for name, posterior in posteriors:
        label_Y = _events(model, view, name, past).label_Y.cpu().numpy()
        rated = ~np.isnan(label_Y)
        rows = (past.owner_Y[rated], slot_Y[rated], label_Y[rated].astype(np.float64))
        num_factors = posterior.item_mean.shape[1] - 1
        posterior.start_from(fit(rows, users_UC, items_SC, new_items_SC, basis_SM, num_factors))


def _attributes(view: View, num_slots: int) -> np.ndarray:
    """Attributes of the items that training met, by id slot, as columns of mean 0; 0 for the unknown item."""
    rows = view.items
    columns = [rows.numeric.cpu().numpy()]
    for codes in (rows.categorical.unsqueeze(2), rows.multi):
        for i in range(codes.shape[1]):
            values = codes[:, i].cpu().numpy()
            if 0 < values.max(initial=0) <= WIDEST:
                there = np.zeros((len(values), values.max() + 1))
                np.put_along_axis(there, values, 1.0, axis=1)
                columns.append(there[:, 1:])
    found = np.concatenate(columns, axis=1)
    table = np.zeros((num_slots, found.shape[1]))
    slots = rows.ids.cpu().numpy()
    met = slots > 0
    table[slots[met]] = found[met] - found[met].mean(0)
    return table


def _posteriors(model: Recommender) -> list[tuple[str, Posterior]]:
    return [(name, module) for name, module in model.posteriors.items() if isinstance(module, Posterior)]


def _events(model: Recommender, view: View, name: str, past: Past) -> Events:
    slot_Y = view.items.ids[torch.from_numpy(past.item_Y).to(view.device)]
    label_Y = torch.full(slot_Y.shape, torch.nan, device=view.device)
    if past.row_Y is not None and name in view.labels:
        head = model.head(name)
        label_Y = ((view.labels[name][torch.from_numpy(past.row_Y)] - head.mean) / head.scale).float()
    return Events(owner_Y=torch.from_numpy(past.owner_Y).to(view.device), slot_Y=slot_Y, label_Y=label_Y)
