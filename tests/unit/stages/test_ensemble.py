"""The ensemble stage: what it joins and refuses, and that its folder is a model like any other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario, parse_scenario
from mtrec.data.dataset import Dataset
from mtrec.errors import ModelError
from mtrec.models.ensemble import Ensemble
from mtrec.models.store import load_model
from mtrec.progress import listening
from mtrec.serving.predictor import Predictor
from mtrec.stages import ensemble, evaluate, fine_tune
from mtrec.stages.parents import find_champion, find_teacher


def train(shop_run: Path, folder: Path, scenario: Scenario) -> Path:
    outputs = fine_tune.Outputs(model=folder, losses=folder.with_suffix(".jsonl"))
    fine_tune.run(fine_tune.Inputs(dataset=shop_run / "dataset"), outputs, scenario)
    return folder


@pytest.fixture(scope="module")
def second(shop_run: Path, shop: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of other settings on the same data."""
    raw = shop.as_dict()
    raw["model"] |= {"width": 24, "sharing": "mmoe"}
    raw["training"] |= {"seed": 5}
    raw["tasks"]["rating"]["weight"] = 0.5
    return train(shop_run, tmp_path_factory.mktemp("second") / "model", parse_scenario(raw))


@pytest.fixture(scope="module")
def joined(
    shop_run: Path, shop: Scenario, second: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("joined") / "model"
    return folder, join(shop_run, shop, folder, shop_run / "model", second)


def join(shop_run: Path, scenario: Scenario, folder: Path, *members: Path, fit: bool = False) -> dict[str, Any]:
    given = [ensemble.Member(name=f"shop-candidate/{n}", folder=path) for n, path in enumerate(members, 1)]
    inputs = ensemble.Inputs(dataset=shop_run / "dataset", members=given, fit=fit)
    return ensemble.run(inputs, ensemble.Outputs(model=folder), scenario)


def test_members_count_the_same_and_the_skills_are_told(
    joined: tuple[Path, dict[str, Any]], shop: Scenario
) -> None:
    said = joined[1]
    assert said["members"] == ["shop-candidate/1", "shop-candidate/2"]
    assert said["shares"] == {name: [0.5, 0.5] for name in shop.tasks}
    assert set(said["together"]) == set(shop.tasks)
    assert [set(skills) for skills in said["alone"]] == [set(shop.tasks)] * 2


def test_the_skill_of_a_member_alone_is_what_its_training_said(
    joined: tuple[Path, dict[str, Any]], shop_run: Path
) -> None:
    lines = [json.loads(line) for line in (shop_run / "losses.jsonl").read_text().splitlines()]
    best = json.loads((shop_run / "model" / "training.json").read_text())["best_epoch"]
    (skills,) = [line["metrics"] for line in lines if line["kind"] == "valid" and line["epoch"] == best]
    assert joined[1]["alone"][0] == pytest.approx(skills, abs=2e-3)


def test_fitted_shares_are_never_worse_than_a_member_alone(
    shop_run: Path, shop: Scenario, second: Path, tmp_path: Path
) -> None:
    heard: list[float | None] = []
    with listening(lambda said: heard.append(said.fraction)):
        said = join(shop_run, shop, tmp_path / "model", shop_run / "model", second, fit=True)
    for task, shares in said["shares"].items():
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0
        assert said["together"][task] >= max(skills[task] for skills in said["alone"]) - 1e-9
    better = [task for task in shop.tasks if said["together"][task] > max(s[task] for s in said["alone"]) + 1e-6]
    assert better, "somewhere two are better than one"
    assert heard == sorted(heard, key=float)
    assert heard[-1] == 1.0
    loaded = load_model(tmp_path / "model").model
    assert isinstance(loaded, Ensemble)
    assert loaded.shares == said["shares"]


def test_the_folder_is_evaluated_like_any_model(
    joined: tuple[Path, dict[str, Any]], shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    outputs = evaluate.Outputs(evaluation=tmp_path / "evaluation.json", predictions=tmp_path / "predictions")
    inputs = evaluate.Inputs(dataset=shop_run / "dataset", model=joined[0], champion=False)
    evaluate.run(inputs, outputs, shop)
    found = json.loads(outputs.evaluation.read_text())
    assert found["model"]["members"] == ["shop-candidate/1", "shop-candidate/2"]
    assert found["model"]["sharing"] == "shared_bottom, mmoe"
    assert found["model"]["parameters"] == sum(found["model"]["parts"].values())
    single = json.loads((shop_run / "evaluation.json").read_text())
    for name, task in found["tasks"].items():
        assert task["num_examples"] == single["tasks"][name]["num_examples"]
        assert task["metrics"][task["primary"]]["before"] == pytest.approx(
            single["tasks"][name]["metrics"][task["primary"]]["before"], abs=1e-5
        )


def test_the_folder_answers_alone_and_holds_no_pickle(joined: tuple[Path, dict[str, Any]], shop_run: Path) -> None:
    folder = joined[0]
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".parquet"}
    assert len(list(folder.rglob("vectors.safetensors"))) == len(list(folder.rglob("memory"))) == 1
    predictor, alone = Predictor.load(folder), Predictor.load(shop_run / "model")
    user = Dataset.read(shop_run / "dataset").users["user_id"][0]
    ranked = predictor.recommend(user_id=user, num_items=5)
    assert len(ranked) == 5
    assert ranked != alone.recommend(user_id=user, num_items=5)
    assert set(predictor.score(predictor.item_ids[:3], user_id=user)) == {"rating", "like", "purchase"}
    assert predictor.recommend(history=predictor.item_ids[:2], num_items=3)
    assert predictor.recommend(num_items=3)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "ensemble.json").write_text("{"), r"ensemble\.json: not readable"),
        (
            lambda folder: (folder / "ensemble.json").write_text('{"members": [], "shares": {}}'),
            "not a share for each",
        ),
        (lambda folder: shutil.rmtree(folder / "members" / "1"), "members/1: not a model folder"),
    ],
)
def test_a_damaged_folder_is_named(
    joined: tuple[Path, dict[str, Any]], tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    shutil.copytree(joined[0], tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path / "model")


def test_an_ensemble_is_no_teacher(joined: tuple[Path, dict[str, Any]], shop: Scenario) -> None:
    scenario = changed(shop, distillation={"layers": 1, "teacher": str(joined[0])})
    with pytest.raises(ModelError, match=r"distillation\.teacher: \S+ is an ensemble; give the folder of one of"):
        find_teacher(scenario)


def test_an_ensemble_is_no_start(
    joined: tuple[Path, dict[str, Any]], shop: Scenario, uri: str, judged: Callable[..., dict[str, Path]]
) -> None:
    lineage = dict.fromkeys(("data_version", "code_revision", "parameters_hash", "image", "pipeline_run"), "x")
    tracking.register(joined[0], scenario=shop, lineage=lineage, tracking_uri=uri, **judged())
    with pytest.raises(ModelError, match=r"training\.start: tiny-shop/1 is an ensemble; make one of its members"):
        find_champion(changed(shop, training={"start": "champion"}), uri)


def changed(shop: Scenario, **sections: Any) -> Scenario:
    raw = shop.as_dict()
    for section, keys in sections.items():
        raw[section] = raw[section] | keys
    return parse_scenario(raw)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"tasks": {"extra": {"type": "binary", "on": "pair", "label": "interactions.rating", "threshold": 5}}},
            "shop-candidate/1: has the tasks rating, like, .* scenario tiny-shop has others: .*extra",
        ),
        (
            {"tasks": {"like": {"type": "binary", "on": "pair", "label": "interactions.rating", "threshold": 5}}},
            "shop-candidate/1: task like asks something else there",
        ),
        ({"split": {"test": 0.2}}, "shop-candidate/1: was trained with other settings under 'split'"),
        ({"items": {"text": "{title}"}}, "shop-candidate/1: was trained with other settings under 'items'"),
    ],
)
def test_members_of_other_settings_are_refused(
    shop_run: Path, shop: Scenario, second: Path, tmp_path: Path, sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        join(shop_run, changed(shop, **sections), tmp_path / "model", shop_run / "model", second)
    assert not (tmp_path / "model").exists()


def test_members_of_other_data_and_ensembles_are_refused(
    joined: tuple[Path, dict[str, Any]], shop_run: Path, shop: Scenario, second: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="shop-candidate/2: an ensemble itself; give its members instead"):
        join(shop_run, shop, tmp_path / "model", second, joined[0])
    other = tmp_path / "other"
    shutil.copytree(second, other)
    encoding = json.loads((other / "encoding.json").read_text())
    encoding["item_counts"][0] += 1
    (other / "encoding.json").write_text(json.dumps(encoding))
    with pytest.raises(ModelError, match="shop-candidate/2: was trained on other data, its vocabularies differ"):
        join(shop_run, shop, tmp_path / "model", second, other)
    scenario = json.loads((second / "scenario.json").read_text())
    scenario["model"]["history"] = 9
    shutil.copy(second / "encoding.json", other / "encoding.json")
    (other / "scenario.json").write_text(json.dumps(scenario))
    with pytest.raises(ModelError, match=r"model\.history; shop-candidate/1: 20, shop-candidate/2: 9"):
        join(shop_run, shop, tmp_path / "model", second, other)
