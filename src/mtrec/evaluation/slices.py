"""Where quality is measured apart: cold and rare items, cold and light users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtrec.data.dataset import Dataset
from mtrec.data.splits import TRAIN

HEAD_SHARE = 0.2
"""The most popular fifth of the training items is the head; the rest is the long tail."""
LIGHT_USER = 10
"""Users with fewer training interactions than this are light."""


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Membership of items and users, by slice name."""

    items: dict[str, np.ndarray]
    """(N,) bool per slice."""
    users: dict[str, np.ndarray]
    """(U,) bool per slice."""


def make_slices(dataset: Dataset) -> Slices:
    """Slices from training counts: cold items, long tail, head; cold users, light users."""
    train = dataset.part == TRAIN
    item_counts = np.bincount(dataset.item[train], minlength=dataset.items.height)
    user_counts = np.bincount(dataset.user[train], minlength=dataset.users.height)
    warm = item_counts > 0
    order = np.argsort(-item_counts, kind="stable")
    head = np.zeros(len(item_counts), dtype=bool)
    head[order[: max(round(warm.sum() * HEAD_SHARE), 1)]] = True
    return Slices(
        items={"cold items": ~warm, "long tail": warm & ~head, "head": head & warm},
        users={"cold users": user_counts == 0, "light users": (user_counts > 0) & (user_counts < LIGHT_USER)},
    )
