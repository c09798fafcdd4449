"""A transformer cut in two, so that the part below the layers that learn runs once per text.

The cut is made from outside, without knowledge of the architecture: while the lower part runs, the first layer that
learns ends the pass and hands out the states that came in; while the upper part runs, the layers below hand on the
states they are given. Masks, positions, indices of layers and final norms stay the library's own. What an
architecture carries past its layers in another way shows in the trial that `split_backbone` makes.

Shapes: B texts, L tokens, E the encoder's width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtrec.models.packing import Layout, run

FORMAT = 1
"""Raised when equal frozen layers would give states that mean something else."""
_IRRELEVANT = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
"""What a configuration says that no state depends on."""


_CALLED = "forward", "_compiled_call_impl"
"""What a call of a layer runs; the second in its place where the layer is compiled (`nn.Module.compile`)."""


class _Reached(Exception):
    """Ends the pass through a backbone before the upper part."""

    def __init__(self, states_BLE: Tensor) -> None:
        super().__init__()
        self.states_BLE = states_BLE


class SplitBackbone:
    """The lower layers of a backbone, which are frozen, and the rest.

    Not for use by several threads at a time.

    Args:
        backbone: called with `input_ids` and `attention_mask`, returns `last_hidden_state`.
        layers: its stack of layers.
        depth: how many of them belong to the lower part, at least 1.
    """

    def __init__(self, backbone: nn.Module, layers: Sequence[nn.Module], depth: int) -> None:
        self.backbone, self.lower, self.upper = backbone, list(layers)[:depth], list(layers)[depth:]
        self._tuples = False
        """Whether layers return tuples, as the last run of `below` found."""

    def below(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """States that enter the first layer of the upper part, (B, L, E), without gradient.

        Raises:
            LookupError: the backbone ended without calling that layer.
        """

        def end(*args: Any, **kwargs: Any) -> None:
            raise _Reached(_states(args, kwargs))

        def look(module: nn.Module, args: Any, output: Any) -> None:
            self._tuples = isinstance(output, tuple)

        hook = self.lower[-1].register_forward_hook(look)
        try:
            with torch.no_grad(), _instead(self.upper[:1], end):
                self.backbone(input_ids=ids_BL, attention_mask=mask_BL)
        except _Reached as reached:
            return reached.states_BLE
        finally:
            hook.remove()
        raise LookupError("it does not run its layers one after the other")

    def above(self, states_BLE: Tensor, ids_BL: Tensor, mask_BL: Tensor, layout: Layout | None = None) -> Tensor:
        """The backbone's last hidden state, (B, L, E), from what `below` gave; at padding it may be any number.

        With a `layout` of the texts the layers run without padding.
        """
        given = states_BLE if layout is None else layout.pack(states_BLE)

        def hand_on(*args: Any, **kwargs: Any) -> Any:
            states = given.to(_states(args, kwargs).dtype)
            return (states,) if self._tuples else states

        with _instead(self.lower, hand_on):
            return run(self.backbone, ids_BL, mask_BL, layout)

    def fingerprint(self) -> str:
        """sha256 over all that the states depend on, apart from text, precision and device."""
        config: Any = self.backbone.config
        said = {name: value for name, value in config.to_dict().items() if name not in _IRRELEVANT}
        said |= {"format": FORMAT, "depth": len(self.lower), "attention": str(config._attn_implementation)}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
        above = {id(weight) for layer in self.upper for weight in layer.state_dict(keep_vars=True).values()}
        for name, weight in self.backbone.state_dict(keep_vars=True).items():
            if id(weight) not in above:
                digest.update(f"\0{name} {weight.dtype} {tuple(weight.shape)}\0".encode())
                digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def split_backbone(
    backbone: nn.Module, layers: Sequence[nn.Module], ids_BL: Tensor, mask_BL: Tensor
) -> SplitBackbone | None:
    """Cut a backbone below its first layer that learns, and try the parts.

    Args:
        backbone: on its device; this runs under the precision of the caller.
        layers: its stack of layers.
        ids_BL: a few texts of several lengths.
        mask_BL: their real tokens.

    Returns:
        None when no layer is frozen below one that learns.

    Raises:
        LookupError: the parts do not give together what the whole gives.
    """
    learns = [any(p.requires_grad for p in layer.parameters()) for layer in layers]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    beside = any(p.requires_grad and id(p) not in inside for p in backbone.parameters())
    if beside or not any(learns) or learns[0]:
        return None
    split = SplitBackbone(backbone, layers, learns.index(True))
    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        distance = _distance(split, ids_BL, mask_BL)
    except LookupError:
        raise
    except Exception as error:  # whatever an unknown architecture may raise
        raise LookupError(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not distance < 1e-3:
        raise LookupError(f"its parts differ from the whole by {distance:.1e}")
    return split


@torch.no_grad()
def _distance(split: SplitBackbone, ids_BL: Tensor, mask_BL: Tensor) -> float:
    """How far the parts are from the whole at real tokens, as a share of the largest number there."""
    whole: Any = split.backbone(input_ids=ids_BL, attention_mask=mask_BL)
    whole_BLE = whole.last_hidden_state.float()
    states_BLE = split.below(ids_BL, mask_BL)
    if states_BLE.shape[:2] != ids_BL.shape:
        raise LookupError(f"its layers take {tuple(states_BLE.shape)} for texts of {tuple(ids_BL.shape)}")
    parts_BLE = split.above(states_BLE * mask_BL.unsqueeze(-1), ids_BL, mask_BL).float()
    real = mask_BL.bool()
    return float((whole_BLE - parts_BLE)[real].abs().max() / whole_BLE[real].abs().max())


def _states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The states among the arguments of a layer."""
    found = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(found, Tensor):
        raise LookupError("its layers do not take states as their first argument")
    return found


@contextmanager
def _instead(layers: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let another function run in place of the layers' own for a while."""
    before = [{name: layer.__dict__.get(name) for name in _CALLED} for layer in layers]
    for layer in layers:
        layer.__dict__.update(dict(zip(_CALLED, (forward, None), strict=True)))
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            for name, value in own.items():
                if value is None:
                    del layer.__dict__[name]
                else:
                    layer.__dict__[name] = value
