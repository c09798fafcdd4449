"""Answers from a model folder.

Shapes: N items, D width, X pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtrec.config import NextItem
from mtrec.data.dataset import Dataset
from mtrec.errors import InputError
from mtrec.models.beliefs import Past, beliefs
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, ItemVectors
from mtrec.models.store import Bundle, load_memory, load_model
from mtrec.models.users import History

ALL_PARTS = 3


class Predictor:
    """Recommends items and scores pairs: for remembered users, for given histories, for a new user."""

    def __init__(self, bundle: Bundle, dataset: Dataset, catalogue: Catalogue) -> None:
        self.bundle, self.dataset = bundle, dataset
        self.view: View = bundle.view(dataset)
        with torch.no_grad():
            self.items: ItemVectors = bundle.model.item_vectors(catalogue.text_NE, catalogue.features)
        self.item_ids: list[str] = dataset.items["item_id"].to_list()
        self._item_row = {item: row for row, item in enumerate(self.item_ids)}
        self._user_row = {user: row for row, user in enumerate(dataset.users["user_id"].to_list())}

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """Load a model folder.

        Raises:
            ModelError: the folder is not a model folder, or its parts do not fit.
        """
        bundle = load_model(folder)
        return cls(bundle, *load_memory(folder, bundle))

    @torch.no_grad()
    def recommend(
        self, *, user_id: str | None = None, history: Sequence[str] | None = None, num_items: int = 10
    ) -> list[tuple[str, float]]:
        """The items to show next, best first, without those in the history.

        Args:
            user_id: whose attributes and remembered history to use; an unknown user counts as new.
            history: item ids, oldest first, in place of the remembered ones; unknown items are passed over.
            num_items: how many at most.

        Returns:
            Item ids with their scores, fewer than `num_items` only when no more items are left.

        Raises:
            InputError: the model ranks nothing, or `num_items` is not positive.
        """
        if num_items < 1:
            raise InputError(f"num_items is {num_items}: ask for at least one item")
        ranking = next((n for n, t in self.bundle.model.tasks.items() if isinstance(t, NextItem)), None)
        if ranking is None:
            raise InputError(f"model '{self.bundle.scenario.name}' has no next_item task, so it cannot recommend")
        state_1D, past, seen, _ = self._state(user_id, history)
        model = self.bundle.model
        near = model.nearby(ranking, self.items, past)
        scores_N = model.rank_logits(ranking, state_1D, self.items, near)[0].float().cpu().numpy()
        scores_N[seen] = -np.inf
        best = np.argsort(-scores_N, kind="stable")[:num_items]
        return [(self.item_ids[i], float(scores_N[i])) for i in best if np.isfinite(scores_N[i])]

    @torch.no_grad()
    def score(
        self, item_ids: Sequence[str], *, user_id: str | None = None, history: Sequence[str] | None = None
    ) -> dict[str, list[float]]:
        """What the pair tasks predict for one user and some items, by task, in the order of `item_ids`.

        Raises:
            InputError: an item is not in the catalogue.
        """
        rows_X = self._rows(item_ids)
        state_1D, _, _, did = self._state(user_id, history)
        slot = self.view.users.ids[self._user_row[user_id]] if user_id in self._user_row else torch.tensor(0)
        model = self.bundle.model
        beliefs_XQ = beliefs(model, self.view, did, torch.zeros_like(rows_X), self.view.items.ids[rows_X])
        outputs = model.pair_outputs(
            state_1D.expand(len(rows_X), -1), slot.to(rows_X).expand(len(rows_X)), self.items, rows_X, beliefs_XQ
        )
        return {name: model.head(name).predict(out).float().tolist() for name, out in outputs.items()}

    @torch.no_grad()
    def labels(self, item_ids: Sequence[str]) -> dict[str, list[list[str]]]:
        """What the multi-label tasks about items give each item, by task, in the order of `item_ids`.

        A label is given from its threshold up; most probable first.

        Raises:
            InputError: an item is not in the catalogue.
        """
        outputs = self.bundle.model.item_outputs(self.items, self._rows(item_ids))
        found = {}
        for name, output in outputs.items():
            head, values = self.bundle.model.head(name), self.bundle.encoding.labels[name].values
            if head.thresholds is not None:
                probability_XV = head.predict(output)
                given_XV = head.given(probability_XV).tolist()
                order_XV = probability_XV.argsort(descending=True, stable=True).tolist()
                found[name] = [
                    [values[v] for v in order if given[v]] for order, given in zip(order_XV, given_XV, strict=True)
                ]
        return found

    def _rows(self, item_ids: Sequence[str]) -> Tensor:
        unknown = [i for i in item_ids if i not in self._item_row]
        if unknown:
            raise InputError(f"item '{unknown[0]}' is not in the model's catalogue of {len(self.item_ids)} items")
        return torch.tensor([self._item_row[i] for i in item_ids], dtype=torch.long, device=self.bundle.device)

    def _state(
        self, user_id: str | None, history: Sequence[str] | None
    ) -> tuple[Tensor, History, np.ndarray, Past]:
        """The user's state (1, D), the history it is made of, the item rows of all that was ever taken, and the
        same with its labels."""
        row = self._user_row.get(user_id) if user_id is not None else None
        length = self.bundle.scenario.model.history
        if history is not None:
            rows = [self._item_row[i] for i in history if i in self._item_row]
            past, seen = self._given(rows[-length:]), np.array(rows, dtype=int)
            did = Past(num_users=1, owner_Y=np.zeros_like(seen), item_Y=seen, row_Y=None)
        else:
            user = np.array([-1 if row is None else row])
            past = self.view.history(self.view.recent_rows(user, ALL_PARTS, length))
            did = Past.before(self.view, user, ALL_PARTS)
            seen = did.item_Y
        users = self.view.users.rows(torch.tensor([row or 0], device=self.bundle.device))
        if row is None:
            users = users.unknown()
        states = self.bundle.model.user_states(users, past, self.items)
        return states[:, int(past.mask_BT.sum())], past, seen, did

    def _given(self, rows: list[int]) -> History:
        """A history of items alone: taken one after the other by the task's usual event, now."""
        task = next((t for t in self.bundle.model.tasks.values() if isinstance(t, NextItem)), None)
        codes = self.view.event_codes(task.events if task else [])
        event = int(codes[0]) if len(codes) else min(len(self.view.events), 1)
        device, count = self.bundle.device, max(len(rows), 1)
        return History(
            item_BT=torch.tensor([rows or [0]], dtype=torch.long, device=device),
            event_BT=torch.full((1, count), event, dtype=torch.long, device=device),
            rating_BT=torch.full((1, count), torch.nan, device=device),
            gap_BT=torch.zeros(1, count, device=device),
            mask_BT=torch.tensor([[True] * len(rows) or [False]], device=device),
            row_BT=torch.arange(count, device=device).unsqueeze(0),
        )
