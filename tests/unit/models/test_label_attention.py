from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mtrec.config import Encoder, Scenario, parse_scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.models.encoder import load_encoder
from mtrec.models.label_attention import LabelAttention
from mtrec.models.recommender import Recommender


def test_a_label_reads_the_tokens_its_query_matches() -> None:
    torch.manual_seed(0)
    labels = LabelAttention(3, 8)
    for parameter in labels.parameters():
        torch.nn.init.normal_(parameter)
    hidden_BLE, mask_BL = torch.randn(2, 5, 8), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    scores_BV = labels(hidden_BLE, mask_BL)
    for b, length in enumerate((5, 2)):
        tokens_LE = hidden_BLE[b, :length]
        for v in range(3):
            share_L = (tokens_LE @ labels.queries[v]).softmax(0)
            torch.testing.assert_close(scores_BV[b, v], share_L @ tokens_LE @ labels.weights[v])


def test_padding_is_not_read(tiny_bert: Any) -> None:
    encoder = load_encoder(Encoder(name=str(tiny_bert), max_length=24, train_layers=1)).eval()
    encoder.look_for(4)
    assert encoder.labels is not None
    for parameter in encoder.labels.parameters():
        torch.nn.init.normal_(parameter)
    texts = encoder.tokenize(["a red lamp", "a long text about many red lamps and green chairs", ""])
    one_by_one = torch.cat([encoder([row]) for row in texts])
    assert one_by_one.shape == (3, encoder.width + 4)
    torch.testing.assert_close(encoder(texts), one_by_one)
    torch.testing.assert_close(encoder.encode_all(texts), one_by_one)


def test_each_task_adds_the_scores_of_its_own_labels(shop_start: Any) -> None:
    bundle, view, catalogue = shop_start
    model = bundle.model.eval()
    categories, tags = (len(bundle.encoding.labels[name].values) for name in ("category", "tags"))
    assert model.looked_for == {"price": 1, "category": categories, "tags": tags}
    every_X = torch.arange(len(catalogue.tokens))
    text_NE = catalogue.text_NE.clone()
    text_NE[:, model.encoder.width :] = 0
    before = model.item_outputs(model.item_vectors(text_NE, view.items), every_X)
    text_NE[:, -tags] = 7  # the first tag
    after = model.item_outputs(model.item_vectors(text_NE, view.items), every_X)
    torch.testing.assert_close(after["tags"][:, 0], before["tags"][:, 0] + 7)
    assert after["tags"][:, 1:].equal(before["tags"][:, 1:])
    assert after["category"].equal(before["category"])
    assert after["price"].equal(before["price"])


@pytest.mark.parametrize(
    ("change", "looked_for"),
    [
        ({}, {"price", "category", "tags"}),
        ({"label_attention": 0}, set()),
        ({"label_attention": 1}, {"price"}),
        ({"encoder": {"train_layers": 0}}, set()),
    ],
)
def test_what_is_looked_for(
    change: dict[str, Any], looked_for: set[str], shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    raw = copy.deepcopy(shop.as_dict())
    raw["model"] |= {**change, "encoder": raw["model"]["encoder"] | change.get("encoder", {})}
    scenario = parse_scenario(raw)
    model = Recommender(scenario, shop_data[1], load_encoder(scenario.model.encoder))
    assert set(model.looked_for) == looked_for
    assert (model.encoder.labels is None) == (not looked_for)
