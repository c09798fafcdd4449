"""Several batches per update: the mean of their gradients, one step of everything that counts steps."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtrec.config import Scenario
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle
from mtrec.training.loop import Progress, Trainer, learning_rate_factor

Make = Callable[..., Trainer]


@pytest.fixture
def make(shop_start: tuple[Bundle, View, Catalogue], shop: Scenario) -> Make:
    """A trainer on a copy of the untrained model."""

    def made(watch: Any = lambda _: None, checkpoints: Path | None = None, **settings: Any) -> Trainer:
        bundle, view, catalogue = shop_start
        scenario = shop.model_copy(
            update={"training": shop.training.model_copy(update={"batch_size": 4} | settings)}
        )
        own = Bundle(model=copy.deepcopy(bundle.model), encoding=bundle.encoding, scenario=scenario)
        texts = replace(catalogue, text_NE=catalogue.text_NE.clone())
        validate = lambda *_: {"rating": 0.5}  # noqa: E731
        return Trainer(own, view, texts, validate=validate, watch=watch, checkpoints=checkpoints, key="key")

    return made


def batches(trainer: Trainer) -> list[np.ndarray]:
    return list(trainer.batches.epoch(0))


def gradients(trainer: Trainer) -> list[Tensor]:
    """Of all that the optimiser learns, weights of the balancing included."""
    learned = [p for group in trainer.optimiser.param_groups for p in group["params"]]
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in learned]


@pytest.mark.parametrize(
    "settings",
    [
        {"compare_every": 0},
        {"compare_every": 1},
        {"balancing": "pcgrad"},
        {"balancing": "cagrad", "adversarial": 0.1, "r_drop": 0.5},
        {"balancing": "uncertainty"},
    ],
    ids=str,
)
def test_an_update_is_made_with_the_mean_gradient(settings: dict[str, Any], make: Make) -> None:
    trainer, other = (make(accumulate=3, clip_norm=1e9, **settings) for _ in range(2))
    together = batches(trainer)[:3]
    trainer.optimiser.step = lambda *_: None  # type: ignore[method-assign]
    trainer.train_step(*together)
    other.model.train()
    single = []
    for place, rows_BT in enumerate(together):
        other._add_gradients(rows_BT, place)
        single.append(gradients(other))
        other.optimiser.zero_grad(set_to_none=True)
    assert not all(a.allclose(b, rtol=0.01) for a, b in zip(single[0], single[1], strict=True))
    for found, *parts in zip(gradients(trainer), *single, strict=True):
        torch.testing.assert_close(found, torch.stack(parts).mean(0), rtol=1e-4, atol=1e-6)


def test_what_is_left_at_the_end_of_an_epoch_makes_a_step(make: Make) -> None:
    trainer = make(accumulate=4, epochs=2)
    taken: list[list[np.ndarray]] = []
    step = trainer.train_step
    trainer.train_step = lambda *some: (taken.append(list(some)), step(*some))  # type: ignore[method-assign]
    end = trainer.fit()
    sizes = [len(some) for some in taken]
    wanted = [len(list(trainer.batches.epoch(epoch))) for epoch in (0, 1)]
    assert any(number % 4 for number in wanted), "something is left"
    assert [size for number in wanted for size in [4] * (number // 4) + [number % 4] * (number % 4 > 0)] == sizes
    assert end.step == end.total_steps == len(sizes) == sum(math.ceil(number / 4) for number in wanted)


def test_rates_follow_the_steps_and_not_the_batches(make: Make) -> None:
    rates: dict[int, float] = {}

    def look(progress: Progress) -> None:
        rates[progress.step - 1] = trainer.optimiser.param_groups[0]["lr"]

    trainer: Trainer = make(accumulate=4, epochs=2, watch=look)
    trainer.fit()
    assert list(rates) == list(range(trainer.total_steps))
    wanted = [learning_rate_factor(step, trainer.total_steps, 0.1) * trainer.base_rates[0] for step in rates]
    assert list(rates.values()) == pytest.approx(wanted)
    assert wanted[-1] < wanted[1] / 2


def test_the_recorded_losses_are_means_over_the_batches(make: Make) -> None:
    trainer, other = make(accumulate=2), make(accumulate=2)
    together = batches(trainer)[:2]
    trainer.train_step(*together)
    other.model.train()
    single = [other._add_gradients(rows_BT, place) for place, rows_BT in enumerate(together)]
    line = next(line for line in trainer.progress.lines if line["kind"] == "train")
    assert list(line["losses"].values()) == pytest.approx(torch.stack(single).mean(0).tolist(), rel=1e-5)


def test_famo_judges_what_a_step_did_and_not_what_a_batch_did(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(accumulate=3, balancing="famo")
    core: Any = trainer.balancer.core
    update, steps_before = core.update, []
    monkeypatch.setattr(core, "update", lambda losses: (steps_before.append(trainer.progress.step), update(losses)))
    all_batches = batches(trainer)
    for start in (0, 3, 6):
        trainer.train_step(*all_batches[start : start + 3])
    assert steps_before == [1, 2], "once per step, before the first of its batches"


def test_dropout_and_texts_differ_from_batch_to_batch(make: Make) -> None:
    trainer = make(accumulate=2)
    trainer.model.train()
    rows_BT = batches(trainer)[0]
    first, second, again = (trainer._add_gradients(rows_BT, place) for place in (0, 1, 1))
    assert not first.equal(second)
    torch.testing.assert_close(second, again, rtol=0.05, atol=0.05)


def test_a_run_goes_on_where_it_was_cut_off(make: Make, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.epoch == 1 and progress.step == trainer.total_steps - 1:
            raise KeyboardInterrupt

    whole = make(accumulate=3, epochs=2)
    wanted = whole.fit()
    trainer = make(accumulate=3, epochs=2, checkpoints=tmp_path / "run", watch=stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    resumed = make(accumulate=3, epochs=2, checkpoints=tmp_path / "run")
    found = resumed.fit()
    assert found.step == wanted.step
    losses = [[line["losses"] for line in end.lines if line["kind"] == "train"] for end in (found, wanted)]
    assert losses[0] == losses[1]
    for name, value in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(value), name
