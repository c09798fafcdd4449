"""A dataset as one model sees it: tensors of features, histories and labels.

Shapes: R interactions, U users, N items, B users, T events.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtrec.config import NextItem, Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.models.items import FeatureTensors
from mtrec.models.sending import sent
from mtrec.models.users import History


@dataclass(frozen=True, kw_only=True)
class View:
    """Arrays of one dataset through one encoding."""

    dataset: Dataset
    users: FeatureTensors
    items: FeatureTensors
    event_R: np.ndarray
    rating_R: np.ndarray
    """Standardised, NaN where there is none."""
    labels: dict[str, Tensor]
    """Per task over the rows of its label's table; see `mtrec.data.labels.label_array`."""
    events: list[str]
    device: torch.device

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        encoding: Encoding,
        scenario: Scenario,
        device: torch.device,
        labels: Encoding | None = None,
    ) -> View:
        """Encode a dataset for a model; targets in the vocabulary of `labels` (default: of `encoding`)."""
        labels = labels or encoding
        mean, std = encoding.rating
        return cls(
            dataset=dataset,
            users=FeatureTensors.of(dataset.user_features(encoding), device),
            items=FeatureTensors.of(dataset.item_features(encoding), device),
            event_R=dataset.events(encoding),
            rating_R=((dataset.rating - mean) / std).astype(np.float32),
            labels={
                name: torch.from_numpy(np.ascontiguousarray(dataset.labels(name, task, labels))).to(device)
                for name, task in scenario.tasks.items()
                if not isinstance(task, NextItem) and name in labels.labels
            },
            events=encoding.events,
            device=device,
        )

    def mean_gap(self, part: int) -> float:
        """Mean of the days between an event and the user's event before, in one part."""
        rows = np.flatnonzero(self.dataset.part == part)
        same = self.dataset.user[rows[1:]] == self.dataset.user[rows[:-1]]
        gaps = np.diff(self.dataset.time[rows])[same]
        return float(np.maximum(gaps, 0).mean()) if len(gaps) else 0.0

    def event_codes(self, names: list[str]) -> np.ndarray:
        """Codes of named events; an event that training never saw has none."""
        known = [self.events.index(name) + 1 for name in names if name in self.events]
        return np.array(known, dtype=np.int64)

    def history(self, rows_BT: np.ndarray) -> History:
        """Gather events into a padded history.

        Args:
            rows_BT: interaction rows, oldest first, −1 pads on the right.
        """
        mask = rows_BT >= 0
        rows = np.where(mask, rows_BT, 0)
        time = self.dataset.time[rows]
        gap = np.diff(time, axis=1, prepend=time[:, :1]) * mask

        def tensor(values: np.ndarray) -> Tensor:
            return sent(np.ascontiguousarray(values), self.device)

        return History(
            item_BT=tensor(self.dataset.item[rows]),
            event_BT=tensor(np.where(mask, self.event_R[rows], 0)),
            rating_BT=tensor(np.where(mask, self.rating_R[rows], np.nan)),
            gap_BT=tensor(gap.astype(np.float32)),
            mask_BT=tensor(mask),
            row_BT=tensor(rows),
        )

    def recent_rows(self, users_B: np.ndarray, before_part: int, length: int) -> np.ndarray:
        """The last `length` rows of each user among the parts before `before_part`; −1 pads on the right.

        Returns:
            (B, T) interaction rows, oldest first, with T ≤ length the longest history found (at least 1).
        """
        known = np.flatnonzero(self.dataset.part < before_part)
        owner = self.dataset.user[known]
        ends = np.searchsorted(owner, users_B, side="right")
        starts = np.maximum(np.searchsorted(owner, users_B, side="left"), ends - length)
        counts = ends - starts
        place = np.arange(max(int(counts.max(initial=0)), 1))
        inside = place[None, :] < counts[:, None]
        if len(known) == 0:
            return np.full(inside.shape, -1)
        return np.where(inside, known[np.minimum(starts[:, None] + place, len(known) - 1)], -1)
