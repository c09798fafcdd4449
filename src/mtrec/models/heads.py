"""Task heads: from a shared representation to a prediction and its loss.

Shapes: X examples, V outputs of a head, D width.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtrec.config import Binary, Classification, MultiLabel, NextItem, Profile, Regression, Task
from mtrec.data.labels import Label
from mtrec.models import losses
from mtrec.models.label_embeddings import LabelEmbeddings
from mtrec.models.trust import Trust


def num_outputs(task: Task, label: Label) -> int:
    """Width of a task's prediction: 1 for numbers and yes/no, else the vocabulary's size."""
    return 1 if isinstance(task, (Regression, Binary)) else len(label.values)


class Head(nn.Module):
    """A linear head that starts at the training prior.

    The weights start at zero, so an untrained head predicts the mean rating, the base rate, or the class shares.
    Regression is learned in standard deviations of the training labels. Where a task answers with probabilities,
    a temperature divides its outputs (1 until `mtrec.evaluation.calibration` sets it); the loss is without it.
    """

    temperature: Tensor | None
    thresholds: Tensor | None
    """Multi-label: the probability from which each label is given, (V,); see `mtrec.evaluation.thresholds`."""

    def __init__(self, task: Task, label: Label, num_inputs: int, text_width: int = 0) -> None:
        super().__init__()
        self.task = task
        if isinstance(task, MultiLabel) and task.strategy == "label_embeddings":
            self.linear: nn.Linear = LabelEmbeddings(num_inputs, num_outputs(task, label), text_width)
        else:
            self.linear = nn.Linear(num_inputs, num_outputs(task, label))
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.bias.copy_(torch.tensor(_prior_outputs(task, label)))
        self.new: nn.Linear | None = None
        """In place of `linear` for items that nobody took; see `tell_new_items_apart`."""
        self.mean = label.prior[0] if isinstance(task, Regression) else 0.0
        self.scale, self.limits = label.scale, label.limits
        probable = isinstance(task, (Binary, Classification, MultiLabel))
        self.register_buffer("temperature", torch.ones(()) if probable else None)
        thresholds = torch.full((len(label.values),), 0.5) if isinstance(task, MultiLabel) else None
        self.register_buffer("thresholds", thresholds)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Models that were saved before there were temperatures and thresholds have 1 and one half."""
        if self.temperature is not None:
            state_dict.setdefault(f"{prefix}temperature", torch.ones(()))
        if self.thresholds is not None:
            state_dict.setdefault(f"{prefix}thresholds", torch.full_like(self.thresholds, 0.5))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def tell_new_items_apart(self) -> None:
        """From now on answer for items that nobody took by weights of their own, which begin as the others."""
        self.new = copy.deepcopy(self.linear)

    def forward(self, shared_XD: Tensor) -> Tensor:
        """Raw outputs: (X,) for one-dimensional tasks, else (X, V)."""
        return self._shaped(self.linear(shared_XD))

    def of_new(self, shared_XD: Tensor) -> Tensor:
        """The same for items that nobody took."""
        assert self.new is not None
        return self._shaped(self.new(shared_XD))

    def _shaped(self, out: Tensor) -> Tensor:
        return out.squeeze(-1) if out.shape[-1] == 1 and not isinstance(self.task, (MultiLabel, Profile)) else out

    @torch.no_grad()
    def start_at(self, share: float) -> None:
        """Begin a yes/no head at another base rate."""
        share = min(max(share, 1e-4), 1 - 1e-4)
        for linear in (self.linear, self.new):
            if linear is not None:
                linear.bias.fill_(math.log(share / (1 - share)))

    def loss(self, outputs: Tensor, target: Tensor, mask_X: Tensor) -> Tensor:
        """The task's loss over the examples in the mask; see `mtrec.models.losses`."""
        if isinstance(self.task, Regression):
            return losses.regression_loss(outputs, (target - self.mean) / self.scale, mask_X)
        if isinstance(self.task, Binary):
            return losses.binary_loss(outputs, target, mask_X)
        if isinstance(self.task, Classification):
            return losses.classification_loss(outputs, target, mask_X)
        if isinstance(self.task, Profile):
            return losses.profile_loss(outputs, target, mask_X, self.task.cos_gt)
        return losses.multilabel_loss(outputs, target, mask_X)

    def predict(self, outputs: Tensor) -> Tensor:
        """Outputs in the units of the label: the number, calibrated probabilities, or the profile."""
        if isinstance(self.task, Regression):
            numbers = outputs * self.scale + self.mean
            return numbers.clamp(*self.limits) if self.limits else numbers
        if self.temperature is None:
            return outputs
        outputs = outputs / self.temperature
        return outputs.softmax(-1) if isinstance(self.task, Classification) else outputs.sigmoid()

    def given(self, probability_XV: Tensor) -> Tensor:
        """Which labels a multi-label task gives, (X, V) bool, from what `predict` says."""
        assert self.thresholds is not None
        return probability_XV >= self.thresholds


def _prior_outputs(task: Task, label: Label) -> list[float]:
    if isinstance(task, Regression):
        return [0.0]
    shares = [min(max(p, 1e-4), 1 - 1e-4) for p in label.prior]
    if isinstance(task, Profile):
        return shares
    if isinstance(task, Classification):
        return [math.log(p) for p in shares]
    return [math.log(p / (1 - p)) for p in shares]


class PairFactors(nn.Module):
    """Biases and a factor product per pair task: what matrix factorisation knows (Koren et al. 2009).

    score = b_user + b_item + wᵀ(p_user ⊙ q_item) with q_item = learned id factor + linear map of the text.
    The user's factor is learned by id; a new user or item has zero factors and falls back on the rest.
    Biases start in closed form (`start_from`).
    """

    def __init__(self, trust: Trust, num_items: int, text_width: int, factors: int, num_tasks: int) -> None:
        super().__init__()
        self.trust = trust
        num_users = len(trust.share) - 1
        self.user_bias = nn.Embedding(num_users + 1, num_tasks, padding_idx=0)
        self.item_bias = nn.Embedding(num_items + 1, num_tasks, padding_idx=0)
        self.user = nn.Embedding(num_users + 1, factors, padding_idx=0)
        self.item = nn.Embedding(num_items + 1, factors, padding_idx=0)
        self.text = nn.Linear(text_width, factors, bias=False)
        self.text_bias = nn.Linear(text_width, num_tasks, bias=False)
        self.weight = nn.Parameter(torch.ones(num_tasks, factors))
        for table in (self.user_bias, self.item_bias, self.user):
            nn.init.zeros_(table.weight)
        nn.init.normal_(self.item.weight, std=0.05)
        with torch.no_grad():
            self.item.weight[0].zero_()
        nn.init.zeros_(self.text_bias.weight)
        nn.init.normal_(self.text.weight, std=0.05)

    @torch.no_grad()
    def start_from(self, task: int, user_bias: np.ndarray, item_bias: np.ndarray) -> None:
        """Begin with a task's biases, by id slot, in the units of its raw output (`mtrec.models.biases`)."""
        for table, bias in ((self.user_bias, user_bias), (self.item_bias, item_bias)):
            table.weight[:, task] = torch.from_numpy(bias).to(table.weight)

    def of_text(self, text_NE: Tensor) -> Tensor:
        """What texts say of their items' factors and biases, (N, F + K)."""
        return nn.functional.linear(text_NE, torch.cat([self.text.weight, self.text_bias.weight]))

    def items(self, ids_N: Tensor, of_text_NX: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (N, F) and biases (N, K) of items."""
        num_factors, num_tasks = self.text.out_features, self.text_bias.out_features
        factors_NF, biases_NK = of_text_NX.split([num_factors, num_tasks], dim=-1)
        return self.item(ids_N) + factors_NF, self.item_bias(ids_N) + biases_NK

    def forward(self, user_ids_X: Tensor, factors_XF: Tensor, biases_XK: Tensor) -> Tensor:
        """Scores of K tasks for X pairs, (X, K), given the items' factors and biases."""
        product_XF = self.user(user_ids_X) * self.trust(user_ids_X) * factors_XF
        return product_XF @ self.weight.T + biases_XK + self.user_bias(user_ids_X)


class NextItemHead(nn.Module):
    """Scores every item for a user state: scale · (W h)ᵀ v + popularity bias."""

    def __init__(self, task: NextItem, num_items: int, width: int) -> None:
        super().__init__()
        self.task = task
        self.query = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.query.weight)
        self.bias = nn.Embedding(num_items + 1, 1, padding_idx=0)
        nn.init.zeros_(self.bias.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))

    def forward(
        self, states_XD: Tensor, items_ND: Tensor, ids_N: Tensor, allowed_N: Tensor | None = None
    ) -> Tensor:
        """Logits (X, N); −inf for items that are not allowed."""
        bias_N = self.bias(ids_N).squeeze(-1)
        if allowed_N is not None:
            bias_N = bias_N.masked_fill(~allowed_N, float("-inf"))
        return torch.addmm(bias_N, self.query(states_XD) * self.log_scale.exp(), items_ND.T)

    def of_pairs(self, states_XD: Tensor, items_XD: Tensor, ids_X: Tensor) -> Tensor:
        """Logits of one item per state, (X,)."""
        product_X = (self.query(states_XD) * items_XD).sum(-1) * self.log_scale.exp()
        logits: Tensor = product_X + self.bias(ids_X).squeeze(-1)
        return logits
