"""Changed texts: what happens to the words, and what they must not touch."""

import copy
import random
from dataclasses import replace

import pytest
import torch

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, new_model
from mtrec.training.augmentation import Augmentation, altered, augmentation
from mtrec.training.loop import Trainer
from mtrec.training.step import task_losses

Start = tuple[Bundle, View, Catalogue]
WORDS = [f"w{i}" for i in range(20)]
TEXT = " ".join(WORDS)


def test_words_are_dropped_or_swapped_but_never_made_up() -> None:
    rng = random.Random(0)
    kinds = {"swapped": 0, "dropped": 0}
    kept = 0
    for _ in range(400):
        words = altered(TEXT, 0.2, rng).split()
        if len(words) == len(WORDS) and words != WORDS:
            assert sorted(words) == sorted(WORDS)
            moved = sum(a != b for a, b in zip(words, WORDS, strict=True))
            assert 2 <= moved <= 8  # four pairs of twenty words, which may meet
            kinds["swapped"] += 1
        else:
            assert words == [w for w in WORDS if w in words]  # the order stays
            kinds["dropped"] += 1
            kept += len(words)
    assert 160 < kinds["swapped"] < 240
    assert kept / kinds["dropped"] / len(WORDS) == pytest.approx(0.8, abs=0.02)


def test_a_text_never_becomes_empty() -> None:
    rng = random.Random(1)
    assert altered("alone", 0.9, rng) == "alone"
    assert altered("", 0.9, rng) == ""
    for _ in range(100):
        assert altered("one two", 0.99, rng) in {"one two", "two one", "one", "two"}


def test_half_of_the_rows_are_changed_by_the_seed_of_the_step() -> None:
    made = Augmentation([TEXT] * 200, 0.2, lambda texts: [[len(text.split())] for text in texts])
    torch.manual_seed(3)
    first, other = made(torch.arange(200)), made(torch.arange(200))
    torch.manual_seed(3)
    assert made(torch.arange(200)) == first
    assert other.keys() != first.keys()
    assert 70 < len(first) < 130


def test_without_a_share_nothing_is_changed(shop_start: Start, shop_data: tuple[Dataset, Encoding]) -> None:
    assert augmentation(0.0, shop_data[0], shop_start[0].model.encoder) is None


def with_texts(start: Start, share: float) -> Trainer:
    bundle, view, catalogue = start
    training = bundle.scenario.training.model_copy(update={"text_augmentation": share, "texts_per_step": 40})
    scenario = bundle.scenario.model_copy(update={"training": training})
    own = replace(bundle, model=copy.deepcopy(bundle.model), scenario=scenario)
    copied = replace(catalogue, text_NE=catalogue.text_NE.clone())
    return Trainer(own, view, copied, validate=lambda *_: {})


def test_the_catalogue_learns_nothing_of_changed_texts(shop_start: Start) -> None:
    trainer = with_texts(shop_start, 0.3)
    batch = next(trainer.batches.epoch(0))
    change = trainer.data.augmentation
    assert change is not None
    seen: dict[int, list[int]] = {}
    drawn: list[int] = []

    def watched(rows: torch.Tensor, generator: torch.Generator | None) -> dict[int, list[int]]:
        drawn.extend(rows.tolist())
        seen.update(change(rows, generator))
        return seen

    encoded: list[list[int]] = []
    trainer.model.encoder.register_forward_pre_hook(lambda module, given: encoded.extend(given[0]))
    before = trainer.data.catalogue.text_NE.fill_(0).clone()
    torch.manual_seed(0)
    data = replace(trainer.data, augmentation=watched)  # type: ignore[arg-type]
    task_losses(trainer.model.train(), data, batch)
    assert 5 < len(seen) < len(drawn)
    tokens = trainer.data.catalogue.tokens
    assert encoded == [seen.get(i, tokens[i]) for i in drawn]
    assert sum(seen[i] != tokens[i] for i in seen) > len(seen) / 2
    written = (trainer.data.catalogue.text_NE != before).any(1).nonzero().flatten().tolist()
    assert set(written) == set(drawn) - set(seen)


@pytest.mark.parametrize("train_layers", [0, 1])
def test_the_states_of_frozen_layers_are_those_of_whole_texts(
    shop: Scenario, shop_data: tuple[Dataset, Encoding], train_layers: int
) -> None:
    """Changed texts run through all layers and leave the cache as it was; a frozen encoder reads them too."""
    encoder = shop.model.encoder.model_copy(update={"train_layers": train_layers})
    model = shop.model.model_copy(update={"encoder": encoder})
    scenario = shop.model_copy(update={"model": model})
    trainer = with_texts(new_model(*shop_data, scenario), 0.3)
    text_NE, reused = trainer.data.catalogue.text_NE.clone(), trainer.model.encoder.reused()
    assert (reused is None) == (train_layers == 0)
    runs = 0

    def count(*_: object) -> None:
        nonlocal runs
        runs += 1

    trainer.model.encoder.register_forward_hook(count)
    batches = list(trainer.batches.epoch(0))
    for batch in batches:
        trainer.train_step(batch)
    assert runs == len(batches)
    assert trainer.model.encoder.reused() == reused
    assert trainer.data.catalogue.text_NE.equal(text_NE) == (train_layers == 0)
