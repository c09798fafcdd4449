"""The champion that training starts from: found, part of a checkpoint's key, refused where it does not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import ModelError
from mtrec.stages import fine_tune
from mtrec.stages.parents import find_champion
from mtrec.tracking.connection import connected


def starting(shop: Scenario, **settings: Any) -> Scenario:
    warm = {"training": shop.training.model_copy(update={"start": "champion"})}
    return shop.model_copy(update=warm | settings)


@pytest.fixture
def champion(uri: str, shop: Scenario, shop_run: Path, judged: Callable[..., dict[str, Path]]) -> str:
    """The store's URI, with a champion and a candidate of other weights."""
    for model in (shop_run / "model", other_weights(shop_run / "model", Path("other"))):
        lineage = dict.fromkeys(("data_version", "parameters_hash", "image", "pipeline_run"), "x")
        tracking.register(
            model, scenario=shop, lineage=lineage | {"code_revision": model.name}, tracking_uri=uri, **judged()
        )
    return uri


def other_weights(model: Path, folder: Path) -> Path:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"items.project.bias": weights["items.project.bias"] + 1}, folder / "model.safetensors")
    return folder


def test_nothing_is_fetched_unless_asked_for(shop: Scenario) -> None:
    assert find_champion(shop, "sqlite:////nowhere/mlflow.db") is None


def test_the_champion_belongs_to_the_key_of_a_checkpoint(champion: str, shop: Scenario, shop_run: Path) -> None:
    scenario = starting(shop)
    inputs = fine_tune.Inputs(dataset=shop_run / "dataset", code_revision="1")
    first, again = find_champion(scenario, champion), find_champion(scenario, champion)
    assert first is not None
    assert first.name == "tiny-shop/1"
    with connected(champion) as client:
        client.copy_model_version("models:/tiny-shop-candidate/2", "tiny-shop")
        client.set_registered_model_alias("tiny-shop", "champion", "2")
    other = find_champion(scenario, champion)
    assert other is not None
    assert other.name == "tiny-shop/2"
    keys = [fine_tune._key(inputs, scenario, parent) for parent in (first, again, other, None)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_champion_that_does_not_fit(champion: str, shop: Scenario, tiny_llama: Path) -> None:
    encoder = shop.model.encoder.model_copy(update={"name": str(tiny_llama)})
    other = starting(shop, model=shop.model.model_copy(update={"encoder": encoder}))
    with pytest.raises(
        ModelError, match=r"the encoder of tiny-shop/1 is '.*bert', the scenario names '.*llama'; set"
    ):
        find_champion(other, champion)
    other = starting(shop, split=shop.split.model_copy(update={"seed": 1}))
    said = "tiny-shop/1 learned under another split, so it may know rows of this test part; set split as it was, or"
    with pytest.raises(ModelError, match=said):
        find_champion(other, champion)
