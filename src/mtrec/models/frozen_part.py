"""Runs an encoder's backbone with its frozen lower layers taken from a cache.

Shapes: B texts, L tokens, E the encoder's width.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtrec.models.packing import Layout
from mtrec.models.sending import sent
from mtrec.models.split import SplitBackbone, split_backbone
from mtrec.models.state_cache import StateCache, digest
from mtrec.models.text_batches import Tokens

log = logging.getLogger(__name__)


class FrozenPart:
    """The layers of a backbone below the first that learns, run once per text.

    Args:
        backbone: the transformer.
        layers: its stack of layers.
        cache: what the frozen layers gave for each text.
    """

    def __init__(self, backbone: nn.Module, layers: Sequence[nn.Module], cache: StateCache) -> None:
        self.backbone, self.layers, self.cache = backbone, layers, cache
        self.split: SplitBackbone | None = None
        self._stamp: Any = None
        self._dtype = torch.float32
        self._key = ""

    def usable(self, precision: torch.dtype, trial: Callable[[], tuple[Tensor, Tensor]]) -> bool:
        """Whether there is such a part, now that weights or what learns may have changed.

        Args:
            precision: of the matrix products, set by the caller's autocast.
            trial: gives token ids and mask of a few texts to try the cut on.
        """
        stamp = precision, [p.requires_grad or (p.data_ptr(), p._version) for p in self.backbone.parameters()]
        if stamp != self._stamp:
            self._stamp, self._dtype = stamp, precision
            try:
                ids_BL, mask_BL = trial()
                self.split = split_backbone(self.backbone, self.layers, ids_BL, mask_BL)
            except LookupError as error:
                self.split = None
                log.warning("the encoder's frozen layers run at every step (%s)", error)
            if self.split is not None:
                self._key = f"{self.split.fingerprint()[:32]}-{str(precision)[6:]}-{ids_BL.device.type}"
        if self.split is None:
            return False
        self.cache.open(self._key)
        return True

    def load(self, tokens: Tokens) -> None:
        """Read from disk what there is of texts that will be asked for."""
        self.cache.load([digest(row) for row in tokens])

    def hidden(
        self, tokens: Tokens, ids_BL: Tensor, mask_BL: Tensor, keep: bool, layout: Layout | None = None
    ) -> Tensor:
        """The backbone's last hidden state, (B, L, E), with gradient for what learns.

        Args:
            tokens: distinct texts.
            ids_BL: the same, padded.
            mask_BL: real tokens.
            keep: put what had to be computed into the cache.
            layout: the same texts without padding, for the layers that learn.
        """
        assert self.split is not None
        names = [digest(row) for row in tokens]
        found = [self.cache.get(name) for name in names]
        device = ids_BL.device
        parts: list[tuple[Tensor, Tensor]] = []
        known = [i for i, states in enumerate(found) if states is not None]
        if known:
            known_KLE = nn.utils.rnn.pad_sequence([s for s in found if s is not None], batch_first=True)
            parts.append((sent(known, device), sent(known_KLE, device)))
        missing = [i for i, states in enumerate(found) if states is None]
        if missing:
            rows_M = sent(missing, device)
            mask_ML = mask_BL[rows_M]
            states_MLE = self.split.below(ids_BL[rows_M], mask_ML).to(self._dtype) * mask_ML.unsqueeze(-1)
            parts.append((rows_M, states_MLE))
            if keep:
                lengths = [len(tokens[i]) for i in missing]
                self.cache.put([names[i] for i in missing], lengths, states_MLE[mask_ML.bool()])
        states_BLE = parts[0][1]
        if len(parts) > 1 or states_BLE.shape[1] < ids_BL.shape[1]:
            whole_BLE = states_BLE.new_zeros(*ids_BL.shape, states_BLE.shape[2])
            for rows, states in parts:
                whole_BLE[rows, : states.shape[1]] = states
            states_BLE = whole_BLE
        return self.split.above(states_BLE, ids_BL, mask_BL, layout)
