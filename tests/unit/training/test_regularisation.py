"""Second passes: distances by hand, equal draws, and gradients equal to those of the plain formula."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.config import parse_scenario
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender, Texts
from mtrec.models.store import Bundle
from mtrec.training.loop import Trainer
from mtrec.training.regularisation import Passes, Taped, distance
from mtrec.training.step import losses_of, represent, task_losses

Start = tuple[Bundle, View, Catalogue]


def task(**declared: Any) -> Any:
    return parse_scenario({"name": "test", "tasks": {"it": declared}}).tasks["it"]


REGRESSION = task(type="regression", on="pair", label="interactions.rating")
BINARY = task(type="binary", on="pair", label="interactions.rating", threshold=4)
CLASSES = task(type="classification", on="item", label="items.category")
MULTI = task(type="multilabel", on="item", label="items.tags")
PROFILE = task(type="profile", on="user", label="items.tags")
NEXT = task(type="next_item")


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_distances_by_hand() -> None:
    one, two = torch.ones(1), torch.ones(2)
    assert float(distance(REGRESSION, torch.tensor([1.0, 5.0]), torch.tensor([3.0, 5.0]), two)) == 2
    # KL of (0.8, 0.2) and (0.5, 0.5), both ways, by the definition.
    there = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    back = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    wanted = pytest.approx((there + back) / 2, rel=1e-5)
    p, q = torch.tensor([logit(0.8)]), torch.zeros(1)
    assert float(distance(BINARY, p, q, one)) == wanted
    assert float(distance(CLASSES, torch.tensor([[0.8, 0.2]]).log(), torch.zeros(1, 2), one)) == wanted
    labels = torch.tensor([[logit(0.8), 0.3]])  # the second label agrees
    halved = pytest.approx((there + back) / 4, rel=1e-5)
    assert float(distance(MULTI, labels, torch.tensor([[0.0, 0.3]]), one)) == halved
    assert float(distance(PROFILE, torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), one)) == pytest.approx(
        1 - math.sqrt(0.5)
    )


def test_items_that_are_not_allowed_and_examples_outside_the_mask_do_not_count() -> None:
    p = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.9, 0.0]]).log().requires_grad_()
    q = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]).log()
    found = distance(NEXT, p, q, torch.tensor([True, False]))
    wanted = distance(CLASSES, p[:1, :2].detach(), q[:1, :2], torch.ones(1))
    assert float(found.detach()) == pytest.approx(float(wanted))
    found.backward()
    assert p.grad is not None
    assert p.grad.isfinite().all()
    assert (p.grad[1] == 0).all()
    assert float(distance(NEXT, p[:0], q[:0], torch.ones(0)).detach()) == 0


def trainer_with(start: Start, **settings: Any) -> Trainer:
    bundle, view, catalogue = start
    training = bundle.scenario.training.model_copy(update={"compare_every": 0, **settings})
    scenario = bundle.scenario.model_copy(update={"training": training})
    model = copy.deepcopy(bundle.model)
    torch.manual_seed(11)
    with torch.no_grad():  # fresh heads say the same whatever they read
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    own = replace(bundle, model=model, scenario=scenario)
    copied = replace(catalogue, text_NE=catalogue.text_NE.clone())
    return Trainer(own, view, copied, validate=lambda *_: {})


def passes(trainer: Trainer, batch: np.ndarray, seed: int = 7) -> Passes:
    torch.manual_seed(seed)
    return Passes(trainer.model, trainer.data, batch, trainer.settings)


@pytest.fixture(scope="module")
def batch(shop_start: Start) -> np.ndarray:
    return next(trainer_with(shop_start).batches.epoch(0))


def numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(loss.detach()) for name, loss in losses.items()}


def test_both_passes_make_the_same_draws(shop_start: Start, batch: np.ndarray) -> None:
    """Without dropout the passes agree, so R-Drop adds nothing: items, texts, negatives and ids are the same."""
    plain = trainer_with(shop_start)
    twice = trainer_with(shop_start, r_drop=100.0)
    for trainer in (plain, twice):
        trainer.model.eval()
    wanted = numbers(passes(plain, batch).losses())
    torch.manual_seed(7)
    assert numbers(task_losses(plain.model, plain.data, batch)) == wanted
    assert numbers(passes(twice, batch).losses()) == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_with_dropout_the_passes_differ_and_their_distance_is_learned(shop_start: Start, batch: np.ndarray) -> None:
    found = {}
    for weight in (1e-9, 2.0):
        trainer = trainer_with(shop_start, r_drop=weight, text_augmentation=0.3)
        trainer.model.train()
        run = passes(trainer, batch)
        found[weight] = numbers(run.losses())
    first, second = run.taped
    assert set(first.answers) == set(second.answers) == set(trainer.model.tasks)
    for name, declared in trainer.model.tasks.items():
        apart = distance(declared, first.answers[name][0], second.answers[name][0], first.answers[name][1])
        assert float(apart.detach()) > 0, name
        assert found[2.0][name] == pytest.approx(found[1e-9][name] + float(apart.detach()), rel=1e-4), name


def gradients(model: Recommender) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("options", [{"r_drop": 1.0}, {"adversarial": 0.2}, {"r_drop": 1.0, "adversarial": 0.2}])
def test_a_cut_at_the_representations_changes_no_gradient(
    shop_start: Start, batch: np.ndarray, options: dict[str, float]
) -> None:
    found = []
    for every in (0, 1):
        trainer = trainer_with(shop_start, compare_every=every, clip_norm=1e9, **options)
        trainer.optimiser.step = lambda *_: None  # type: ignore[method-assign]
        trainer.train_step(batch)
        found.append(gradients(trainer.model))
    assert_same(found[1], found[0])


def test_the_adversarial_gradient_is_that_of_the_formula(shop_start: Start, batch: np.ndarray) -> None:
    """∇ L(t) + ∇ L(t + ε g / |g|) with g = ∇ₜ L, both through the encoder."""
    epsilon = 0.3
    trainer = trainer_with(shop_start, adversarial=epsilon)
    model, data, alpha = trainer.model.eval(), trainer.data, trainer.model.loss_weights

    def joint(losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([alpha[name] * loss for name, loss in losses.items()]).sum()

    class Moved(Taped):
        """Reads the encoder's vectors, moved."""

        move: Tensor | float = 0.0

        def text(self, encode: Any) -> Texts:
            self.read = encode().text_NE + self.move
            return Texts(self.read)

    torch.manual_seed(7)
    clean = Moved()
    cleanly = replace(data, through=clean)
    first = joint(losses_of(model, cleanly, represent(model, cleanly, batch)))
    (g_NE,) = torch.autograd.grad(first, clean.read, retain_graph=True)
    first.backward()
    again = Moved(clean)
    width = model.encoder.width  # scores of labels, which follow, are not moved
    again.move = torch.zeros_like(g_NE)
    again.move[:, :width] = epsilon * F.normalize(g_NE[:, :width], dim=-1)
    lengths = again.move.norm(dim=1)[g_NE.norm(dim=1) > 0]
    torch.testing.assert_close(lengths, torch.full_like(lengths, epsilon))
    data_again = replace(data, through=again)
    second = joint(losses_of(model, data_again, represent(model, data_again, batch)))
    second.backward()
    wanted = gradients(model)
    assert float(second.detach()) > float(first.detach())  # it is worse there

    model.zero_grad()
    runs = []
    model.encoder.register_forward_hook(lambda *_: runs.append(1))
    run = passes(trainer, batch)
    trainer._backward(run)
    run.finish()
    assert_same(gradients(model), wanted)
    assert any(name.startswith("encoder.") for name in wanted)
    assert len(runs) == 1  # the formula's two passes through the encoder are one here


def test_without_options_a_step_is_a_single_pass(shop_start: Start, batch: np.ndarray) -> None:
    run = passes(trainer_with(shop_start), batch)
    assert run.taped == []
    assert len(run.parts) == 1
    run.losses()
    run.finish()


@pytest.mark.parametrize("balancing", ["static", "pcgrad", "uncertainty"])
def test_training_goes_on_with_everything_switched_on(shop_start: Start, balancing: str) -> None:
    trainer = trainer_with(
        shop_start, r_drop=0.5, adversarial=0.1, text_augmentation=0.2, balancing=balancing, compare_every=3
    )
    batches = list(trainer.batches.epoch(0)) * 6
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.total_steps = len(batches)
    for rows in batches:
        trainer.train_step(rows)
    lines = [line["loss"] for line in trainer.progress.lines if line["kind"] == "train"]
    assert all(math.isfinite(loss) for loss in lines)
    assert lines[-1] < lines[0]
    moved = [name for name, p in trainer.model.named_parameters() if p.requires_grad and not p.equal(before[name])]
    assert any(name.startswith("encoder.") for name in moved)
