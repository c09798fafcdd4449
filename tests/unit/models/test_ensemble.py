"""An ensemble answers with the weighted mean of its members, whatever they are made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtrec.config import NextItem, Profile, Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST
from mtrec.evaluation.predict import predict
from mtrec.models.ensemble import Ensemble
from mtrec.models.recommender import Recommender
from mtrec.models.size import model_size
from mtrec.models.store import Bundle, load_model, new_model
from tests.unit.tiny_shop import shop_scenario


@pytest.fixture(scope="module")
def members(shop_run: Path, tiny_llama: Path, shop_data: tuple[Dataset, Encoding]) -> list[Bundle]:
    """The trained model, and an untrained one of another encoder, width and sharing, without ids and neighbours."""
    dataset, encoding = shop_data
    model = {
        "encoder": {"name": str(tiny_llama), "max_length": 24, "train_layers": 1},
        "width": 24,
        "history": 20,
        "sharing": "mmoe",
        "item_ids": False,
        "neighbours": 0,
    }
    other, _, _ = new_model(dataset, encoding, shop_scenario("", model=model), to_train=False)
    torch.manual_seed(1)
    for parameter in other.model.parameters():  # heads start at zero, so that all states would answer the same
        parameter.data += 0.1 * torch.randn_like(parameter)
    thresholds = other.model.head("tags").thresholds
    assert thresholds is not None
    thresholds.fill_(0.1)
    other.model.eval()
    return [load_model(shop_run / "model"), other]


def said(model: Recommender, bundle: Bundle, dataset: Dataset) -> tuple[Any, Any]:
    """Predictions and rankings of the test part."""
    view = bundle.view(dataset)
    catalogue = model.catalogue(dataset.items["text"].to_list(), view.items)
    return predict(model, view, catalogue, bundle.scenario.tasks, TEST, bundle.scenario.model.history)


def scores(model: Recommender, bundle: Bundle, dataset: Dataset, name: str) -> torch.Tensor:
    """Logits of all items for the first users."""
    view = bundle.view(dataset)
    catalogue = model.catalogue(dataset.items["text"].to_list(), view.items)
    with torch.no_grad():
        items = model.item_vectors(catalogue.text_NE, catalogue.features)
        past = view.history(view.recent_rows(np.arange(8), TEST, 20))
        states = model.user_states(view.users.rows(torch.arange(8)), past, items)
        last = states[torch.arange(8), past.mask_BT.sum(1)]
        return model.rank_logits(name, last, items, model.nearby(name, items, past))


def test_every_task_answers_with_the_weighted_mean(
    members: list[Bundle], shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    dataset = shop_data[0]
    shares = {name: [0.75, 0.25] for name in shop.tasks}
    model = Ensemble(shop.tasks, [member.model for member in members], shares).eval()
    rows, rankings = said(model, members[0], dataset)
    alone = [said(member.model, member, dataset)[0] for member in members]
    assert set(rows) == {name for name, task in shop.tasks.items() if not isinstance(task, NextItem)}
    for name, found in rows.items():
        one, other = (torch.from_numpy(each[name].predicted) for each in alone)
        if isinstance(shop.tasks[name], Profile):
            one, other = F.normalize(one, dim=-1), F.normalize(other, dim=-1)
        assert (one - other).abs().max() > 1e-3, f"{name}: members that agree show nothing"
        np.testing.assert_allclose(found.predicted, 0.75 * one + 0.25 * other, atol=1e-5)
        assert np.array_equal(found.target, alone[0][name].target)
    assert rows["tags"].thresholds == pytest.approx(0.75 * alone[0]["tags"].thresholds + 0.25 * 0.1)
    assert model.head("tags").given(torch.from_numpy(rows["tags"].thresholds[None])).all()
    for name in ("next_item", "next_sampled"):
        one, other = (scores(m.model, m, dataset, name).log_softmax(-1) for m in members)
        torch.testing.assert_close(scores(model, members[0], dataset, name), 0.75 * one + 0.25 * other)
        assert len(rankings[name]) > 5


def test_one_member_in_all_shares_answers_alone(
    members: list[Bundle], shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    dataset = shop_data[0]
    for number, member in enumerate(members):
        shares = {name: [float(n == number) for n in range(2)] for name in shop.tasks}
        model = Ensemble(shop.tasks, [m.model for m in members], shares).eval()
        rows, rankings = said(model, members[0], dataset)
        own_rows, own_rankings = said(member.model, member, dataset)
        np.testing.assert_allclose(rows["rating"].predicted, own_rows["rating"].predicted, atol=1e-5)
        for name, users in rankings.items():
            assert [u.top.tolist() for u in users] == [u.top.tolist() for u in own_rankings[name]]


def test_an_item_that_is_not_allowed_stays_out_whatever_the_shares(
    members: list[Bundle], shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    dataset, model = shop_data[0], Ensemble(shop.tasks, [m.model for m in members]).eval()
    view = members[0].view(dataset)
    catalogue = model.catalogue(dataset.items["text"].to_list(), view.items)
    items = model.item_vectors(catalogue.text_NE, catalogue.features)
    states = torch.zeros(3, model.state_width)
    allowed = torch.arange(len(dataset.items)) > 4
    for share in (0.0, 0.5):
        model.shares = {name: [share, 1 - share] for name in shop.tasks}
        logits = model.rank_logits("next_item", states, items, None, allowed)
        assert torch.isneginf(logits[:, :5]).all()
        assert torch.isfinite(logits[:, 5:]).all()


def test_its_size_is_that_of_all_members(members: list[Bundle], shop: Scenario) -> None:
    model = Ensemble(shop.tasks, [member.model for member in members])
    size, each = model_size(model), [model_size(member.model) for member in members]
    assert sum(size["parts"].values()) == sum(p.numel() for p in model.parameters())
    assert size["parts"]["encoder"] == sum(one["parts"]["encoder"] for one in each)
    assert size["trained_encoder"] == sum(one["trained_encoder"] for one in each)
    assert size["neighbours_table"] == each[0]["neighbours_table"] > 0
