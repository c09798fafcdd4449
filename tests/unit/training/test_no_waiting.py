"""A training step asks its device for nothing.

The device `meta` computes shapes and holds no number, so whatever makes a host wait for a GPU fails on it: a number
read (`item`, `if tensor`, `tolist`), places of a mask (`x[mask]`, `nonzero`, `unique`), a copy to the host. Copies
to it are watched; they must not block.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mtrec.balancing.methods import METHODS
from mtrec.config import Scenario
from mtrec.models.inputs import View
from mtrec.models.masks import left_out, ready_made
from mtrec.models.recommender import Catalogue
from mtrec.models.sending import sent
from mtrec.models.store import Bundle
from mtrec.training.distil import Guide
from mtrec.training.loop import RECORD_EVERY, Trainer

META = torch.device("meta")
ASKING = {
    "geometric_mean": "asks whether a loss is negative",
    "gradvac": "draws the order of tasks on the device and reads it",
    "mgda": "asks after each of its iterations whether it is done",
    **dict.fromkeys(("imtl_g", "aligned_mtl"), "asks whether its weights can be worked out"),
    **dict.fromkeys(
        ("pcgrad", "cagrad", "upgrad", "dualproj", "nash_mtl", "fairgrad"),
        "copies the K × K products of gradients to the host and works out the weights there",
    ),
}
"""Methods of TorchJD that read the device in every step, and why: a few numbers, after each task's backward."""


def on_meta(thing: Any, done: dict[int, Any]) -> Any:
    """A copy whose tensors are on the device that holds no numbers."""
    if id(thing) in done:
        return done[id(thing)]
    if isinstance(thing, Tensor):
        found: Any = thing.to(META)
    elif isinstance(thing, torch.nn.Module):
        found = thing.to(META)
    elif is_dataclass(thing) or isinstance(thing, Guide):
        found = copy.copy(thing)
        names = [f.name for f in fields(thing)] if is_dataclass(thing) else list(vars(thing))
        for name in names:
            object.__setattr__(found, name, on_meta(getattr(thing, name), done))
        if isinstance(thing, View):
            object.__setattr__(found, "device", META)
    elif isinstance(thing, dict):
        found = {name: on_meta(value, done) for name, value in thing.items()}
    elif isinstance(thing, tuple):
        found = tuple(on_meta(value, done) for value in thing)
    else:
        return thing
    done[id(thing)] = found
    return found


class Copies(TorchDispatchMode):
    """Refuses copies to the device that the host waits for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        to_device = func is torch.ops.aten._to_copy.default and kwargs.get("device") == META
        if to_device and args[0].device != META and not kwargs.get("non_blocking"):
            raise RuntimeError("a copy to the device that the host waits for")
        if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default) and args[0].device == META:
            assert all(index is None or index.device == META for index in args[1]), "places must be sent first"
        return func(*args, **kwargs)


class Lists(TorchFunctionMode):
    """Refuses lists of numbers that torch would copy to the device, while the host waits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == META:
            raise RuntimeError("torch.tensor on the device")
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == META:
            place = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(part, (list, np.ndarray)) for part in place):
                raise RuntimeError("a list of places")
        return func(*args, **kwargs)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    with Lists(), Copies():
        yield


@pytest.fixture
def moved(
    shop_start: tuple[Bundle, View, Catalogue], shop: Scenario
) -> Callable[..., tuple[Trainer, list[np.ndarray]]]:
    """A trainer whose model and data are on the device without numbers, and its batches."""

    def make(teaches: bool = False, **settings: Any) -> tuple[Trainer, list[np.ndarray]]:
        bundle, view, catalogue = shop_start
        scenario = shop.model_copy(update={"training": shop.training.model_copy(update=settings)})
        own = Bundle(model=copy.deepcopy(bundle.model), encoding=bundle.encoding, scenario=scenario)
        own.model.encoder.texts_at_once = scenario.training.texts_at_once
        guide = None
        if teaches:
            teacher, texts = copy.deepcopy(bundle), catalogue.text_NE
            guide = Guide(teacher, view.dataset, texts, own, scenario.distillation, same_space=True)
        trainer = Trainer(own, view, catalogue, validate=lambda *_: {})
        done: dict[int, Any] = {}
        trainer.model = on_meta(own.model, done)
        trainer.data = on_meta(trainer.data, done)
        trainer.balancer.core.to(META)
        if guide:
            trainer.guide = on_meta(guide, done).add_to
        encoder: Any = trainer.model.encoder
        if encoder.frozen is not None:
            assert encoder.frozen.split is not None
            encoder.frozen.usable = lambda *_: True
        encoder._autocast = contextlib.nullcontext  # it knows no such device
        encoder.backbone.register_forward_pre_hook(
            ready_made if encoder.pooling == "mean" else left_out, with_kwargs=True
        )  # what `leave_masks_unread` finds on a GPU
        trainer.optimiser.step = lambda *_: None  # type: ignore[method-assign]
        trainer.progress.step = 1
        assert trainer.progress.step % RECORD_EVERY
        return trainer, list(trainer.batches.epoch(0))

    return make


STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "second passes and changed texts": {"r_drop": 0.5, "adversarial": 0.1, "text_augmentation": 0.2},
    "pieces of texts, several batches": {"texts_at_once": 3, "accumulate": 2},
    "a student": {"teaches": True},
    **{method: {"balancing": method} for method in METHODS if method not in ASKING},
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_asks_its_device_for_nothing(what: str, moved: Any) -> None:
    trainer, batches = moved(**STEPS[what])
    with watched():
        for _ in range(2):
            trainer.train_step(*batches[: trainer.settings.accumulate])
    assert trainer.progress.lines == []
    assert trainer.progress.step == 3


@pytest.mark.parametrize("method", ASKING)
def test_methods_that_ask_are_known(method: str, moved: Any) -> None:
    trainer, batches = moved(balancing=method)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor") as caught, watched():
        trainer.train_step(batches[0])
    assert any("torchjd" in str(entry.path) for entry in caught.traceback), ASKING[method]


def test_a_step_that_is_recorded_asks_once(moved: Any) -> None:
    trainer, batches = moved()
    trainer.progress.step = RECORD_EVERY
    with pytest.raises((RuntimeError, NotImplementedError), match="meta tensor") as caught, watched():
        trainer.train_step(batches[0])
    assert "_record" in [entry.name for entry in caught.traceback], "after all that the device is to do"


def test_waits_are_noticed() -> None:
    """What the other tests rest on."""
    numbers, mask = torch.zeros(3, device=META), torch.ones(3, dtype=torch.bool, device=META)
    asks: list[Callable[[], Any]] = [
        numbers.sum().item,
        numbers.tolist,
        numbers.cpu,
        mask.nonzero,
        mask.unique,
        lambda: numbers[mask],
        lambda: torch.masked_select(numbers, mask),
        lambda: torch.zeros(3).to(META),
        lambda: torch.tensor([1.0], device=META),
        lambda: numbers[[0, 1]],
    ]
    for ask in asks:
        with pytest.raises((RuntimeError, NotImplementedError)), watched():
            ask()
    with watched():
        assert sent([1.0], META).device == META
