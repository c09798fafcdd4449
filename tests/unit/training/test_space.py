"""The space of a search: what may be searched, its points, and the settings they stand for."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mtrec.config import Scenario, load_scenario, parse_scenario, read_yaml
from mtrec.errors import ConfigError
from mtrec.training import space
from tests.unit.tiny_shop import shop_scenario

LR = {"low": 0.001, "high": 0.1, "log": True}


def searching(parameters: dict[str, Any], **search: Any) -> Scenario:
    return shop_scenario("unused", search={"space": parameters, **search})


@pytest.mark.parametrize("name", ["ecommerce", "video"])
def test_the_shipped_spaces_are_whole_and_hold_the_weight_of_every_task(name: str, repository: Path) -> None:
    scenario = load_scenario(repository / "scenarios" / f"{name}.yaml")
    space.check_space(scenario)
    assert {f"tasks.{task}.weight" for task in scenario.tasks} <= set(scenario.search.space)
    assert {"training.lr", "training.lr_ids", "model.dropout", "model.id_dropout"} <= set(scenario.search.space)
    assert space.moved(scenario) == []


def test_the_space_in_the_documentation_is_one(repository: Path) -> None:
    text = (repository / "docs" / "search.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    raw = load_scenario(repository / "scenarios" / "ecommerce.yaml").as_dict() | read_yaml(block)
    scenario = parse_scenario(raw)
    space.check_space(scenario)
    assert len(scenario.search.space) == 4
    for setting in re.findall(r"`--set ([^`]+)`", text):
        (word,) = shlex.split(setting)
        space.check_space(load_scenario(repository / "scenarios" / "ecommerce.yaml", [word]))


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "search.space is empty; name the settings to try"),
        ({"training.lrr": LR}, "training.lrr: training has no 'lrr' (known: start, epochs, "),
        ({"tasks.nope.weight": LR}, "tasks.nope.weight: tasks has no 'nope' (known: rating, "),
        (
            {"tasks.rating.label": LR},
            "tasks.rating.label: only settings under model and training and tasks.<name>.",
        ),
        ({"split.valid": LR}, "split.valid: only settings under model and training"),
        ({"items.text": {"choices": ["a"]}}, "items.text: only settings under model and training"),
        ({"model.encoder": {"choices": ["a"]}}, "model.encoder: a section, name one setting in it"),
        ({"model.encoder.lora.rank": LR}, "model.encoder.lora is not set in the scenario; set it there first"),
        ({"model.item_ids": LR}, "model.item_ids: holds no number, give 'choices'"),
        ({"training.balancing": LR}, "training.balancing: holds no number, give 'choices'"),
        ({"training.epochs": {"low": 1, "high": 2.5}}, "training.epochs: whole numbers only"),
        ({"training.lr": {"low": -1, "high": 1}}, "training.lr: Input should be greater than 0 (got -1.0)"),
        ({"model.dropout": {"low": 0, "high": 1}}, "model.dropout: Input should be less than 1 (got 1.0)"),
        ({"model.user_heads": {"choices": [2, 3]}}, "model: width 16 is not divisible by user_heads 3"),
        ({"training.balancing": {"choices": ["best"]}}, "training.balancing: Input should be 'static'"),
        ({"training.lrr": LR, "model.depth": LR}, "has no 'lrr' (known: "),
        ({"training.lrr": LR, "model.depth": LR}, "has no 'depth' (known: "),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_one_line(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space.check_space(searching(parameters))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"training.lr": LR}, "training.lr: a grid needs 'choices', or 'low', 'high' and 'step'"),
        ({"training.epochs": {"low": 1, "high": 8, "log": True}}, "training.epochs: a grid needs 'choices'"),
        ({"training.seed": {"low": 0, "high": 10_000}}, "a grid of 10,001 points, at most 10,000"),
    ],
)
def test_a_grid_without_an_end_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space.check_space(searching(parameters, sampler="grid"))
    assert said in str(caught.value)


def test_optuna_gets_the_space_in_its_words() -> None:
    found = space.distributions(
        searching(
            {
                "training.lr": LR,
                "training.epochs": {"low": 2, "high": 9, "step": 3},
                "model.dropout": {"low": 0, "high": 0.5, "step": 0.2},
                "tasks.rating.weight": {"low": 1, "high": 3},
                "training.balancing": {"choices": ["static", "famo"]},
            }
        )
    )
    assert found == {
        "training.lr": FloatDistribution(0.001, 0.1, log=True),
        "training.epochs": IntDistribution(2, 8, step=3),
        "model.dropout": FloatDistribution(0.0, 0.4, step=0.2),
        "tasks.rating.weight": FloatDistribution(1.0, 3.0),
        "training.balancing": CategoricalDistribution(["static", "famo"]),
    }


@pytest.mark.parametrize(
    ("path", "parameter", "value"),
    [
        ("training.lr", LR, 0.002),
        ("training.lr", {"low": 0.01, "high": 0.1}, 0.01),
        ("training.lr", {"low": 0.0001, "high": 0.001}, 0.001),
        ("training.epochs", {"low": 1, "high": 9}, 2),
        ("training.epochs", {"low": 5, "high": 9}, 5),
        ("model.dropout", {"low": 0, "high": 0.5, "step": 0.15}, 0.15),
        ("model.dropout", {"choices": [0.5, 0.3, 0.0]}, 0.3),
        ("training.balancing", {"choices": ["famo", "static"]}, "static"),
        ("training.balancing", {"choices": ["famo", "mgda"]}, "famo"),
        ("model.item_ids", {"choices": [False, True]}, True),
        ("model.encoder.revision", {"choices": ["main", None]}, None),
    ],
)
def test_trial_0_is_the_scenario_or_the_nearest_point(path: str, parameter: dict[str, Any], value: Any) -> None:
    scenario = searching({path: parameter})
    found = space.start(scenario)
    assert found == {path: value}
    assert type(found[path]) is type(value)
    present = {"training.lr": 0.002, "training.epochs": 2, "model.dropout": 0.2}.get(path, value)
    assert bool(space.moved(scenario)) == (value != present or value == "famo")


def test_a_grid_has_every_point_once_in_an_order_that_its_seed_draws() -> None:
    parameters = {
        "model.dropout": {"low": 0, "high": 0.3, "step": 0.1},
        "training.epochs": {"low": 1, "high": 3},
        "training.balancing": {"choices": ["static", "famo"]},
    }
    points = space.grid(searching(parameters, sampler="grid"))
    wanted = {(d, e, b) for d in (0.0, 0.1, 0.2, 0.3) for e in (1, 2, 3) for b in ("static", "famo")}
    assert len(points) == len(wanted) == 24
    assert {tuple(point.values()) for point in points} == wanted
    assert points == space.grid(searching(parameters, sampler="grid"))
    assert points != space.grid(searching(parameters, sampler="grid", seed=1))


def test_suggestions_are_rounded_but_stay_in_their_range() -> None:
    scenario = searching(
        {"training.lr": {"low": 0.001, "high": 0.0345678}, "training.epochs": {"low": 1, "high": 9}}
    )
    assert space.settled(scenario, {"training.lr": 0.0234567, "training.epochs": 3}) == {
        "training.lr": 0.02346,
        "training.epochs": 3,
    }
    assert space.settled(scenario, {"training.lr": 0.0345677, "training.epochs": 3})["training.lr"] == 0.0345678


def test_a_point_becomes_settings_that_give_the_same_scenario(tmp_path: Path) -> None:
    point: space.Point = {
        "training.lr": 6.069e-05,
        "training.epochs": 7,
        "training.balancing": "famo",
        "model.item_ids": False,
        "model.encoder.revision": None,
        "model.encoder.name": "true",
        "tasks.rating.weight": 0.25,
    }
    scenario = shop_scenario("unused")
    changed = space.at(scenario, point)
    assert (changed.training.lr, changed.training.epochs, changed.tasks["rating"].weight) == (6.069e-05, 7, 0.25)
    assert (scenario.training.epochs, scenario.tasks["rating"].weight) == (2, 1.0), "the scenario itself stays"
    file = tmp_path / "shop.yaml"
    file.write_text(json.dumps(scenario.as_dict()))
    assert load_scenario(file, space.as_settings(point)) == changed
    assert space.as_settings(point)[:3] == [
        "training.lr=6.069e-05",
        "training.epochs=7",
        "training.balancing=famo",
    ]


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="width 18 is not divisible by user_heads 4"):
        space.at(shop_scenario("unused"), {"model.width": 18, "model.user_heads": 4})


def test_differences_of_spaces_are_told() -> None:
    first, second = (
        {path: p.model_dump() for path, p in parse_scenario(searching(s).as_dict()).search.space.items()}
        for s in ({"training.lr": LR}, {"training.lr": {"low": 0, "high": 1}, "model.dropout": {"choices": [0]}})
    )
    assert space.changed(first, first) == ""
    told = "training.lr: {low: 0.001, high: 0.1, log: true} there, {low: 0.0, high: 1.0} here"
    assert space.changed(first, second) == told
    assert space.changed({}, second).startswith("training.lr: nothing there, {low: 0.0")
