"""Tasks that come one after the other: P(both) = P(first) · P(then | first)."""

from pathlib import Path

import pytest
import torch

from mtrec.data.dataset import prepare
from mtrec.models.losses import chained_logit
from mtrec.models.store import new_model
from tests.unit.tiny_shop import DIALS, TASKS, shop_scenario, shop_tables

CHAIN = {
    "purchase": {"type": "binary", "on": "pair", "exposure": ["view"], "positive": ["purchase"], "after": "cart"},
    "rating": TASKS["rating"],
    "cart": {"type": "binary", "on": "pair", "exposure": ["view"], "positive": ["cart"]},
}


def test_the_logit_of_a_product() -> None:
    a, b = torch.randn(100, dtype=torch.float64) * 3, torch.randn(100, dtype=torch.float64) * 3
    torch.testing.assert_close(chained_logit(a, b).sigmoid(), a.sigmoid() * b.sigmoid())


@pytest.mark.parametrize("a", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("b", [-200.0, 0.0, 200.0])
def test_far_out_it_stays_finite_and_learns(a: float, b: float) -> None:
    x = torch.tensor([a, b], requires_grad=True)
    value = chained_logit(x[:1], x[1:])
    value.sum().backward()
    assert value.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert float(x.grad.sum()) > 0.9


def test_a_chained_task_is_never_likelier_than_what_comes_first_and_starts_at_its_rate(tiny_bert: Path) -> None:
    scenario = shop_scenario(tiny_bert, tasks=CHAIN)
    dataset, encoding = prepare(shop_tables(DIALS)[0], scenario)
    bundle, _, catalogue = new_model(dataset, encoding, scenario)
    model = bundle.model.eval()
    assert model.chained == [("purchase", "cart")]
    with torch.no_grad():
        items = model.item_vectors(catalogue.text_NE, catalogue.features)
        ids = torch.zeros(50, dtype=torch.long)
        states = torch.randn(50, scenario.model.width)
        start = model.pair_outputs(states, ids, items, torch.arange(50), torch.zeros(50, 2))
        share = start["purchase"].sigmoid().mean() / start["cart"].sigmoid().mean()
        rates = [encoding.labels[name].prior[0] for name in ("purchase", "cart")]
        assert float(share) == pytest.approx(rates[0] / rates[1], rel=1e-4)
        for parameter in model.heads.parameters():
            parameter.add_(torch.randn_like(parameter))
        found = model.pair_outputs(states, ids, items, torch.arange(50), torch.zeros(50, 2))
    assert (found["purchase"] <= found["cart"] + 1e-6).all()
    assert found["rating"].shape == (50,)
