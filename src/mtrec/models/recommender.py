"""The multi-task model: one encoder, one item tower, one user tower, a head per task.

Text is encoded once per distinct item. A `Catalogue` holds the latest vector of every text; in a training step
some of them are encoded afresh with gradient and take their place, the rest are slightly stale.

Rows are taken with `F.embedding`, not by indexing: on CPU the gradient of indexing adds up in the order in which
threads arrive, so that equal runs would end with different weights.

Shapes: N items, E text width, D model width, B users, T events per user, X examples, K pair tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.config import Binary, NextItem, Regression, Scenario, Task
from mtrec.data.dataset import Encoding
from mtrec.models.encoder import TextEncoder
from mtrec.models.habits import Habits, has_habit
from mtrec.models.heads import Head, NextItemHead, PairFactors, num_outputs
from mtrec.models.items import FeatureTensors, ItemTower, kept
from mtrec.models.losses import chained_logit
from mtrec.models.neighbours import Neighbours
from mtrec.models.posterior import Posterior
from mtrec.models.sending import sent
from mtrec.models.sharing.choice import make_sharing
from mtrec.models.trust import Trust
from mtrec.models.users import History, UserTower

NEW = "new_pair"
"""Name of what pair tasks share for items without a known id."""


@dataclass(kw_only=True)
class Catalogue:
    """All items as one model sees them."""

    features: FeatureTensors
    tokens: list[list[int]]
    text_NE: Tensor
    """Latest text vectors; written in place when an item is encoded afresh."""


@dataclass(frozen=True)
class Texts:
    """The text vectors of N items, of which a training step has encoded R afresh.

    Gradients are worked out for those R alone: of a large catalogue they are few.
    """

    stale_NE: Tensor
    rows_R: Tensor | None = None
    fresh_RE: Tensor | None = None

    def read(self, each: Callable[[Tensor], Tensor], only_M: Tensor | None = None) -> Tensor:
        """What a map of single vectors makes of them, (N, …); of those that are not in `only_M`, 0."""
        if only_M is None:
            read_N = each(self.stale_NE)
        else:
            read_M = each(self.stale_NE[only_M])
            read_N = read_M.new_zeros(len(self.stale_NE), *read_M.shape[1:]).index_copy(0, only_M, read_M)
        if self.rows_R is None or self.fresh_RE is None:
            return read_N
        return read_N.index_copy(0, self.rows_R, each(self.fresh_RE))

    @property
    def text_NE(self) -> Tensor:
        """The vectors themselves."""
        return self.read(lambda text_NE: text_NE)


@dataclass(frozen=True, kw_only=True)
class ItemVectors:
    """What a step knows of N items."""

    text_ND: Tensor
    label_scores_NV: Tensor
    """Of the labels that item tasks look for in the text; see `mtrec.models.label_attention`."""
    fused_ND: Tensor
    ids_N: Tensor
    """Id slots after id dropout."""
    factors_NF: Tensor | None
    biases_NK: Tensor | None

    def rows(self, index_M: Tensor) -> ItemVectors:
        """The vectors of some items."""
        return ItemVectors(
            text_ND=F.embedding(index_M, self.text_ND),
            label_scores_NV=F.embedding(index_M, self.label_scores_NV),
            fused_ND=F.embedding(index_M, self.fused_ND),
            ids_N=self.ids_N[index_M],
            factors_NF=None if self.factors_NF is None else F.embedding(index_M, self.factors_NF),
            biases_NK=None if self.biases_NK is None else F.embedding(index_M, self.biases_NK),
        )


class Recommender(nn.Module):
    """Built from a scenario, an encoding and a text encoder; learns and answers all tasks."""

    def __init__(self, scenario: Scenario, encoding: Encoding, encoder: TextEncoder) -> None:
        super().__init__()
        config = scenario.model
        self.tasks: dict[str, Task] = dict(scenario.tasks)
        self.encoder = encoder
        self.looked_for = _looked_for(scenario, encoding) if encoder.learns else {}
        """Item tasks whose labels are looked for in the text, each with the number of its outputs."""
        if self.looked_for:
            encoder.look_for(sum(self.looked_for.values()))
        self.items = ItemTower(encoding.items, encoder.width, config.width, config.item_ids)
        trust = Trust(encoding.user_counts, config.id_shrinkage)
        self.users = UserTower(
            encoding.users,
            trust,
            len(encoding.events),
            config.width,
            layers=config.user_layers,
            heads=config.user_heads,
            dropout=config.dropout,
            use_ids=config.user_ids,
        )
        width = config.width
        heads = {name: t for name, t in self.tasks.items() if not isinstance(t, NextItem)}
        num_known = len(encoding.items.ids)
        believed = [n for n, t in heads.items() if isinstance(t, Regression) and t.on == "pair"]
        num_factors = config.posterior_factors if config.item_ids else 0
        self.posteriors = nn.ModuleDict({n: Posterior(num_known + 1, num_factors) for n in believed if num_factors})
        places = {"item": width, "user": width, "pair": 3 * width + 2 * len(self.posteriors)}
        used = {t.on for t in heads.values()}
        self.bottoms = nn.ModuleDict(
            {
                place: make_sharing(config, [n for n, t in heads.items() if t.on == place], num_inputs, 2 * width)
                for place, num_inputs in places.items()
                if place in used
            }
        )
        self.heads = nn.ModuleDict(
            {n: Head(t, encoding.labels[n], 2 * width, encoder.width) for n, t in heads.items()}
        )
        if self.posteriors:
            # What beliefs leave to be learned of an item that nobody took is another thing than of a known one.
            paired = [n for n, t in heads.items() if t.on == "pair"]
            self.bottoms[NEW] = make_sharing(config, paired, places["pair"], 2 * width)
            for name in paired:
                self.head(name).tell_new_items_apart()
        self.width = width
        habitual = {n: t for n, t in heads.items() if has_habit(t) and config.item_ids}
        self.habits = Habits(habitual, num_known + 1, {n: len(encoding.labels[n].values) for n in habitual})
        for name in habitual:
            nn.init.zeros_(self.head(name).linear.bias)
        self.chained = _first_things_first(heads)
        """Binary tasks that come after another one, each with that one."""
        for name, first in self.chained:
            self.head(name).start_at(encoding.labels[name].prior[0] / max(encoding.labels[first].prior[0], 1e-6))
        self.rankers = nn.ModuleDict(
            {
                n: NextItemHead(t, len(encoding.items.ids), width)
                for n, t in self.tasks.items()
                if isinstance(t, NextItem)
            }
        )
        self.full = {n for n, t in self.tasks.items() if isinstance(t, NextItem) and num_known <= t.full_softmax}
        """Next-item tasks that score every item in training; the others sample."""
        self.neighbours: Neighbours | None = None
        if self.full and config.item_ids and config.neighbours:
            self.neighbours = Neighbours(num_known + 1, config.neighbours)
        self.factored = [
            n
            for n, t in heads.items()
            if t.on == "pair" and self.head(n).linear.out_features == 1 and n not in self.posteriors
        ]
        self.factors: PairFactors | None = None
        if self.factored and config.user_ids and config.item_ids:
            self.factors = PairFactors(trust, len(encoding.items.ids), encoder.width, width, len(self.factored))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Models that were saved before new items were told apart answer for them as for others."""
        twins = {f"heads.{name}.linear.": f"heads.{name}.new." for name in self.heads if self.head(name).new}
        for known, new in {"bottoms.pair.": f"bottoms.{NEW}.", **twins}.items() if NEW in self.bottoms else ():
            for name in [n for n in state_dict if n.startswith(prefix + known)]:
                state_dict.setdefault(prefix + new + name.removeprefix(prefix + known), state_dict[name])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def each(self) -> list[Recommender]:
        """The models that answer: this one; of an ensemble its members."""
        return [self]

    def head(self, name: str) -> Head:
        """The head of a task that is not next-item ranking."""
        head = self.heads[name]
        assert isinstance(head, Head)
        return head

    def catalogue(
        self,
        texts: list[str],
        features: FeatureTensors,
        progress: Callable[[float], None] | None = None,
    ) -> Catalogue:
        """Tokenize and encode every item text once."""
        tokens = self.encoder.tokenize(texts)
        vectors_NE = self.encoder.encode_all(tokens, progress=progress)
        return Catalogue(features=features, tokens=tokens, text_NE=vectors_NE)

    def fresh_text(
        self, catalogue: Catalogue, rows: np.ndarray, instead: Mapping[int, list[int]] | None = None
    ) -> Texts:
        """Encode some items' texts with gradient and put them among the stale ones.

        Each row of `rows` is distinct; the catalogue's own copy is brought up to date too. Of an encoder that
        learns nothing no vector is ever stale.

        Args:
            catalogue: all items.
            rows: which to encode, on the host.
            instead: tokens of another text for some of them, of which the catalogue learns nothing.
        """
        instead = instead or {}
        changed = np.isin(rows, list(instead))
        if not self.encoder.learns:
            rows, changed = rows[changed], changed[changed]
        if len(rows) == 0:
            return Texts(catalogue.text_NE)
        vectors = self.encoder([instead.get(i, catalogue.tokens[i]) for i in rows.tolist()])
        texts = Texts(catalogue.text_NE.clone(), sent(rows, vectors.device), vectors)
        own = sent(np.flatnonzero(~changed), vectors.device)
        catalogue.text_NE.index_copy_(0, sent(rows[~changed], vectors.device), vectors.detach()[own])
        return texts

    def item_vectors(
        self,
        texts: Tensor | Texts,
        rows: FeatureTensors,
        keep_ids_N: Tensor | None = None,
        paired_M: Tensor | None = None,
    ) -> ItemVectors:
        """Everything that later steps need of the given items.

        Args:
            texts: what the encoder gives of their texts, (N, E), `encoder.total_width` wide.
            rows: their features.
            keep_ids_N: false drops an item's id.
            paired_M: items that pair tasks will be asked about; None: all.
        """
        texts = texts if isinstance(texts, Texts) else Texts(texts)
        width = self.encoder.width
        text_ND = texts.read(lambda text_NE: self.items.text(text_NE[:, :width]))
        ids_N = kept(rows.ids, keep_ids_N)
        factors, biases = None, None
        if (pairs := self.factors) is not None:
            said_NX = texts.read(lambda text_NE: pairs.of_text(text_NE[:, :width]), paired_M)
            factors, biases = pairs.items(ids_N, said_NX)
        return ItemVectors(
            text_ND=text_ND,
            label_scores_NV=texts.read(lambda text_NE: text_NE[:, width:]),
            fused_ND=self.items(text_ND, rows, keep_ids_N),
            ids_N=ids_N,
            factors_NF=factors,
            biases_NK=biases,
        )

    def user_states(
        self, users: FeatureTensors, history: History, items: ItemVectors, keep_ids_B: Tensor | None = None
    ) -> Tensor:
        """States before each event and after the last, (B, T + 1, `state_width`): D, and the sums of habits."""
        states: Tensor = self.users(users, history, items.fused_ND, keep_ids_B)
        if not self.habits.width:
            return states
        return torch.cat([states, self.habits(items.ids_N[history.item_BT] * history.mask_BT)], dim=-1)

    @property
    def state_width(self) -> int:
        """Numbers in a user's state."""
        return self.width + self.habits.width

    def item_outputs(self, items: ItemVectors, item_X: Tensor) -> dict[str, Tensor]:
        """Raw outputs of the item tasks for some rows of `items`."""
        outputs = self._outputs("item", F.embedding(item_X, items.text_ND))
        scores_XV = F.embedding(item_X, items.label_scores_NV)
        for name, found in zip(self.looked_for, scores_XV.split(list(self.looked_for.values()), -1), strict=True):
            outputs[name] = outputs[name] + found.view_as(outputs[name])
        return outputs

    def user_outputs(self, states_XD: Tensor) -> dict[str, Tensor]:
        """Raw outputs of the user tasks."""
        outputs = self._outputs("user", states_XD[..., : self.width])
        return self.habits.add_to(outputs, states_XD[..., self.width :]) if self.habits.width else outputs

    def pair_outputs(
        self, states_XD: Tensor, user_ids_X: Tensor, items: ItemVectors, item_X: Tensor, beliefs_XQ: Tensor
    ) -> dict[str, Tensor]:
        """Raw outputs of the pair tasks.

        Args:
            states_XD: the user's state of each pair.
            user_ids_X: id slots of the users.
            items: vectors that `item_X` points into.
            item_X: row of each pair's item.
            beliefs_XQ: what the posteriors say of each pair, a mean and a log standard deviation per posterior
                (`mtrec.models.beliefs`).
        """
        if "pair" not in self.bottoms:
            return {}
        states_XD, fused_XD = states_XD[..., : self.width], F.embedding(item_X, items.fused_ND)
        inputs_XI = torch.cat([states_XD, fused_XD, states_XD * fused_XD, beliefs_XQ], dim=-1)
        outputs = self._outputs("pair", inputs_XI)
        if NEW in self.bottoms:
            new_X = items.ids_N[item_X] == 0
            for name, shared_XH in self.bottoms[NEW](inputs_XI).items():
                known = outputs[name]
                new_X1 = new_X.view(-1, *[1] * (known.dim() - 1))
                outputs[name] = torch.where(new_X1, self.head(name).of_new(shared_XH), known)
        for q, name in enumerate(self.posteriors):
            outputs[name] = outputs[name] + beliefs_XQ[:, 2 * q]
        if self.factors is not None and items.factors_NF is not None and items.biases_NK is not None:
            scores_XK = self.factors(
                user_ids_X, F.embedding(item_X, items.factors_NF), F.embedding(item_X, items.biases_NK)
            )
            for k, name in enumerate(self.factored):
                outputs[name] = outputs[name] + scores_XK[:, k]
        for name, first in self.chained:
            outputs[name] = chained_logit(outputs[first], outputs[name])
        return outputs

    def nearby(
        self,
        name: str,
        items: ItemVectors,
        history: History,
        *,
        row_X: Tensor | None = None,
        place_X: Tensor | None = None,
    ) -> Tensor | None:
        """What `rank_logits` takes of a history beside its states: scores by id slot, (X, S).

        Args:
            name: a next-item task.
            items: vectors that the history points into.
            history: B histories.
            row_X: histories of the states; with it, they are training rows. None: each history once.
            place_X: events before each state; None: all.

        Returns:
            None when the task does without neighbours.
        """
        if self.neighbours is None or name not in self.full:
            return None
        slot_BT = items.ids_N[history.item_BT] * history.mask_BT
        if row_X is not None and place_X is not None:
            scores_XS: Tensor = self.neighbours(slot_BT, history.row_BT, row_X, place_X, own=True)
            return scores_XS
        everyone = torch.arange(len(slot_BT), device=slot_BT.device)
        scores_BS: Tensor = self.neighbours(slot_BT, history.row_BT, everyone, history.mask_BT.sum(1), own=False)
        return scores_BS

    def rank_logits(
        self,
        name: str,
        states_XD: Tensor,
        items: ItemVectors,
        near_XS: Tensor | None,
        allowed_N: Tensor | None = None,
    ) -> Tensor:
        """Logits of a next-item task over the given items, (X, N); −inf for items that are not allowed.

        `near_XS` comes from `nearby`, for the same states.
        """
        logits: Tensor = self.rankers[name](states_XD[..., : self.width], items.fused_ND, items.ids_N, allowed_N)
        return logits if near_XS is None else logits + near_XS[:, items.ids_N]

    def rank_logits_of(self, name: str, states_XD: Tensor, items: ItemVectors, item_X: Tensor) -> Tensor:
        """Logit of one item per state, (X,), for a task that samples."""
        ranker = self.rankers[name]
        assert isinstance(ranker, NextItemHead)
        return ranker.of_pairs(
            states_XD[..., : self.width], F.embedding(item_X, items.fused_ND), items.ids_N[item_X]
        )

    def _outputs(self, place: str, inputs_XI: Tensor) -> dict[str, Tensor]:
        if place not in self.bottoms:
            return {}
        return {name: self.heads[name](shared) for name, shared in self.bottoms[place](inputs_XI).items()}

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """α per task."""
        return {name: task.weight for name, task in self.tasks.items()}


def _looked_for(scenario: Scenario, encoding: Encoding) -> dict[str, int]:
    """Item tasks with few enough labels to look for each in the text, with the number of their outputs."""
    items = {n: num_outputs(t, encoding.labels[n]) for n, t in scenario.tasks.items() if t.on == "item"}
    return {name: number for name, number in items.items() if number <= scenario.model.label_attention}


def _first_things_first(tasks: Mapping[str, Task]) -> list[tuple[str, str]]:
    """Tasks that come after another one, with that one, in an order in which chains can be multiplied up."""
    after = {name: t.after for name, t in tasks.items() if isinstance(t, Binary) and t.after}

    def depth(name: str) -> int:
        return 1 + depth(after[name]) if name in after else 0

    return sorted(after.items(), key=lambda pair: depth(pair[0]))
