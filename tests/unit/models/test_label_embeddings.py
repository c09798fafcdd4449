"""Label vectors: they start from names, share one map, and are saved with the model."""

from pathlib import Path

import pytest
import torch

from mtrec.config import Scenario, parse_scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.labels import Label
from mtrec.models.heads import Head
from mtrec.models.label_embeddings import LabelEmbeddings
from mtrec.models.store import load_model, new_model, save_model
from tests.unit.tiny_shop import TASKS, shop_scenario


@pytest.fixture
def with_labels(tiny_bert: Path) -> Scenario:
    tags = {**TASKS["tags"], "strategy": "label_embeddings", "thresholds": "per_label"}
    return shop_scenario(tiny_bert, tasks={"tags": tags, "category": TASKS["category"]})


def test_a_logit_by_hand() -> None:
    layer = LabelEmbeddings(num_inputs=2, num_labels=3, text_width=2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
        layer.vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))
    # W h = (1 · 2 + 2 · 1, 3 · 1) = (4, 3)
    assert layer(torch.tensor([[2.0, 1.0]])).tolist() == [[4.5, 3.0, 1.0]]


def test_what_one_label_teaches_reaches_labels_of_like_name_only() -> None:
    task = parse_scenario(
        {"name": "t", "tasks": {"it": {"type": "multilabel", "on": "item", "label": "items.tags",
                                       "strategy": "label_embeddings"}}}
    ).tasks["it"]  # fmt: skip
    label = Label(values=["red", "crimson", "loud"], prior=[0.3, 0.01, 0.2])
    head = Head(task, label, num_inputs=4, text_width=3)
    assert isinstance(head.linear, LabelEmbeddings)
    near = torch.tensor([[1.0, 0.1, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 1.0]])
    head.linear.start_from(near)
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    start = head(inputs)
    torch.testing.assert_close(head.predict(start)[0], torch.tensor(label.prior))  # as any untrained head
    torch.nn.functional.softplus(-start[:, 0]).mean().backward()  # "red" alone is a yes
    with torch.no_grad():
        assert head.linear.weight.grad is not None
        head.linear.weight -= head.linear.weight.grad
    gained = (head(inputs) - start).detach().mean(0)
    assert float(gained[0]) > 0
    assert float(gained[1]) > 0.5 * float(gained[0])
    assert float(gained[2]) < 0


def test_vectors_start_from_the_names(with_labels: Scenario, shop_data: tuple[Dataset, Encoding]) -> None:
    dataset, encoding = shop_data
    bundle, _, _ = new_model(dataset, encoding, with_labels)
    head = bundle.model.head("tags")
    assert isinstance(head.linear, LabelEmbeddings)
    assert not isinstance(bundle.model.head("category").linear, LabelEmbeddings)
    values = encoding.labels["tags"].values
    encoder = bundle.model.encoder
    text_VE = encoder.encode_all(encoder.tokenize(values))[:, : encoder.width]
    centred = text_VE - text_VE.mean(0)
    torch.testing.assert_close(head.linear.vectors.detach(), centred / centred.norm(dim=1, keepdim=True))
    outputs = head(torch.randn(2, head.linear.in_features))
    assert outputs.shape == (2, len(values))


def test_a_saved_model_keeps_vectors_and_thresholds(
    with_labels: Scenario, shop_data: tuple[Dataset, Encoding], tmp_path: Path
) -> None:
    dataset, encoding = shop_data
    bundle, _, catalogue = new_model(dataset, encoding, with_labels)
    head = bundle.model.head("tags")
    assert isinstance(head.linear, LabelEmbeddings)
    assert head.thresholds is not None
    with torch.no_grad():
        head.linear.vectors.add_(1)
        head.linear.weight.normal_()
        head.thresholds.uniform_()
    save_model(tmp_path / "model", bundle, dataset, catalogue, {})
    again = load_model(tmp_path / "model").model.head("tags")
    assert isinstance(again.linear, LabelEmbeddings)
    assert again.linear.vectors.equal(head.linear.vectors)
    assert again.thresholds is not None
    assert again.thresholds.equal(head.thresholds)
    shared = torch.randn(3, head.linear.in_features)
    assert again(shared).equal(head(shared))
    probability = again.predict(again(shared))
    assert again.given(probability).equal(probability >= head.thresholds)
