"""The mask of padding, in a form that no host waits for.

Given a mask of (B, L), transformers asks whether there is any padding, to take a faster kernel where there is none.
On a GPU the host then waits for the answer in every pass. Two other forms leave nothing to ask: (B, 1, 1, L), which
is taken as it is, and for decoders none, for what stands on the right of a token never reaches it. Which of them an
encoder takes is tried, not guessed.

Shapes: B texts, L tokens, E the encoder's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Hook = Callable[[nn.Module, Any, dict[str, Any]], tuple[Any, dict[str, Any]]]


def ready_made(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand a backbone a mask that it takes as it is."""
    mask = kwargs.get("attention_mask")
    return args, kwargs if mask is None else kwargs | {"attention_mask": mask.bool()[:, None, None]}


def left_out(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand a backbone no mask."""
    return args, kwargs | {"attention_mask": None}


@torch.no_grad()
def ask_nothing(backbone: nn.Module, ids_BL: Tensor, mask_BL: Tensor) -> Hook | None:
    """Let a backbone take masks in a form that is not read, if one gives the same states.

    Args:
        backbone: in evaluation mode, on its device, under the caller's precision.
        ids_BL: texts to try it on; one as long as any to come, for attention may end at a distance.
        mask_BL: their real tokens, padding on the right; some of them have padding.

    Returns:
        What now changes the mask; None where neither form does, and all stays as it was.
    """
    wanted_BLE = backbone(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    real = mask_BL.bool()
    for form in (ready_made, left_out):
        handle = backbone.register_forward_pre_hook(form, with_kwargs=True)
        try:
            found_BLE = backbone(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
            if float((found_BLE - wanted_BLE)[real].abs().max() / wanted_BLE[real].abs().max()) < 1e-3:
                return form
        except Exception:  # an architecture that takes no such mask may raise anything
            pass
        handle.remove()
    return None
