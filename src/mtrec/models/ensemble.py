"""An ensemble: several models of the same tasks on the same data that answer as one.

It has the methods of a `Recommender` that answer, so that whoever asks a model can ask an ensemble. What the
members know of a text or a user lies side by side in one vector; each method hands every member its own part.

Each task's answer is a weighted mean: of predicted numbers and probabilities (a linear opinion pool), of profiles
as unit vectors, and for ranking of the log-probabilities over all items (a logarithmic pool), since the scores of
different models have no common scale.

Shapes: N items, D summed width of the members, X examples, S id slots, V values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.config import Profile, Task
from mtrec.models.heads import Head
from mtrec.models.items import FeatureTensors
from mtrec.models.recommender import Catalogue, ItemVectors, Recommender, Texts
from mtrec.models.users import History

Shares = Mapping[str, Sequence[float]]
"""Task → the share of each member in its answer; they add up to 1."""


@dataclass(frozen=True, kw_only=True)
class _ItemVectors(ItemVectors):
    """The items of all members."""

    members: tuple[ItemVectors, ...]


class _Answered(Head):
    """The head of a task whose outputs are answers already, of calibrated members."""

    def __init__(self, task: Task, thresholds_V: Tensor | None) -> None:
        nn.Module.__init__(self)
        self.task, self.temperature, self.thresholds = task, None, thresholds_V

    def predict(self, outputs: Tensor) -> Tensor:
        """The outputs as they are."""
        return outputs


class Ensemble(Recommender):
    """Members that answer together. It cannot be trained.

    Args:
        tasks: what is answered; every member has a head for each.
        members: models of one encoding.
        shares: how much each counts; None: all the same.
    """

    def __init__(
        self, tasks: Mapping[str, Task], members: Sequence[Recommender], shares: Shares | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.tasks = dict(tasks)
        self.members = nn.ModuleList(members)
        self.shares: Shares = shares or {name: [1 / len(members)] * len(members) for name in tasks}
        self.neighbours = None  # each member has its own
        self.factors = None

    def head(self, name: str) -> Head:
        """Stands in for the heads of the members, which have answered by then; thresholds are their mean."""
        each = [member.head(name).thresholds for member in self.each()]
        known = [thresholds for thresholds in each if thresholds is not None]
        return _Answered(self.tasks[name], self._mean(name, known) if known else None)

    def catalogue(
        self,
        texts: list[str],
        features: FeatureTensors,
        progress: Callable[[float], None] | None = None,
    ) -> Catalogue:
        """Encode every item text once with the encoder of each member."""
        vectors = [member.catalogue(texts, features, progress).text_NE for member in self.each()]
        return Catalogue(features=features, tokens=[[] for _ in texts], text_NE=torch.cat(vectors, dim=-1))

    def item_vectors(
        self,
        texts: Tensor | Texts,
        rows: FeatureTensors,
        keep_ids_N: Tensor | None = None,
        paired_M: Tensor | None = None,
    ) -> ItemVectors:
        """What each member knows of the given items."""
        text_NE = texts.text_NE if isinstance(texts, Texts) else texts
        parts = text_NE.split([member.encoder.total_width for member in self.each()], dim=-1)
        each = tuple(
            member.item_vectors(part, rows, keep_ids_N, paired_M)
            for member, part in zip(self.each(), parts, strict=True)
        )
        return _ItemVectors(
            text_ND=torch.cat([items.text_ND for items in each], dim=-1),
            label_scores_NV=torch.cat([items.label_scores_NV for items in each], dim=-1),
            fused_ND=torch.cat([items.fused_ND for items in each], dim=-1),
            ids_N=each[0].ids_N,
            factors_NF=None,
            biases_NK=None,
            members=each,
        )

    def user_states(
        self, users: FeatureTensors, history: History, items: ItemVectors, keep_ids_B: Tensor | None = None
    ) -> Tensor:
        """The states of each member before each event and after the last, (B, T + 1, D)."""
        pairs = zip(self.each(), _of(items), strict=True)
        return torch.cat([m.user_states(users, history, own, keep_ids_B) for m, own in pairs], dim=-1)

    def item_outputs(self, items: ItemVectors, item_X: Tensor) -> dict[str, Tensor]:
        """Answers of the item tasks."""
        return self._pooled([m.item_outputs(own, item_X) for m, own in zip(self.each(), _of(items), strict=True)])

    def user_outputs(self, states_XD: Tensor) -> dict[str, Tensor]:
        """Answers of the user tasks."""
        return self._pooled([m.user_outputs(s) for m, s in zip(self.each(), self._parts(states_XD), strict=True)])

    def pair_outputs(
        self, states_XD: Tensor, user_ids_X: Tensor, items: ItemVectors, item_X: Tensor, beliefs_XQ: Tensor
    ) -> dict[str, Tensor]:
        """Answers of the pair tasks."""
        beliefs = beliefs_XQ.split([2 * len(member.posteriors) for member in self.each()], dim=-1)
        parts = zip(self.each(), self._parts(states_XD), _of(items), beliefs, strict=True)
        return self._pooled([m.pair_outputs(s, user_ids_X, own, item_X, b) for m, s, own, b in parts])

    def nearby(self, name: str, items: ItemVectors, history: History, **_: Any) -> Tensor | None:
        """The neighbours' scores of each member, (members, X, S); 0 of one that does without."""
        found = [m.nearby(name, own, history) for m, own in zip(self.each(), _of(items), strict=True)]
        some = next((scores for scores in found if scores is not None), None)
        if some is None:
            return None
        return torch.stack([torch.zeros_like(some) if scores is None else scores for scores in found])

    def rank_logits(
        self,
        name: str,
        states_XD: Tensor,
        items: ItemVectors,
        near_XS: Tensor | None,
        allowed_N: Tensor | None = None,
    ) -> Tensor:
        """Mean log-probability of each item, (X, N)."""
        states, own = self._parts(states_XD), _of(items)
        total_XN: Tensor | None = None
        for number, (member, share) in enumerate(zip(self.each(), self.shares[name], strict=True)):
            if share == 0:  # times a logarithm of 0 it would be NaN
                continue
            near = None if near_XS is None else near_XS[number]
            logits_XN = member.rank_logits(name, states[number], own[number], near, allowed_N)
            part_XN = share * logits_XN.float().log_softmax(-1)
            total_XN = part_XN if total_XN is None else total_XN + part_XN
        assert total_XN is not None
        return total_XN

    def each(self) -> list[Recommender]:
        """The members."""
        return [member for member in self.members if isinstance(member, Recommender)]

    @property
    def state_width(self) -> int:
        """Numbers in the states of all members."""
        return sum(member.state_width for member in self.each())

    def _parts(self, states_XD: Tensor) -> tuple[Tensor, ...]:
        """Each member's part of a state."""
        return states_XD.split([member.state_width for member in self.each()], dim=-1)

    def _pooled(self, outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        pooled = {}
        for name in outputs[0]:
            answers = [m.head(name).predict(out[name]).float() for m, out in zip(self.each(), outputs, strict=True)]
            if isinstance(self.tasks[name], Profile):
                answers = [F.normalize(answer, dim=-1) for answer in answers]
            pooled[name] = self._mean(name, answers)
        return pooled

    def _mean(self, name: str, each: Sequence[Tensor]) -> Tensor:
        shares = torch.tensor(self.shares[name], device=each[0].device)
        return torch.einsum("m...,m->...", torch.stack(list(each)), shares)


def _of(items: ItemVectors) -> tuple[ItemVectors, ...]:
    assert isinstance(items, _ItemVectors)
    return items.members
