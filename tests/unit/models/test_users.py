"""The user tower: causal, cold-start safe, and blind to padding."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.models.inputs import View
from mtrec.models.items import FeatureTensors
from mtrec.models.recommender import Catalogue, ItemVectors, Recommender
from mtrec.models.store import Bundle
from mtrec.models.users import History, recency_bias
from tests.unit.tiny_shop import shop_scenario


@dataclass(frozen=True)
class World:
    """A model whose weights are all random (a fresh one starts with zeros), three users and their items."""

    model: Recommender
    people: FeatureTensors
    items: ItemVectors
    num_events: int

    def users(self, count: int) -> FeatureTensors:
        return self.people.rows(torch.arange(count))

    def states(self, users: FeatureTensors, past: History, keep: Tensor | None = None) -> Tensor:
        return self.model.user_states(users, past, self.items, keep)

    def events(self, count: int, length: int) -> History:
        generator = torch.Generator().manual_seed(2)
        shape = (count, length)
        rating = torch.randn(shape, generator=generator)
        rating[torch.rand(shape, generator=generator) < 0.5] = torch.nan
        return History(
            item_BT=torch.randint(len(self.items.ids_N), shape, generator=generator),
            event_BT=torch.randint(self.num_events + 1, shape, generator=generator),
            rating_BT=rating,
            gap_BT=torch.rand(shape, generator=generator) * 30,
            mask_BT=torch.ones(shape, dtype=torch.bool),
            row_BT=torch.arange(length).expand(shape),
        )


def make_world(scenario: Scenario, data: tuple[Dataset, Encoding], start: tuple[Bundle, View, Catalogue]) -> World:
    bundle, view, catalogue = start
    torch.manual_seed(0)
    model = Recommender(scenario, data[1], bundle.model.encoder).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                parameter.normal_(std=0.2)
        items = model.item_vectors(catalogue.text_NE, catalogue.features)
    return World(model, view.users, items, len(data[1].events))


@pytest.fixture(scope="module")
def world(shop: Scenario, shop_data: tuple[Dataset, Encoding], shop_start: tuple[Bundle, View, Catalogue]) -> World:
    return make_world(shop, shop_data, shop_start)


@pytest.mark.parametrize("field", ["item_BT", "event_BT", "rating_BT", "gap_BT"])
@pytest.mark.parametrize("place", range(6))
def test_an_event_changes_no_state_before_it_is_over(place: int, field: str, world: World) -> None:
    """State t is the user before event t: changing event t may change states from t + 1 on only."""
    users, past = world.users(2), world.events(2, 6)
    values = getattr(past, field).clone()
    if values.dtype == torch.long:
        values[:, place] = (values[:, place] + 1) % int(values.max() + 1)
    else:
        values[:, place] = values[:, place].nan_to_num() + 5
    before, after = world.states(users, past), world.states(users, replace(past, **{field: values}))
    assert before[:, : place + 1].equal(after[:, : place + 1])
    assert not torch.allclose(before[:, place + 1], after[:, place + 1])


def test_a_future_item_vector_reaches_no_earlier_state(world: World) -> None:
    fused = world.items.fused_ND.clone().requires_grad_(True)
    items = replace(world.items, fused_ND=fused)
    past = replace(world.events(1, 5), item_BT=torch.arange(5).unsqueeze(0))
    states = world.model.user_states(world.users(1), past, items)
    for t in range(6):
        (gradient,) = torch.autograd.grad(states[0, t].sum(), fused, retain_graph=True, allow_unused=True)
        touched = torch.zeros(len(fused)) if gradient is None else gradient.abs().sum(1)
        assert (touched[:t] > 0).all()
        assert (touched[t:] == 0).all()


def test_padding_changes_nothing(world: World) -> None:
    users, past = world.users(2), world.events(2, 4)
    padding = {"item_BT": 7, "event_BT": 2, "rating_BT": 4.0, "gap_BT": 9.0, "mask_BT": False, "row_BT": 0}
    padded = History(
        **{
            name: torch.cat([value, torch.full((2, 3), padding[name], dtype=value.dtype)], 1)
            for name, value in vars(past).items()
        }
    )
    torch.testing.assert_close(world.states(users, padded)[:, :5], world.states(users, past), rtol=1e-5, atol=1e-5)


def test_users_of_a_batch_do_not_mix(world: World) -> None:
    users, past = world.users(3), world.events(3, 4)
    together = world.states(users, past)
    for b in range(3):
        row = torch.tensor([b])
        alone = History(**{name: value[row] for name, value in vars(past).items()})
        torch.testing.assert_close(world.states(users.rows(row), alone)[0], together[b], rtol=1e-5, atol=1e-5)


def test_a_user_without_history_has_a_state_made_of_attributes(world: World) -> None:
    users = world.users(2)
    nothing = replace(world.events(2, 1), mask_BT=torch.zeros(2, 1, dtype=torch.bool))
    states = world.states(users, nothing)[:, 0]
    assert states.isfinite().all()
    assert not torch.allclose(states[0], states[1])
    # It is what every user starts from, whatever follows.
    torch.testing.assert_close(states, world.states(users, world.events(2, 3))[:, 0], rtol=1e-5, atol=1e-5)


def test_nothing_known_is_the_same_for_everybody(world: World) -> None:
    unknown = world.users(3).unknown()
    past = History(**{name: value[:1].expand(3, -1) for name, value in vars(world.events(3, 4)).items()})
    states = world.states(unknown, past)
    torch.testing.assert_close(states[1], states[0])
    torch.testing.assert_close(states[2], states[0])


def test_a_dropped_id_is_an_unknown_id(world: World) -> None:
    users, past, keep = world.users(3), world.events(3, 4), torch.tensor([0, 1, 0])
    assert (users.ids > 0).all()
    dropped, whole = world.states(users, past, keep), world.states(users, past)
    assert dropped.equal(world.states(replace(users, ids=users.ids * keep), past))
    assert dropped[1].equal(whole[1])
    assert not torch.allclose(dropped[2], whole[2])


def test_without_ids_and_layers_users_are_history_and_attributes(
    shop_data: tuple[Dataset, Encoding], shop_start: tuple[Bundle, View, Catalogue], shop: Scenario
) -> None:
    sizes = shop.model.model_dump() | {"user_ids": False, "user_layers": 0}
    plain = make_world(shop_scenario("unused", model=sizes), shop_data, shop_start)
    users, past = plain.users(3), plain.events(3, 4)
    states = plain.states(users, past)
    assert states.equal(plain.states(replace(users, ids=users.ids * 0), past))
    assert not torch.allclose(states[0, 0], states[1, 0])


def test_the_recency_bias_falls_with_distance_and_hides_the_future() -> None:
    bias = recency_bias(4, 2, torch.zeros(1))
    assert bias.shape == (2, 4, 4)
    # Slopes 2^−4 and 2^−8 (ALiBi with two heads).
    assert bias[0, 3].tolist() == [-3 / 16, -2 / 16, -1 / 16, 0]
    assert bias[1, 3].tolist() == [-3 / 256, -2 / 256, -1 / 256, 0]
    future = torch.ones(4, 4).triu(1).bool()
    assert bias[:, future].isinf().all()
    assert bias[:, ~future].isfinite().all()
