"""A user as a function of attributes and recent history.

Shapes: B users, T history positions, H heads, D width. State t is the user just before event t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.data.features import TableFeatures
from mtrec.models.items import FeatureEmbedding, FeatureTensors, kept
from mtrec.models.trust import Trust


@dataclass(frozen=True, kw_only=True)
class History:
    """What B users did, oldest first, padded on the right."""

    item_BT: Tensor
    """Rows of the item vectors given beside it."""
    event_BT: Tensor
    """Event codes, 0 unknown."""
    rating_BT: Tensor
    """Standardised ratings, NaN where there is none."""
    gap_BT: Tensor
    """Days since the event before (0 for the first)."""
    mask_BT: Tensor
    """True on real events."""
    row_BT: Tensor
    """Numbers of the events' rows, which tell how far apart events are; any on pads."""


class UserTower(nn.Module):
    """Causal transformer over item vectors, after SASRec (Kang & McAuley 2018, arXiv:1808.09781).

    Departures: recency enters as a linear attention bias per head (ALiBi, arXiv:2108.12409) so that any history
    length works; events, ratings and time gaps are part of the input; position 0 holds the user's attributes, so
    a user without history has a state too; the mean of past item vectors is added to the output.
    """

    def __init__(
        self,
        features: TableFeatures,
        trust: Trust,
        num_events: int,
        width: int,
        *,
        layers: int,
        heads: int,
        dropout: float,
        use_ids: bool,
    ) -> None:
        super().__init__()
        self.attributes = FeatureEmbedding(features, width)
        self.ids = nn.Embedding(len(features.ids) + 1, width, padding_idx=0) if use_ids else None
        self.trust = trust
        if self.ids is not None:
            nn.init.zeros_(self.ids.weight)
        self.start = nn.Parameter(torch.zeros(width))
        self.event = nn.Embedding(num_events + 1, width)
        self.signals = nn.Linear(3, width)
        nn.init.normal_(self.event.weight, std=0.02)
        nn.init.normal_(self.signals.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, users: FeatureTensors, history: History, items_ND: Tensor, keep_ids_B: Tensor | None = None
    ) -> Tensor:
        """States before each event and after the last, (B, T + 1, D)."""
        items_BTD = F.embedding(history.item_BT, items_ND) * history.mask_BT.unsqueeze(-1)
        who_BD = self.start + self.attributes(users)
        if self.ids is not None:
            ids_B = kept(users.ids, keep_ids_B)
            who_BD = who_BD + self.ids(ids_B) * self.trust(ids_B)
        rated_BT = ~history.rating_BT.isnan()
        signals_BT3 = torch.stack(
            [history.rating_BT.nan_to_num(), rated_BT.float(), history.gap_BT.clamp(min=0).log1p()], dim=-1
        )
        x_BTD = items_BTD + self.event(history.event_BT) + self.signals(signals_BT3)
        x = self.dropout(torch.cat([who_BD.unsqueeze(1), x_BTD], dim=1))
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x)) + _running_mean(items_BTD, history.mask_BT) + who_BD.unsqueeze(1)


class Block(nn.Module):
    """Pre-norm transformer block with causal attention and a linear recency bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        B, T, D = x_BTD.shape
        q, k, v = (
            part.view(B, T, self.heads, D // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm1(x_BTD)).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=recency_bias(T, self.heads, x_BTD))
        x_BTD = x_BTD + self.dropout(self.merge(attended.transpose(1, 2).reshape(B, T, D)))
        out: Tensor = x_BTD + self.dropout(self.mlp(self.norm2(x_BTD)))
        return out


def recency_bias(length: int, heads: int, like: Tensor) -> Tensor:
    """Additive attention mask (H, T, T): −slope · distance to the past, −inf to the future."""
    place = torch.arange(length, device=like.device)
    distance = (place[:, None] - place[None, :]).to(like.dtype)
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1, device=like.device, dtype=like.dtype) / heads)
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, float("-inf"))


def _running_mean(items_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of the item vectors before each position, (B, T + 1, D); zero where there is none."""
    total = F.pad(items_BTD.cumsum(1), (0, 0, 1, 0))
    count = F.pad(mask_BT.to(items_BTD.dtype).cumsum(1), (1, 0))
    return total / count.clamp(min=1).unsqueeze(-1)
