"""From the host to the device without a wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def sent(values: Tensor | np.ndarray | Sequence[Any], device: torch.device) -> Tensor:
    """Values of the host as a tensor on a device.

    A GPU copies them on its own, in the order of its work, out of pinned memory; the host goes on at once. On the
    CPU the tensor may share memory with the values.
    """
    tensor = torch.as_tensor(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
