"""Predictions of every task on one part of the split, without leaving a trace of that part in the history.

Shapes: X examples, B users, N items, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtrec.config import NextItem, Task
from mtrec.errors import RunError
from mtrec.evaluation.metrics import CUTOFFS, mean_ranks, ranking_of_user
from mtrec.evaluation.targets import closed, open_labels, outside_values
from mtrec.models.beliefs import Past, beliefs
from mtrec.models.inputs import View
from mtrec.models.preferences import known, preference_of_rows
from mtrec.models.recommender import Catalogue, ItemVectors, Recommender

CHUNK = 512


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Targets and predictions of one task. −1 in `user` or `item` where an example has none.

    The target of a class that training never saw is `metrics.UNSEEN`.
    """

    user: np.ndarray
    item: np.ndarray
    target: np.ndarray
    predicted: np.ndarray
    outside: np.ndarray | None = None
    """Multi-label and profile: how many of the example's label values are not in the vocabulary, (X,)."""
    temperature: float = 1.0
    """What the outputs were divided by; see `mtrec.evaluation.calibration`."""
    thresholds: np.ndarray | None = None
    """Multi-label: the probability from which each label is given, (V,); None: one half."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One user of a next-item task."""

    user: int
    relevant: np.ndarray
    ranks: np.ndarray
    top: np.ndarray
    """The first `CUTOFFS[0]` unseen items, fewer when no more are left."""

    @property
    def metrics(self) -> dict[str, float]:
        """The user's ranking metrics."""
        return ranking_of_user(self.ranks)


@torch.no_grad()
def predict(
    model: Recommender,
    view: View,
    catalogue: Catalogue,
    tasks: Mapping[str, Task],
    part: int,
    history: int,
    max_ranked: int | None = None,
) -> tuple[dict[str, Predictions], dict[str, list[Ranked]]]:
    """Predict a part of the dataset.

    A user's history is the last `history` interactions of the earlier parts, so nothing of the part itself reaches
    a prediction (under a split by time, nor does anything after it). Every test interaction of a user is predicted
    from that one state.

    Args:
        model: in evaluation mode.
        view: the dataset through the model's encoding.
        catalogue: up-to-date text vectors.
        tasks: the tasks to predict; the model has a head for each.
        part: 1 validation, 2 test.
        history: events of a user that the model reads.
        max_ranked: rank for at most about so many users, evenly spread; None ranks for all.

    Returns:
        Row-wise predictions and rankings, by task.

    Raises:
        RunError: an answer is NaN or infinite, so that no metric of it would mean anything.
    """
    items = model.item_vectors(catalogue.text_NE, catalogue.features)
    rows = np.flatnonzero(view.dataset.part == part)
    users_B = np.unique(view.dataset.user[rows])
    states_BD = user_states(model, view, items, users_B, part, history)
    predictions = {
        **_pairs(model, view, items, tasks, rows, users_B, states_BD, part),
        **_items(model, view, items, tasks, part),
        **_users(model, view, items, tasks, users_B, states_BD, part, history),
    }
    step = max(len(users_B) // max_ranked, 1) if max_ranked else 1
    rankings = {
        name: _rank(model, name, task, view, items, users_B[::step], states_BD[::step], part, history)
        for name, task in tasks.items()
        if isinstance(task, NextItem)
    }
    return predictions, rankings


def user_states(
    model: Recommender, view: View, items: ItemVectors, users_B: np.ndarray, before_part: int, history: int
) -> Tensor:
    """State of each user after the interactions of the parts before `before_part`, (B, D)."""
    states = [torch.zeros(0, model.state_width, device=view.device)]
    for start in range(0, len(users_B), CHUNK):
        chunk = users_B[start : start + CHUNK]
        past = view.history(view.recent_rows(chunk, before_part, history))
        features = view.users.rows(torch.from_numpy(chunk).to(view.device))
        all_states = model.user_states(features, past, items)
        states.append(all_states[torch.arange(len(chunk), device=view.device), past.mask_BT.sum(1)])
    return torch.cat(states)


Targets = tuple[Tensor, np.ndarray | None]
"""What is asked of each example, and how many of its label values are not in the vocabulary."""


def _targets(task: Task, view: View, name: str, rows: np.ndarray) -> Targets:
    """Targets of rows of the label's own table."""
    labels, first = open_labels(task, view, name)
    chosen = labels[torch.from_numpy(rows).to(view.device)]
    return closed(chosen, first), outside_values(task, view, name, rows)


def _check(name: str, usable: np.ndarray) -> None:
    if not usable.all():
        raise RunError(
            f"tasks.{name}: {(~usable).sum():,} of {usable.size:,} answers of the model are NaN or infinite: "
            "train again with a lower training.lr or training.clip_norm, or a sound encoder"
        )


def _collect(
    model: Recommender, outputs: dict[str, Tensor], targets: dict[str, Targets], user: np.ndarray, item: np.ndarray
) -> dict[str, Predictions]:
    found = {}
    for name, output in outputs.items():
        target, outside = targets[name]
        keep = known(target)
        where = keep.cpu().numpy()
        head = model.head(name)
        predicted = head.predict(output[keep]).float().cpu().numpy()
        _check(name, np.isfinite(predicted))
        found[name] = Predictions(
            user=user[where],
            item=item[where],
            target=target[keep].cpu().numpy(),
            predicted=predicted,
            outside=None if outside is None else outside[where],
            temperature=1.0 if head.temperature is None else float(head.temperature),
            thresholds=None if head.thresholds is None else head.thresholds.cpu().numpy(),
        )
    return found


def _pairs(
    model: Recommender,
    view: View,
    items: ItemVectors,
    tasks: Mapping[str, Task],
    rows: np.ndarray,
    users_B: np.ndarray,
    states_BD: Tensor,
    part: int,
) -> dict[str, Predictions]:
    names = [n for n, t in tasks.items() if t.on == "pair"]
    if not names:
        return {}
    user, item = view.dataset.user[rows], view.dataset.item[rows]
    place = torch.from_numpy(np.searchsorted(users_B, user)).to(view.device)
    user_X, item_X = torch.from_numpy(user).to(view.device), torch.from_numpy(item).to(view.device)
    past = Past.before(view, users_B, part)
    beliefs_XQ = beliefs(model, view, past, place, view.items.ids[item_X])
    parts = (tensor.split(8192) for tensor in (place, user_X, item_X, beliefs_XQ))
    chunks = [
        model.pair_outputs(states_BD[p], view.users.ids[u], items, i, b) for p, u, i, b in zip(*parts, strict=True)
    ]
    outputs = {name: torch.cat([c[name] for c in chunks]) for name in names}
    return _collect(model, outputs, {n: _targets(tasks[n], view, n, rows) for n in names}, user, item)


def _items(
    model: Recommender, view: View, items: ItemVectors, tasks: Mapping[str, Task], part: int
) -> dict[str, Predictions]:
    chosen = np.flatnonzero(view.dataset.items["part"].to_numpy() == part)
    index = torch.from_numpy(chosen).to(view.device)
    outputs = {n: o for n, o in model.item_outputs(items, index).items() if n in tasks}
    targets = {name: _targets(tasks[name], view, name, chosen) for name in outputs}
    return _collect(model, outputs, targets, np.full(len(chosen), -1), chosen)


def _users(
    model: Recommender,
    view: View,
    items: ItemVectors,
    tasks: Mapping[str, Task],
    users_B: np.ndarray,
    states_BD: Tensor,
    part: int,
    history: int,
) -> dict[str, Predictions]:
    of_users = {n: t for n, t in tasks.items() if t.on == "user" and not isinstance(t, NextItem)}
    future = {n: t for n, t in of_users.items() if t.label_table == "items"}
    fixed = {n: t for n, t in of_users.items() if t.label_table == "users"}
    found: dict[str, Predictions] = {}
    if future and len(users_B):
        outputs = model.user_outputs(states_BD)
        for name, task in future.items():
            wanted = {name: _preferences(task, view, name, users_B, part)}
            found |= _collect(model, {name: outputs[name]}, wanted, users_B, np.full(len(users_B), -1))
    if fixed:
        chosen = np.flatnonzero(view.dataset.users["part"].to_numpy() == part)
        outputs = model.user_outputs(user_states(model, view, items, chosen, part, history))
        targets = {name: _targets(task, view, name, chosen) for name, task in fixed.items()}
        nobody = np.full(len(chosen), -1)
        found |= _collect(model, {n: outputs[n] for n in fixed}, targets, chosen, nobody)
    return found


def _preferences(task: Task, view: View, name: str, users_B: np.ndarray, part: int) -> Targets:
    """Each user's target over the first `horizon` interactions of the part, (B,) or (B, V)."""
    rows = np.flatnonzero(view.dataset.part == part)
    owner = view.dataset.user[rows]
    starts = np.searchsorted(owner, users_B, side="left")
    ends = np.minimum(np.searchsorted(owner, users_B, side="right"), starts + task.horizon)
    labels, first = open_labels(task, view, name)
    items = view.dataset.item[rows]
    labels_R = labels[torch.from_numpy(items).to(view.device)]
    targets = [
        preference_of_rows(task, labels_R[s:e], torch.arange(e - s, device=view.device))
        for s, e in zip(starts, ends, strict=True)
    ]
    outside = outside_values(task, view, name, items)
    if outside is not None:
        outside = np.array([outside[s:e].sum() for s, e in zip(starts, ends, strict=True)])
    return closed(torch.stack(targets), first), outside


def _rank(
    model: Recommender,
    name: str,
    task: NextItem,
    view: View,
    items: ItemVectors,
    users_B: np.ndarray,
    states_BD: Tensor,
    part: int,
    history: int,
) -> list[Ranked]:
    """Rank all items for every user who takes an unseen item in the part."""
    data = view.dataset
    # By name, not by the model's codes: a model that never saw an event is still asked about the same rows.
    taken = data.interactions["event"].is_in(task.events).to_numpy() if task.events else data.part >= 0
    seen_rows, test_rows = np.flatnonzero(data.part < part), np.flatnonzero((data.part == part) & taken)
    seen_owner, test_owner = data.user[seen_rows], data.user[test_rows]
    found = []
    for start in range(0, len(users_B), CHUNK):
        chunk = users_B[start : start + CHUNK]
        near = model.nearby(name, items, view.history(view.recent_rows(chunk, part, history)))
        scores_BN = model.rank_logits(name, states_BD[start : start + CHUNK], items, near).float().cpu().numpy()
        for user, scores_N in zip(chunk, scores_BN, strict=True):
            seen = data.item[seen_rows[slice(*np.searchsorted(seen_owner, [user, user + 1]))]]
            wanted = data.item[test_rows[slice(*np.searchsorted(test_owner, [user, user + 1]))]]
            relevant = np.setdiff1d(wanted, seen)
            if len(relevant) == 0:
                continue
            allowed = np.ones(len(scores_N), dtype=bool)
            allowed[seen] = False
            _check(name, np.isfinite(scores_N) | (np.isneginf(scores_N) & ~allowed))
            order = np.argsort(-np.where(allowed, scores_N, -np.inf), kind="stable")
            found.append(
                Ranked(
                    user=int(user),
                    relevant=relevant,
                    ranks=mean_ranks(scores_N, allowed, relevant),
                    top=order[: min(CUTOFFS[0], allowed.sum())],
                )
            )
    return found
