"""Where item ids begin: items that the same users took lie together, and nothing but training rows is read."""

import numpy as np
import pytest
import torch

from mtrec.config import Scenario, parse_scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TRAIN
from mtrec.errors import ConfigError
from mtrec.models.id_start import item_factors
from mtrec.models.store import new_model
from mtrec.models.took import DAMPING

KINDS = ["svd", "nmf"]


def two_tastes() -> tuple[np.ndarray, np.ndarray]:
    """40 users; the first half took items 1 to 5, the second 6 to 10; nobody took 11."""
    rng = np.random.default_rng(0)
    pairs = [(u, s) for u in range(40) for s in range(1, 6) if rng.random() < 0.8]
    return np.array([u for u, _ in pairs]), np.array([s + 5 * (u >= 20) for u, s in pairs])


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_the_same_users_took_lie_together(kind: str) -> None:
    table = item_factors(kind, *two_tastes(), (40, 12), 2)  # type: ignore[arg-type]
    assert table.shape == (12, 2)
    assert np.allclose(table[0], 0)
    unit = table[1:11] / np.linalg.norm(table[1:11], axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.kron(np.eye(2), np.ones((5, 5))).astype(bool)
    assert cosine[same].min() > cosine[~same].max()
    assert np.linalg.norm(table[1:], axis=1).mean() == pytest.approx(1, rel=1e-5)
    again = item_factors(kind, *two_tastes(), (40, 12), 2)  # type: ignore[arg-type]
    assert np.array_equal(table, again), "the same rows give the same start"


def test_svd_keeps_the_similarities_of_the_normalised_matrix() -> None:
    user, slot = two_tastes()
    took = np.zeros((40, 12))
    took[user, slot] = 1
    took = took[:, 1:]
    scaled = took / np.sqrt(took.sum(1, keepdims=True) + DAMPING) / np.sqrt(took.sum(0) + DAMPING)
    table = item_factors("svd", user, slot, (40, 12), 10)[1:]
    wanted = scaled.T @ scaled
    found = table @ table.T
    np.testing.assert_allclose(found / np.trace(found), wanted / np.trace(wanted), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("user", "slot", "sizes"), [([], [], (3, 4)), ([0], [1], (1, 2)), ([0, 0], [1, 2], (2, 3))]
)
def test_next_to_nothing_gives_next_to_nothing(
    kind: str, user: list[int], slot: list[int], sizes: tuple[int, int]
) -> None:
    table = item_factors(kind, np.array(user, int), np.array(slot, int), sizes, 8)  # type: ignore[arg-type]
    assert table.shape == (sizes[1], 8)
    assert np.isfinite(table).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_begins_with_the_factors_of_its_training_rows(
    shop: Scenario, shop_data: tuple[Dataset, Encoding], kind: str
) -> None:
    dataset, encoding = shop_data
    raw = shop.as_dict()
    raw["model"]["id_start"] = kind
    own, plain = (new_model(dataset, encoding, s)[0].model for s in (parse_scenario(raw), shop))
    assert own.items.ids is not None
    train = dataset.part == TRAIN
    slots = dataset.item_features(encoding).ids[dataset.item[train]]
    sizes = (dataset.users.height, len(encoding.items.ids) + 1)
    wanted = item_factors(kind, dataset.user[train], slots, sizes, raw["model"]["width"])  # type: ignore[arg-type]
    torch.testing.assert_close(own.items.ids.weight.data, torch.from_numpy(wanted))
    others = {name: value for name, value in plain.state_dict().items() if name != "items.ids.weight"}
    assert all(value.equal(own.state_dict()[name]) for name, value in others.items()), "nothing else moves"


def test_a_start_needs_ids(shop: Scenario) -> None:
    raw = shop.as_dict()
    raw["model"] |= {"id_start": "svd", "item_ids": False}
    with pytest.raises(ConfigError, match="id_start: svd has no effect without item_ids; set item_ids: true"):
        parse_scenario(raw)
