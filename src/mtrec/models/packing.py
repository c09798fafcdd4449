"""Texts one after another in one row, without padding, for GPUs with a kernel for attention within each of them.

transformers hands on whatever it is called with to its attention function. The one here takes where each text ends,
and calls torch's kernel for sequences of several lengths (`torch.nn.attention.varlen`, FlashAttention-2, Dao 2023,
arXiv:2307.08691). It has no dropout of attention weights; the dropout of states stays. Whether an encoder can be
run so is tried, not guessed.

Shapes: B texts, L tokens of the longest, T of all together, H heads, D numbers per head, E the encoder's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.models.sending import sent

NAME = "mtrec_packed"
"""What transformers knows the attention function by."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of B texts lie, in a batch with padding on the right and without it."""

    places_T: Tensor
    """Of each real token among the B · L of the batch."""
    positions_1T: Tensor
    ends_B: Tensor
    """How many tokens there are up to each text's end, from 0 on: (B + 1,), int32."""
    longest: int
    num_texts: int

    @classmethod
    def of(cls, lengths: Sequence[int], first: int, device: torch.device) -> Layout:
        """From the number of tokens of each text, and the number that the encoder gives the first position."""
        longest = max(lengths)
        lengths_B = torch.tensor(lengths)
        real_BL = torch.arange(longest) < lengths_B.unsqueeze(1)
        positions_BL = torch.arange(first, first + longest).expand(len(lengths), -1)
        return cls(
            places_T=sent(real_BL.flatten().nonzero().flatten(), device),
            positions_1T=sent(positions_BL[real_BL].unsqueeze(0), device),
            ends_B=sent(F.pad(lengths_B.cumsum(0), (1, 0)).int(), device),
            longest=longest,
            num_texts=len(lengths),
        )

    def pack(self, batch_BL: Tensor) -> Tensor:
        """(B, L, …) to (1, T, …)."""
        return batch_BL.flatten(0, 1).index_select(0, self.places_T).unsqueeze(0)

    def unpack(self, packed_1T: Tensor) -> Tensor:
        """(1, T, E) to (B, L, E), with zeros at padding."""
        empty = packed_1T.new_zeros(self.num_texts * self.longest, packed_1T.shape[-1])
        return empty.index_copy(0, self.places_T, packed_1T[0]).unflatten(0, (self.num_texts, self.longest))


@dataclass(frozen=True)
class Packing:
    """A backbone that can be run without padding; see `packing_for`."""

    first: int
    """The number that it gives the first position of a text."""

    def layout(self, lengths: Sequence[int], device: torch.device) -> Layout:
        """Of texts with so many tokens."""
        return Layout.of(lengths, self.first, device)


def run(backbone: Any, ids_BL: Tensor, mask_BL: Tensor, layout: Layout | None = None) -> Tensor:
    """The last hidden state, (B, L, E); at padding it may be any number.

    Args:
        backbone: the transformer, with or without adapters around it.
        ids_BL: token ids, with padding on the right.
        mask_BL: their real tokens.
        layout: the same texts without padding, to be run so; None runs them with it.
    """
    if layout is None:
        hidden_BLE: Tensor = backbone(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        return hidden_BLE
    with _attending(backbone.config):
        packed = backbone(
            input_ids=layout.pack(ids_BL),
            attention_mask=None,
            position_ids=layout.positions_1T,
            cu_seq_lens_q=layout.ends_B,
            cu_seq_lens_k=layout.ends_B,
            max_length_q=layout.longest,
            max_length_k=layout.longest,
        )
    return layout.unpack(packed.last_hidden_state)


@torch.no_grad()
def packing_for(backbone: nn.Module, ids_BL: Tensor, mask_BL: Tensor, first: Sequence[int]) -> Packing | None:
    """Try whether a backbone gives the same states without padding.

    Args:
        backbone: in evaluation mode, on its device, under the caller's precision.
        ids_BL: texts to try it on; one as long as any to come, for attention may end at a distance.
        mask_BL: their real tokens, padding on the right.
        first: numbers that the first position may have.

    Returns:
        None where it does not: another architecture, or no kernel for the device and precision.
    """
    wanted_BLE = run(backbone, ids_BL, mask_BL)
    real = mask_BL.bool()
    lengths = mask_BL.sum(1).tolist()
    exact = wanted_BLE.dtype == torch.float32 and not torch.is_autocast_enabled(ids_BL.device.type)
    near = []
    for number in first:
        try:
            found_BLE = run(backbone, ids_BL, mask_BL, Layout.of(lengths, number, ids_BL.device))
        except Exception:  # an architecture that takes no such arguments may raise anything, and so may kernels
            continue
        near.append((float((found_BLE - wanted_BLE)[real].abs().max() / wanted_BLE[real].abs().max()), number))
    distance, number = min(near, default=(1.0, 0))
    return Packing(number) if distance < (1e-3 if exact else 3e-2) else None


@contextmanager
def _attending(config: Any) -> Iterator[None]:
    """Let the layers take `_attention` for a while."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention within each text, as transformers asks for it; (1, T, H, D)."""
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    query, key, value = (part[0].transpose(0, 1) for part in (query_1HTD, key_1HTD, value_1HTD))
    kernel = _on_gpu if query_1HTD.is_cuda else _one_by_one
    return kernel(query, key, value, cu_seq_lens_q, max_length_q, scaling, bool(causal)).unsqueeze(0), None


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, ends_B: Tensor, longest: int, scale: float | None, causal: bool
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if causal else (-1, -1)
    grouped = key.shape[1] != query.shape[1]
    found: Any = varlen_attn(
        query, key, value, ends_B, ends_B, longest, longest, scale=scale, window_size=window, enable_gqa=grouped
    )
    return found


def _one_by_one(
    query: Tensor, key: Tensor, value: Tensor, ends_B: Tensor, longest: int, scale: float | None, causal: bool
) -> Tensor:
    """The same on a processor, text by text: what the kernel is held against."""
    sizes = ends_B.diff().tolist()
    texts = zip(*(part.transpose(0, 1).split(sizes, dim=1) for part in (query, key, value)), strict=True)
    grouped = key.shape[1] != query.shape[1]
    found = [
        F.scaled_dot_product_attention(q, k, v, scale=scale, is_causal=causal, enable_gqa=grouped)
        for q, k, v in texts
    ]
    return torch.cat(found, dim=1).transpose(0, 1)
