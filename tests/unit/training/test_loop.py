"""The loop: rates, groups, early stopping, and what is resumed and what is not."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtrec.config import Scenario, Training
from mtrec.errors import RunError
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import Bundle
from mtrec.training.checkpoint import FILES
from mtrec.training.loop import Progress, Trainer, learning_rate_factor, parameter_groups, score

Start = tuple[Bundle, View, Catalogue]
Make = Callable[..., Trainer]


@pytest.fixture
def make(shop_start: Start, shop: Scenario) -> Make:
    """A trainer on a copy of the untrained model; keywords other than the trainer's change the settings."""

    def made(
        validate: Any = lambda *_: {"rating": 0.5},
        watch: Any = lambda _: None,
        checkpoints: Path | None = None,
        key: str = "key",
        **settings: Any,
    ) -> Trainer:
        bundle, view, catalogue = shop_start
        training = shop.training.model_copy(update=settings)
        own = Bundle(
            model=copy.deepcopy(bundle.model),
            encoding=bundle.encoding,
            scenario=shop.model_copy(update={"training": training}),
        )
        texts = replace(catalogue, text_NE=catalogue.text_NE.clone())
        return Trainer(own, view, texts, validate=validate, watch=watch, checkpoints=checkpoints, key=key)

    return made


def weights(model: Recommender) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


# ------------------------------------------------------------------------------------------------ learning rates


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    rates = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.05 + 0.95 / 2)  # half-way: cos(π/2) = 0
    assert rates[100] == pytest.approx(0.05)
    assert all(b < a for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(("step", "total", "warmup"), [(0, 1, 0.0), (0, 1, 0.9), (5, 3, 0.1), (0, 10, 0.0)])
def test_short_runs_have_usable_rates(step: int, total: int, warmup: float) -> None:
    assert 0 < learning_rate_factor(step, total, warmup) <= 1


def test_every_group_follows_the_factor(make: Make) -> None:
    seen: list[tuple[int, list[float]]] = []

    def look(progress: Progress) -> None:
        seen.append((progress.step, [group["lr"] for group in trainer.optimiser.param_groups]))

    trainer: Trainer = make(watch=look)
    base = [g["lr"] for g in trainer.optimiser.param_groups]
    trainer.fit()
    for step, rates in seen:
        factor = learning_rate_factor(max(step - 1, 0), trainer.total_steps, 0.1)
        assert rates == pytest.approx([rate * factor for rate in base])
    assert len(seen) >= trainer.total_steps


# ------------------------------------------------------------------------------------------------ parameter groups


def test_every_trainable_parameter_is_in_exactly_one_group(shop_start: Start) -> None:
    model = shop_start[0].model
    rates = {"lr": 1e-2, "lr_ids": 2e-2, "lr_encoder": 1e-3, "layer_decay": 0.5}
    settings = Training.model_validate(rates | {"weight_decay": 0.3, "weight_decay_ids": 0.7})
    groups = list(parameter_groups(model, settings))
    found = [id(p) for group in groups for p in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in model.parameters() if p.requires_grad}
    group_of = {id(p): group for group in groups for p in group["params"]}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        group = group_of[id(parameter)]
        if name.startswith("encoder.backbone."):
            assert group["lr"] == 1e-3, name  # the one layer that learns is the top one
        else:
            table, bias = id(parameter) in tables, name.endswith("bias.weight") and id(parameter) in tables
            assert group["lr"] == (2e-2 if table else 1e-2), name
            decays = (0.0 if bias else 0.7) if table else (0.3 if parameter.dim() > 1 else 0.0)
            assert group["weight_decay"] == decays, name


def test_frozen_layers_get_no_gradient_and_stay_as_they_were(make: Make) -> None:
    trainer = make(epochs=1)
    before = weights(trainer.model)
    trainer.fit()
    after = weights(trainer.model)
    frozen = {name for name, p in trainer.model.named_parameters() if not p.requires_grad}
    assert any(".layer.0." in name for name in frozen)
    assert any("embeddings" in name for name in frozen)
    for name, parameter in trainer.model.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
            assert after[name].equal(before[name]), name
    moved = [name for name in after if not after[name].equal(before[name])]
    assert any(name.startswith("encoder.") and ".layer.1." in name for name in moved)
    assert any(name.startswith("items.") for name in moved)
    assert any(name.startswith("users.") for name in moved)
    assert any(name.startswith("heads.") for name in moved)


def test_gradients_are_clipped(make: Make) -> None:
    norms: list[float] = []
    limit = 1e-3

    def look(progress: Progress) -> None:
        found = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack(found).norm()))

    trainer: Trainer = make(watch=look, epochs=1, clip_norm=limit)
    trainer.fit()
    assert norms
    assert max(norms) <= limit * 1.001
    assert max(norms) > limit * 0.9


# ------------------------------------------------------------------------------------------------ early stopping


def test_training_stops_early_and_ends_at_the_best_epoch(make: Make) -> None:
    skills = iter([0.5, 0.9, 0.1, 0.2, 0.9])
    kept: list[dict[str, Tensor]] = []

    def validate(model: Recommender, view: View, catalogue: Catalogue) -> dict[str, float]:
        assert not model.training
        kept.append(weights(model))
        return {"rating": next(skills)}

    trainer = make(validate=validate, epochs=9, patience=2)
    end = trainer.fit()
    assert (end.epoch, end.best_epoch, end.stopped) == (4, 2, True)
    assert same(weights(trainer.model), kept[1])
    assert not same(kept[1], kept[3])
    # The texts are those of the best weights too.
    encoded = trainer.model.encoder.encode_all(trainer.data.catalogue.tokens)
    assert trainer.data.catalogue.text_NE.equal(encoded)
    valid = [line for line in end.lines if line["kind"] == "valid"]
    assert [line["epoch"] for line in valid] == [1, 2, 3, 4]
    assert [line["metrics"] for line in valid] == [{"rating": s} for s in (0.5, 0.9, 0.1, 0.2)]
    assert [line["score"] for line in valid] == pytest.approx([5 / 9, 1.0, 1 / 9, 2 / 9])


def test_a_start_that_no_epoch_beats_is_kept(make: Make) -> None:
    skills = iter([0.6, 0.5, 0.4])
    trainer = make(validate=lambda *_: {"rating": next(skills)}, epochs=9, patience=2)
    trainer.judge_start()
    before = weights(trainer.model)
    end = trainer.fit()
    assert (end.epoch, end.best_epoch, end.stopped) == (2, 0, True)
    assert end.best_skills == {"rating": 0.6}
    assert same(weights(trainer.model), before)
    assert trainer.data.catalogue.text_NE.equal(trainer.model.encoder.encode_all(trainer.data.catalogue.tokens))
    skills = iter([0.6, 0.5, 0.7])
    better = make(validate=lambda *_: {"rating": next(skills)}, epochs=2, patience=2)
    better.judge_start()
    assert better.fit().best_epoch == 2


def test_without_patience_running_out_all_epochs_are_trained(make: Make) -> None:
    skills = iter([0.1, 0.2, 0.3])
    end = make(validate=lambda *_: {"rating": next(skills)}, epochs=3, patience=1).fit()
    assert (end.epoch, end.best_epoch, end.stopped) == (3, 3, False)
    assert end.step == end.total_steps


def test_the_score_is_how_near_the_tasks_are_to_their_best() -> None:
    assert score({"a": 0.2, "b": 0.9}, {"a": 0.4, "b": 0.9}) == pytest.approx(0.75)
    assert score({"a": -3.0, "b": 0.9}, {"a": 0.0, "b": 0.9}) == 0.5, "no skill is no skill, however bad"
    assert score({}, {}) == 0.0


def test_a_weak_first_epoch_of_one_task_does_not_drown_the_others(make: Make) -> None:
    skills = iter([{"a": 0.001, "b": 0.8}, {"a": 0.01, "b": 0.8}, {"a": 0.011, "b": 0.4}])
    assert make(validate=lambda *_: next(skills), epochs=3).fit().best_epoch == 2


def test_without_any_skill_the_first_epoch_stays(make: Make) -> None:
    end = make(validate=lambda *_: {"a": -0.5}, epochs=3).fit()
    assert end.best_epoch == 1


def test_training_that_begins_below_no_skill_goes_on_while_it_gets_better(make: Make) -> None:
    skills = iter([{"a": -0.5, "b": 0.0}, {"a": -0.2, "b": 0.0}, {"a": -0.05, "b": -0.1}, {"a": -0.3, "b": 0.0}])
    end = make(validate=lambda *_: next(skills), epochs=4, patience=1).fit()
    assert (end.epoch, end.best_epoch, end.stopped) == (4, 3, True)
    assert [line["score"] for line in end.lines if line["kind"] == "valid"] == [0, 0, 0, 0]


def test_one_task_s_skill_counts_more_than_how_far_the_others_are_from_any(make: Make) -> None:
    skills = iter([{"a": -0.5, "b": -0.5}, {"a": -9.0, "b": 0.1}, {"a": -1.0, "b": 0.09}, {"a": -8.0, "b": 0.1}])
    end = make(validate=lambda *_: next(skills), epochs=4).fit()
    assert end.best_epoch == 4, "between equal scores the mean skill decides"


@pytest.mark.parametrize("rate", ["lr", "lr_ids"])
def test_training_that_diverges_is_stopped_with_a_way_out(rate: str, make: Make) -> None:
    with pytest.raises(RunError, match=r"training: (loss|weights) of .* is (nan|inf).*; lower training.lr"):
        make(epochs=3, clip_norm=1e30, **{rate: 1e38}).fit()


def test_every_tasks_skill_counts(make: Make) -> None:
    skills = iter([{"a": 0.2, "b": 0.2}, {"a": 0.2, "b": 0.3}, {"a": 0.3, "b": 0.1}])
    end = make(validate=lambda *_: next(skills), epochs=3).fit()
    assert end.best_epoch == 2


def test_the_loss_history_has_the_promised_lines(make: Make) -> None:
    end = make(epochs=2).fit()
    train = [line for line in end.lines if line["kind"] == "train"]
    assert len(train) >= 2
    for line in train:
        assert set(line) >= {"kind", "step", "epoch", "loss", "losses", "lr", "seconds"}
        assert line["loss"] == pytest.approx(sum(line["losses"].values()), rel=1e-4)
        assert math.isfinite(line["loss"])
    assert json.loads(json.dumps(end.lines)) == end.lines
    steps = [line["step"] for line in end.lines]
    assert steps == sorted(steps)


# ------------------------------------------------------------------------------------------------ checkpoints


def test_a_finished_run_is_not_trained_again(make: Make, tmp_path: Path) -> None:
    first = make(checkpoints=tmp_path / "run")
    done = first.fit()
    steps: list[int] = []
    again = make(checkpoints=tmp_path / "run", watch=lambda p: steps.append(p.step))
    end = again.fit()
    assert steps == []
    assert same(weights(first.model), weights(again.model))
    assert end.lines == done.lines
    assert end.best_epoch == done.best_epoch


def test_a_checkpoint_of_other_settings_is_ignored(make: Make, tmp_path: Path) -> None:
    make(checkpoints=tmp_path / "run", key="one", epochs=1).fit()
    steps: list[int] = []
    other = make(checkpoints=tmp_path / "run", key="two", epochs=1, watch=lambda p: steps.append(p.step))
    other.fit()
    assert steps[0] == 1
    # It has taken the place of the first; a run of its own settings goes on from there.
    steps.clear()
    make(checkpoints=tmp_path / "run", key="two", epochs=1, watch=lambda p: steps.append(p.step)).fit()
    assert steps == []


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / FILES[0])), folder / FILES[0])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut tensors": lambda f: (f / FILES[0]).write_bytes((f / FILES[0]).read_bytes()[:500]),
    "cut state": lambda f: (f / FILES[1]).write_text((f / FILES[1]).read_text()[:50]),
    "state of another kind": lambda f: (f / FILES[1]).write_text("[]"),
    "state without progress": lambda f: (f / FILES[1]).write_text('{"key": "key"}'),
    "state without key": lambda f: (f / FILES[1]).write_text("{}"),
    "unknown progress": lambda f: (f / FILES[1]).write_text('{"key": "key", "progress": {"colour": 1}}'),
    "no weights": lambda f: rewrite(f, lambda t: {n: v for n, v in t.items() if not n.startswith("model/")}),
    "other weights": lambda f: rewrite(f, lambda t: {n: v.flatten()[:1].clone() for n, v in t.items()}),
    "no optimiser": lambda f: rewrite(f, lambda t: {n: v for n, v in t.items() if not n.startswith("optimiser/")}),
    "no texts": lambda f: rewrite(f, lambda t: {n: v for n, v in t.items() if not n.startswith("catalogue/")}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_with_the_way_out(damage: str, make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make(checkpoints=folder, epochs=1).fit()
    DAMAGES[damage](folder)
    with pytest.raises(RunError, match="the checkpoint is damaged") as caught:
        make(checkpoints=folder, epochs=1).fit()
    text = str(caught.value)
    assert str(folder) in text
    assert "delete the folder to start anew" in text
    assert "\n" not in text
