"""One training step: who learns from what."""

import copy
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST, TRAIN, VALID
from mtrec.models.inputs import View
from mtrec.models.losses import regression_loss
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import Bundle
from mtrec.training.loop import Trainer
from mtrec.training.step import StepData, task_losses

Start = tuple[Bundle, View, Catalogue]


def step_data(start: Start, view: View | None = None) -> tuple[Trainer, StepData]:
    bundle, own, catalogue = start
    copied = Catalogue(features=catalogue.features, tokens=catalogue.tokens, text_NE=catalogue.text_NE.clone())
    trainer = Trainer(bundle, view or own, copied, validate=lambda *_: {})
    return trainer, trainer.data


def losses(model: Recommender, data: StepData, rows: np.ndarray) -> dict[str, Tensor]:
    """The losses of a step with dropout off and the same draws every time."""
    fresh = replace(data, catalogue=replace(data.catalogue, text_NE=data.catalogue.text_NE.clone()))
    torch.manual_seed(7)
    return task_losses(model.eval(), fresh, rows)


@pytest.fixture(scope="module")
def batch(shop_start: Start) -> np.ndarray:
    return next(step_data(shop_start)[0].batches.epoch(0))


def test_a_step_gives_one_finite_scalar_per_task(shop_start: Start, shop: Scenario, batch: np.ndarray) -> None:
    found = losses(shop_start[0].model, step_data(shop_start)[1], batch)
    assert list(found) == list(shop.tasks)
    for name, loss in found.items():
        assert loss.shape == (), name
        assert loss.isfinite(), name
        assert float(loss.detach()) > 0, name


def test_the_untrained_losses_are_those_of_the_training_prior(
    shop_start: Start, shop_data: tuple[Dataset, Encoding], batch: np.ndarray
) -> None:
    """Heads start at the prior: with unknown items only what is known of the user makes ratings less uncertain."""
    found = losses(shop_start[0].model, replace(step_data(shop_start)[1], id_dropout=1.0), batch)
    data, encoding = shop_data
    ratings = data.rating[batch[batch >= 0]]
    label = encoding.labels["rating"]
    target = torch.from_numpy((ratings - label.prior[0]) / label.scale)
    wanted = regression_loss(torch.zeros(len(target)), target, ~target.isnan())
    assert 0.8 * float(wanted) < float(found["rating"].detach()) < float(wanted)
    classes = len(encoding.labels["category"].values)
    assert float(found["category"].detach()) < 1.2 * np.log(classes)
    assert float(found["next_item"].detach()) < 1.3 * np.log(50)


def test_pairs_of_hidden_items_count_by_item(
    shop_start: Start, shop_data: tuple[Dataset, Encoding], batch: np.ndarray
) -> None:
    """An untrained model answers what the posterior says of an item that nobody took."""
    bundle, view, _ = shop_start
    data, (dataset, encoding) = step_data(shop_start)[1], shop_data
    rows = torch.from_numpy(batch[batch >= 0])
    hidden = torch.zeros(len(rows), dtype=torch.bool)
    said = data.beliefs.of(rows, hidden)[:, 0]
    label = encoding.labels["rating"]
    target = (view.labels["rating"][rows] - label.prior[0]) / label.scale
    taken = np.bincount(dataset.item[dataset.part == TRAIN], minlength=dataset.items.height)
    count = torch.from_numpy(taken[dataset.item[rows]])
    assert len(count.unique()) > 3
    weight = target.isfinite() / count
    wanted = (weight * (said - target.nan_to_num()) ** 2).sum() / weight.sum()
    found = losses(bundle.model, replace(data, id_dropout=1.0), batch)
    torch.testing.assert_close(found["rating"].detach(), wanted.float(), rtol=1e-3, atol=1e-4)


def test_what_later_parts_hold_changes_no_loss(
    shop_start: Start, shop: Scenario, shop_data: tuple[Dataset, Encoding], batch: np.ndarray
) -> None:
    bundle, view, _ = shop_start
    data, encoding = shop_data
    later = pl.Series(data.part != TRAIN)
    rows = data.interactions.with_columns(
        item_id=pl.when(later).then(pl.lit(data.items["item_id"][0])).otherwise("item_id"),
        event=pl.when(later).then(pl.lit("cart")).otherwise("event"),
        rating=pl.when(later).then(1.0).otherwise("rating"),
        label_purchase=pl.when(later).then(pl.lit(1.0, pl.Float32)).otherwise("label_purchase"),
    )
    other = View.of(replace(data, interactions=rows), encoding, shop, view.device)
    before = losses(bundle.model, step_data(shop_start)[1], batch)
    after = losses(bundle.model, step_data(shop_start, other)[1], batch)
    for name, loss in before.items():
        assert loss.equal(after[name]), name


def test_an_event_is_learned_from_the_state_before_it(shop_start: Start, batch: np.ndarray) -> None:
    """What the last event of a window says of itself, its rating above all, reaches no prediction about it."""
    bundle, view, _ = shop_start
    model = copy.deepcopy(bundle.model)
    torch.manual_seed(3)
    with torch.no_grad():  # a fresh tower starts with zeros, through which nothing could leak
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    last = batch[np.arange(len(batch)), (batch >= 0).sum(1) - 1]
    ratings = view.rating_R.copy()
    ratings[last] = np.nan_to_num(ratings[last]) + 2
    other = replace(view, rating_R=ratings)
    before = losses(model, step_data(shop_start)[1], batch)
    after = losses(model, step_data(shop_start, other)[1], batch)
    # The state after the last event is what labels of the user are predicted from; nothing else reads it.
    assert not before["region"].equal(after["region"])
    for name in before.keys() - {"region"}:
        assert before[name].equal(after[name]), name


def test_labels_of_held_out_items_and_users_are_not_learned_from(shop_start: Start, batch: np.ndarray) -> None:
    bundle, view, _ = shop_start
    held_items = torch.from_numpy(np.isin(view.dataset.items["part"].to_numpy(), (VALID, TEST)))
    held_users = torch.from_numpy(np.isin(view.dataset.users["part"].to_numpy(), (VALID, TEST)))
    assert held_items.any()
    assert held_users.any()
    labels = dict(view.labels)
    for name in ("price", "category", "tags"):
        labels[name] = labels[name].clone()
        labels[name][held_items] = 0
    labels["region"] = labels["region"].clone()
    labels["region"][held_users] = 0
    before = losses(bundle.model, step_data(shop_start)[1], batch)
    after = losses(bundle.model, step_data(shop_start, replace(view, labels=labels))[1], batch)
    for name in ("price", "category", "tags", "region", "preferred_category", "profile"):
        assert before[name].equal(after[name]), name


def test_an_item_taken_before_is_no_target_of_ranking(
    shop_start: Start, shop_data: tuple[Dataset, Encoding]
) -> None:
    """A window that takes one item again and again teaches ranking what its first event teaches."""
    bundle, data = shop_start[0], shop_data[0]
    view_rows = (data.interactions["event"] == "view").to_numpy() & (data.part == TRAIN)
    row = int(np.flatnonzero(view_rows)[0])
    once = losses(bundle.model, step_data(shop_start)[1], np.array([[row]]))
    thrice = losses(bundle.model, step_data(shop_start)[1], np.array([[row, row, row]]))
    assert float(once["next_item"].detach()) > 0
    assert float(thrice["next_item"].detach()) == pytest.approx(float(once["next_item"].detach()), rel=1e-4)


def test_a_batch_without_an_example_of_a_task_teaches_it_nothing(
    shop_start: Start, shop_data: tuple[Dataset, Encoding]
) -> None:
    """One short window of views: no rating, no future long enough for a preference."""
    bundle, data = shop_start[0], shop_data[0]
    views = (data.interactions["event"] == "view").to_numpy() & (data.part == TRAIN) & np.isnan(data.rating)
    row = int(np.flatnonzero(views)[0])
    found = losses(bundle.model, step_data(shop_start)[1], np.array([[row]]))
    for name in ("rating", "like", "preferred_category", "profile"):
        assert float(found[name].detach()) == 0, name
    assert float(found["purchase"].detach()) > 0
    assert float(found["next_item"].detach()) > 0


def test_items_without_training_rows_are_no_negatives(
    shop_start: Start, shop_data: tuple[Dataset, Encoding]
) -> None:
    data = shop_data[0]
    warm = np.isin(np.arange(data.items.height), data.item[data.part == TRAIN])
    probability = step_data(shop_start)[1].sampling_N.numpy()
    assert ((probability > 0) == warm).all()
    assert probability.sum() == pytest.approx(1, abs=1e-5)


def test_the_step_refreshes_the_texts_it_encodes(shop_start: Start, batch: np.ndarray) -> None:
    bundle, _, catalogue = shop_start
    _, data = step_data(shop_start)
    data.catalogue.text_NE.zero_()
    torch.manual_seed(7)
    task_losses(bundle.model.eval(), data, batch)
    fresh = data.catalogue.text_NE.abs().sum(1) > 0
    assert 0 < int(fresh.sum()) <= data.texts_per_step
    torch.testing.assert_close(data.catalogue.text_NE[fresh], catalogue.text_NE[fresh], rtol=1e-4, atol=1e-5)
