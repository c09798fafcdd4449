"""Where the examples of a batch are, worked out on the host, which knows its rows.

`states[mask]` makes a host wait for its GPU, for only there is it known how many entries the mask has. Numbers of
places are made on the host and sent along.

Shapes: B windows, T events, X examples, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.models.sending import sent


@dataclass(frozen=True, kw_only=True)
class Places:
    """Events of a batch, in the order of windows and, in a window, of time."""

    window_X: Tensor
    time_X: Tensor
    """How many events of the window lie before."""

    @classmethod
    def where(cls, mask_BT: np.ndarray, device: torch.device) -> Places:
        """The places at which a mask is true."""
        window_X, time_X = np.nonzero(mask_BT)
        return cls(window_X=sent(window_X, device), time_X=sent(time_X, device))

    def __len__(self) -> int:
        return len(self.window_X)

    def chosen(self, index: Tensor) -> Places:
        """Some of them."""
        return Places(window_X=self.window_X[index], time_X=self.time_X[index])

    def before(self, states: Tensor) -> Tensor:
        """The states before these events, (X, D), of those before each event and after the last, (B, T + 1, D)."""
        return F.embedding(self.window_X * states.shape[1] + self.time_X, states.flatten(0, 1))

    def of(self, values_BT: Tensor) -> Tensor:
        """A value of each event, (X,)."""
        return values_BT[self.window_X, self.time_X]


def first_times(taken_BT: np.ndarray, item_BT: np.ndarray) -> np.ndarray:
    """True where a window takes an item for the first time, (B, T); what was taken is never recommended again.

    Args:
        taken_BT: events that count as taking an item.
        item_BT: items, any number where nothing is taken.
    """
    window_X, time_X = np.nonzero(taken_BT)
    pair_X = window_X * (item_BT.max(initial=0) + 1) + item_BT[window_X, time_X]
    _, first = np.unique(pair_X, return_index=True)
    found = np.zeros_like(taken_BT)
    found[window_X[first], time_X[first]] = True
    return found
