from torch import nn

from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.size import model_size
from mtrec.models.store import Bundle, View


def test_the_parts_add_up_and_only_learned_numbers_are_in_them(
    shop_start: tuple[Bundle, View, Catalogue],
) -> None:
    model = shop_start[0].model
    size = model_size(model)
    assert list(size["parts"]) == ["encoder", "items", "users", "pair factors", "sharing", "heads"]
    assert sum(size["parts"].values()) == sum(p.numel() for p in model.parameters())
    assert size["parts"]["sharing"] == sum(p.numel() for p in model.bottoms.parameters())
    assert 0 < size["trained_encoder"] < size["parts"]["encoder"]
    assert model.neighbours is not None
    assert size["neighbours_table"] == sum(b.numel() for b in model.neighbours.buffers()) > 0


def test_a_module_that_nobody_named_is_a_part_of_its_own(shop_start: tuple[Bundle, View, Catalogue]) -> None:
    class Longer(Recommender):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.encoder = nn.Linear(2, 1)  # type: ignore[assignment]
            self.adapter = nn.Linear(3, 1, bias=False)
            self.neighbours = None

    size = model_size(Longer())
    assert size == {"parts": {"encoder": 3, "adapter": 3}, "trained_encoder": 3, "neighbours_table": 0}
