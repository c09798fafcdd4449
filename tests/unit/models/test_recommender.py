"""The whole model: what reaches which task, one encoding per text, and the gradient of the joint loss."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrec.balancing.methods import Balancer
from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import Bundle
from mtrec.training.loop import Trainer
from mtrec.training.step import StepData, task_losses
from tests.unit.tiny_shop import TASKS

Start = tuple[Bundle, View, Catalogue]


def randomised(model: Recommender) -> Recommender:
    """A copy whose weights outside the encoder are all random: a fresh model starts with zeros in places."""
    torch.manual_seed(5)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return other


@pytest.fixture(scope="module")
def world(shop_start: Start) -> tuple[Recommender, StepData, np.ndarray]:
    """A random model, the data of a step, and the first batch of an epoch."""
    bundle, view, catalogue = shop_start
    model = randomised(bundle.model)
    own = Catalogue(features=catalogue.features, tokens=catalogue.tokens, text_NE=catalogue.text_NE.clone())
    trainer = Trainer(replace(bundle, model=model), view, own, validate=lambda *_: {})
    return model, trainer.data, next(trainer.batches.epoch(0))


def losses(model: Recommender, data: StepData, rows: np.ndarray) -> dict[str, Tensor]:
    """The losses of one step, from the same texts, random draws and mode every time."""
    text = data.catalogue.text_NE.clone()
    torch.manual_seed(11)
    found = task_losses(model.train(), data, rows)
    data.catalogue.text_NE = text
    return found


def flat_gradient(loss: Tensor, model: Recommender) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pieces = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([piece.flatten() for piece in pieces])


@pytest.fixture(scope="module")
def single(world: tuple[Recommender, StepData, np.ndarray]) -> dict[str, Tensor]:
    """The gradient of every task alone, each from a forward pass of its own."""
    return {name: flat_gradient(losses(*world)[name], world[0]) for name in TASKS}


def test_every_task_has_a_loss_and_moves_the_model(single: dict[str, Tensor]) -> None:
    assert set(single) == set(TASKS)
    for name, gradient in single.items():
        assert gradient.isfinite().all(), name
        assert gradient.norm() > 1e-6, name


@settings(deadline=None, max_examples=12)
@given(weights=st.lists(st.floats(0, 10), min_size=len(TASKS), max_size=len(TASKS)))
def test_the_joint_gradient_is_the_weighted_sum(
    weights: list[float],
    world: tuple[Recommender, StepData, np.ndarray],
    single: dict[str, Tensor],
) -> None:
    alpha = dict(zip(TASKS, weights, strict=True))
    balancer = Balancer("static", alpha)
    joint = flat_gradient(balancer.joint(torch.stack(balancer.weighted(losses(*world)))), world[0])
    wanted = torch.stack([alpha[name] * single[name] for name in TASKS]).sum(0)
    scale = max(alpha[name] * float(single[name].norm()) for name in TASKS)
    assert float((joint - wanted).norm()) <= 1e-4 * scale + 1e-7


def test_weights_come_from_the_scenario(shop_start: Start, shop: Scenario) -> None:
    assert shop_start[0].model.loss_weights == {name: task.weight for name, task in shop.tasks.items()}


def test_encoding_a_text_once_has_the_gradient_of_encoding_every_occurrence(shop_start: Start) -> None:
    bundle, _, catalogue = shop_start
    model = copy.deepcopy(bundle.model).eval()
    torch.manual_seed(0)
    occurrences = torch.randint(len(catalogue.tokens), (40,))
    weight = torch.randn(40, model.encoder.total_width)
    assert len(occurrences.unique()) < 40
    parameters = [p for p in model.encoder.parameters() if p.requires_grad]

    own = replace(catalogue, text_NE=catalogue.text_NE.clone())
    once = model.fresh_text(own, occurrences.unique().numpy()).text_NE[occurrences]
    every = model.encoder([catalogue.tokens[i] for i in occurrences.tolist()])
    torch.testing.assert_close(once, every, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad((vectors * weight).sum(), parameters) for vectors in (once, every)]
    assert parameters
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_fresh_texts_take_the_place_of_stale_ones(shop_start: Start) -> None:
    bundle, _, catalogue = shop_start
    stale = replace(catalogue, text_NE=torch.zeros_like(catalogue.text_NE))
    rows = np.array([3, 0])
    found = bundle.model.fresh_text(stale, rows).text_NE
    assert found.requires_grad
    torch.testing.assert_close(found[rows].detach(), catalogue.text_NE[rows], rtol=1e-5, atol=1e-6)
    assert stale.text_NE[rows].equal(found[rows].detach())
    others = torch.ones(len(found), dtype=torch.bool)
    others[rows] = False
    assert found[others].abs().sum() == 0
    assert bundle.model.fresh_text(stale, rows[:0]).stale_NE is stale.text_NE


def test_gradients_for_fresh_texts_alone_are_those_for_all_texts(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    model = copy.deepcopy(bundle.model).eval()
    assert model.factors is not None
    own = replace(catalogue, text_NE=catalogue.text_NE.clone())
    texts = model.fresh_text(own, np.array([3, 0]))
    torch.manual_seed(0)
    weights: dict[str, Tensor] = {}
    found = []
    for read in (texts, texts.text_NE):
        items = model.item_vectors(read, view.items)
        parts = {name: getattr(items, name) for name in ("text_ND", "fused_ND", "factors_NF", "biases_NK")}
        joint = sum((part * weights.setdefault(n, torch.randn(part.shape))).sum() for n, part in parts.items())
        learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(joint, learned.values(), retain_graph=True, allow_unused=True)
        found.append(dict(zip(learned, gradients, strict=True)))
    assert any(n.startswith("encoder") and g is not None for n, g in found[0].items())
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_of_pairs_that_nobody_asks_about_no_factors_are_read(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    texts = bundle.model.fresh_text(replace(catalogue, text_NE=catalogue.text_NE.clone()), np.array([3, 0]))
    every = bundle.model.item_vectors(texts, view.items)
    asked = bundle.model.item_vectors(texts, view.items, paired_M=torch.tensor([0, 3, 5]))
    assert asked.fused_ND.equal(every.fused_ND)
    for some, all_of_them in ((asked.factors_NF, every.factors_NF), (asked.biases_NK, every.biases_NK)):
        assert some is not None
        assert all_of_them is not None
        torch.testing.assert_close(some[[0, 3, 5]], all_of_them[[0, 3, 5]])
    assert asked.factors_NF is not None
    assert every.factors_NF is not None
    assert not asked.factors_NF[1].equal(every.factors_NF[1])


def changed(data: Dataset, **columns: Any) -> Dataset:
    """The same dataset with other values in some columns of the items."""
    return replace(data, items=data.items.with_columns(**columns))


def test_item_tasks_do_not_see_attributes(
    shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    """Labels of item tasks are attributes too: another category, price or brand leaves the text alone."""
    bundle, view, catalogue = shop_start
    model, (data, encoding) = randomised(bundle.model).eval(), shop_data
    other = changed(
        data,
        category=data.items["category"].reverse(),
        price=data.items["price"].reverse(),
        brand=data.items["brand"].reverse(),
        tags=data.items["tags"].reverse(),
    )
    other_view = View.of(other, encoding, shop, view.device)
    assert not other_view.items.categorical.equal(view.items.categorical)
    found = [model.item_vectors(catalogue.text_NE, features) for features in (view.items, other_view.items)]
    assert found[0].text_ND.equal(found[1].text_ND)
    assert not torch.allclose(found[0].fused_ND, found[1].fused_ND)
    outputs = [model.item_outputs(items, torch.arange(len(items.ids_N))) for items in found]
    assert set(outputs[0]) == {"price", "category", "tags"}
    for name, output in outputs[0].items():
        assert output.equal(outputs[1][name])


def test_ids_of_items_do_not_reach_item_tasks(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    model = randomised(bundle.model).eval()
    unknown = replace(view.items, ids=torch.zeros_like(view.items.ids))
    known, nameless = (model.item_vectors(catalogue.text_NE, rows) for rows in (view.items, unknown))
    assert known.text_ND.equal(nameless.text_ND)
    assert known.label_scores_NV.equal(nameless.label_scores_NV)
    assert not torch.allclose(known.fused_ND, nameless.fused_ND)


def test_only_items_that_nobody_took_are_answered_for_as_new(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    model = randomised(bundle.model).eval()
    items = model.item_vectors(catalogue.text_NE, view.items)
    ids_N = items.ids_N.clone()
    ids_N[::2] = 0
    items, every_X = replace(items, ids_N=ids_N), torch.arange(len(ids_N))
    states, users = torch.randn(len(ids_N), model.state_width), torch.zeros(len(ids_N), dtype=torch.long)
    beliefs = torch.randn(len(ids_N), 2 * len(model.posteriors))
    before = model.pair_outputs(states, users, items, every_X, beliefs)
    for name in before:
        new = model.head(name).new
        assert new is not None
        new.bias.data += 1
    after = model.pair_outputs(states, users, items, every_X, beliefs)
    for name in ("rating", "like"):
        torch.testing.assert_close(after[name] - before[name], (ids_N == 0).float())


def test_one_item_has_the_logit_it_has_among_all(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    model = randomised(bundle.model).eval()
    items = model.item_vectors(catalogue.text_NE, view.items)
    states, place = torch.randn(4, items.fused_ND.shape[1]), torch.tensor([0, 7, 49, 7])
    for name in ("next_item", "next_sampled"):
        full = model.rank_logits(name, states, items, None)
        assert full.shape == (4, 50)
        single = model.rank_logits_of(name, states, items, place)
        torch.testing.assert_close(single, full[torch.arange(4), place], rtol=1e-4, atol=1e-5)
        some = model.rank_logits(name, states, items.rows(place), None)
        torch.testing.assert_close(some, full[:, place], rtol=1e-4, atol=1e-5)


def test_items_that_are_not_allowed_have_no_chance(shop_start: Start) -> None:
    bundle, view, catalogue = shop_start
    items = bundle.model.item_vectors(catalogue.text_NE, view.items)
    allowed = torch.arange(50) % 2 == 0
    logits = bundle.model.rank_logits("next_item", torch.randn(3, items.fused_ND.shape[1]), items, None, allowed)
    assert logits[:, ~allowed].isneginf().all()
    assert logits[:, allowed].isfinite().all()


def test_an_untrained_model_says_the_training_means(shop_start: Start, shop_data: tuple[Dataset, Encoding]) -> None:
    bundle, view, catalogue = shop_start
    model, encoding = bundle.model, shop_data[1]
    items = model.item_vectors(catalogue.text_NE, view.items)
    users = view.recent_rows(np.arange(5), TEST, 20)
    states = model.user_states(view.users.rows(torch.arange(5)), view.history(users), items)[:, 0]
    unknown = torch.zeros(5, dtype=torch.long)
    new = model.item_vectors(catalogue.text_NE, replace(view.items, ids=torch.zeros_like(view.items.ids)))
    pairs = model.pair_outputs(states, unknown, new, torch.arange(5), torch.zeros(5, 2))
    share = model.head("purchase").predict(pairs["purchase"])
    assert share.tolist() == pytest.approx(encoding.labels["purchase"].prior * 5, rel=0.05)
    classes = model.head("category").predict(model.item_outputs(items, torch.arange(len(items.ids_N)))["category"])
    torch.testing.assert_close(classes, torch.tensor(encoding.labels["category"].prior).expand(50, -1))


def test_tasks_share_one_bottom_per_place(world: tuple[Recommender, StepData, np.ndarray]) -> None:
    """A task moves the shared layers of its place and its own head, and no other head."""
    model = world[0]
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    touched = torch.autograd.grad(losses(*world)["category"], list(trainable.values()), allow_unused=True)
    names = {name for name, g in zip(trainable, touched, strict=True) if g is not None and g.abs().sum() > 0}
    assert any(name.startswith("encoder.") for name in names)
    assert any(name.startswith("bottoms.item.") for name in names)
    assert {name.split(".")[1] for name in names if name.startswith("heads.")} == {"category"}
    assert not any(name.startswith("bottoms.pair.") for name in names)


def test_new_users_and_items_get_finite_answers_for_every_task(
    shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    bundle, view, catalogue = shop_start
    model, (data, encoding) = randomised(bundle.model).eval(), shop_data
    strangers = replace(
        data,
        users=data.users.with_columns(user_id="new-" + pl.col("user_id"), age=pl.lit(None, pl.Int64)),
        items=data.items.with_columns(item_id="new-" + pl.col("item_id"), brand=pl.lit("new"), price=float("nan")),
    )
    other = View.of(
        replace(
            strangers,
            interactions=data.interactions.with_columns(
                user_id="new-" + pl.col("user_id"), item_id="new-" + pl.col("item_id")
            ),
        ),
        encoding,
        shop,
        view.device,
    )
    assert other.items.ids.abs().sum() == 0
    assert other.users.ids.abs().sum() == 0
    items = model.item_vectors(catalogue.text_NE, other.items)
    users = np.arange(6)
    states = model.user_states(
        other.users.rows(torch.from_numpy(users)), other.history(other.recent_rows(users, TEST, 20)), items
    )[:, -1]
    answers = {
        **model.item_outputs(items, torch.arange(len(items.ids_N))),
        **model.user_outputs(states),
        **model.pair_outputs(states, torch.zeros(6, dtype=torch.long), items, torch.arange(6), torch.zeros(6, 2)),
        "next_item": model.rank_logits("next_item", states, items, None),
    }
    for name, output in answers.items():
        assert output.isfinite().all(), name
