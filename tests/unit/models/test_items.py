"""Items as vectors: text first, attributes and ids on top, the unknown at zero."""

from dataclasses import replace

import pytest
import torch

from mtrec.data.features import TableFeatures
from mtrec.models.items import FeatureEmbedding, FeatureTensors, ItemTower, kept

FEATURES = TableFeatures(
    key="item_id",
    ids=["a", "b", "c"],
    numeric={"price": (10.0, 2.0)},
    categorical={"brand": ["x", "y"]},
    multi={"tags": ["red", "blue"]},
)


def rows() -> FeatureTensors:
    multi = torch.zeros(4, 1, 16, dtype=torch.long)
    multi[0, 0, :2] = torch.tensor([1, 2])
    multi[1, 0, 0] = 1
    return FeatureTensors(
        numeric=torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
        categorical=torch.tensor([[1], [2], [0], [0]]),
        multi=multi,
        ids=torch.tensor([1, 2, 3, 0]),
    )


@pytest.fixture
def tower() -> ItemTower:
    torch.manual_seed(0)
    return ItemTower(FEATURES, text_width=6, width=4, use_ids=True)


@pytest.mark.parametrize("few", [0, 128])
def test_attributes_are_the_sum_of_their_parts(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtrec.models.items.FEW_VALUES", few)
    torch.manual_seed(0)
    table = FeatureEmbedding(FEATURES, 4)
    assert table.numeric is not None
    found = table(rows())
    (brand,), (tags,) = table.categorical.parameters(), table.multi.parameters()
    torch.testing.assert_close(found[0], table.numeric.weight[:, 0] + brand[1] + (tags[1] + tags[2]) / 2)
    torch.testing.assert_close(found[1], -2 * table.numeric.weight[:, 0] + brand[2] + tags[1])
    # Unknown or missing values add nothing but the indicator of the missing number.
    torch.testing.assert_close(found[2], table.numeric.weight[:, 1])


def test_the_text_sees_neither_attributes_nor_ids(tower: ItemTower) -> None:
    text = torch.randn(4, 6, requires_grad=True)
    projected = tower.text(text)
    projected.sum().backward()
    assert all(p.grad is None for p in tower.attributes.parameters())
    assert tower.ids is not None
    assert tower.ids.weight.grad is None
    assert projected.shape == (4, 4)


def test_a_new_item_is_its_text_and_its_attributes(tower: ItemTower) -> None:
    text = tower.text(torch.randn(4, 6))
    fused = tower(text, rows())
    unknown = tower(text, rows().unknown())
    assert not torch.allclose(fused[0], unknown[0])
    bare = replace(rows().unknown(), numeric=torch.zeros(4, 2))
    torch.testing.assert_close(tower(text, bare), text)


def test_dropped_ids_are_unknown_ids(tower: ItemTower) -> None:
    text = tower.text(torch.randn(4, 6))
    keep = torch.tensor([1, 0, 1, 1])
    dropped = tower(text, rows(), keep)
    known = tower(text, rows())
    assert dropped[[0, 2, 3]].equal(known[[0, 2, 3]])
    assert dropped[1].equal(tower(text, replace(rows(), ids=torch.tensor([1, 0, 3, 0])))[1])
    assert kept(rows().ids, keep).tolist() == [1, 0, 3, 0]
    assert kept(rows().ids, None).tolist() == [1, 2, 3, 0]


def test_the_unknown_slot_never_learns(tower: ItemTower) -> None:
    optimiser = torch.optim.SGD(tower.parameters(), lr=1.0)
    tower(tower.text(torch.randn(4, 6)), rows().unknown()).square().sum().backward()
    optimiser.step()
    assert tower.ids is not None
    assert tower.ids.weight[0].abs().sum() == 0


@pytest.mark.parametrize("items", [3, 40])
def test_a_tower_starts_as_principal_components(items: int) -> None:
    """Distances between the texts survive the projection as well as its width allows."""
    torch.manual_seed(1)
    tower = ItemTower(FEATURES, text_width=10, width=4, use_ids=True)
    # Four directions hold all the variance, so four components keep every distance, up to one scale.
    text = torch.randn(items, 4) @ torch.randn(4, 10) + 3
    tower.start_from(text)
    found = tower.text(text).detach()
    before, after = torch.pdist(text), torch.pdist(found)
    torch.testing.assert_close(after / after.mean(), before / before.mean(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.mean(0), torch.zeros(4), rtol=0, atol=1e-4)
    assert float(found.norm(dim=1).mean()) == pytest.approx(1, rel=1e-4)


def test_rows_are_taken_from_every_tensor() -> None:
    some = rows().rows(torch.tensor([1, 1, 0]))
    assert some.ids.tolist() == [2, 2, 1]
    assert some.categorical.tolist() == [[2], [2], [1]]
    assert some.numeric[:, 0].tolist() == [-2, -2, 1]
    assert some.multi[:, 0, :2].tolist() == [[1, 0], [1, 0], [1, 2]]
