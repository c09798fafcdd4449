"""mtrec ensemble: from two registered models to a third one, and what is said when it cannot be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mtrec import tracking
from mtrec.config import Scenario, load_scenario, parse_scenario
from mtrec.stages import fine_tune
from pipelines import cli
from pipelines.following import Following
from pipelines.preparing import prepare
from tests.unit.conftest import EVALUATION, GATE
from tests.unit.tiny_shop import DIALS, TASKS, save_bert, shop_scenario, shop_tables, words

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def main(here: Path, capsys: pytest.CaptureFixture[str]) -> Main:
    def call(*arguments: str) -> tuple[int, str, str]:
        code: Any = 0
        try:
            cli.main(arguments)
        except SystemExit as error:
            code = error.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


@pytest.fixture
def shop(here: Path) -> Path:
    """A scenario file of a tiny shop with a random encoder."""
    items = shop_tables(DIALS)[0].items
    vocabulary = words([*items["title"].drop_nulls(), *items["description"].drop_nulls()])
    tasks = {name: TASKS[name] for name in ("rating", "category", "next_item")}
    gate = {"floors": {"rating.rmse": 9.0}, "must_improve": False, "max_regression": 9.0}
    path = here / "shop.yaml"
    path.write_text(
        json.dumps(shop_scenario(save_bert(here / "bert", vocabulary), tasks=tasks, gate=gate).as_dict())
    )
    return path


def registered(here: Path, scenario: Scenario, seed: int) -> None:
    """Train on the scenario's data and register."""
    work = here / "work"
    if not work.exists():
        work.mkdir()
        prepare(scenario, None, work, Following(Console(quiet=True)))
    raw = scenario.as_dict()
    raw["training"]["seed"] = seed
    own = parse_scenario(raw)
    outputs = fine_tune.Outputs(model=work / f"model{seed}", losses=work / "losses.jsonl")
    fine_tune.run(fine_tune.Inputs(dataset=work / "dataset"), outputs, own)
    files = {"evaluation": json.dumps(EVALUATION), "gate": json.dumps(GATE), "report": "<p>"}
    for name, text in files.items():
        (work / name).write_text(text)
    lineage = {"data_version": "v1", "code_revision": "r1", "parameters_hash": own.digest, "image": "local"}
    tracking.register(
        outputs.model,
        scenario=own,
        lineage={**lineage, "pipeline_run": f"run{seed}"},
        **{name: work / name for name in files},
    )


@pytest.mark.slow
def test_two_models_become_a_third_that_is_judged_and_registered(here: Path, shop: Path, main: Main) -> None:
    scenario = load_scenario(shop)
    for seed in (1, 2):
        registered(here, scenario, seed)
    members = ["tiny-shop-candidate/1", "tiny-shop-candidate/2"]
    code, out, err = main("ensemble", *members, "--scenario", str(shop), "--fit")
    assert (code, err) == (0, "")
    assert "tiny-shop-candidate version 3" in out
    assert "together" in out
    version = tracking.show_model("tiny-shop-candidate/3")
    assert version.tags["members"] == "tiny-shop-candidate/1, tiny-shop-candidate/2"
    assert version.tags["champion_compared"] == "tiny-shop/1"
    assert version.gate == "pass"
    assert "Ensemble of: `tiny-shop-candidate/1, tiny-shop-candidate/2`" in version.card
    (folder,) = (here / ".mtrec" / "runs").iterdir()
    assert folder.name.startswith("tiny-shop-ensemble-")
    report = (folder / "report.html").read_text()
    assert "tiny-shop-candidate/1 + tiny-shop-candidate/2" in report
    assert {path.name for path in folder.iterdir()} >= {
        "evaluation.json",
        "gate.json",
        "registration.json",
        "log.txt",
    }
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{here}/.mtrec/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model("models:/tiny-shop-candidate/3")
        (answer,) = model.predict([{"user_id": None, "history": [], "num_items": 3}])
    finally:
        mlflow.set_tracking_uri(None)
    assert len(answer.item_ids) == 3
    # The same again is the same version; other members or shares are another one.
    code, out, err = main("ensemble", *members, "--scenario", str(shop), "--fit")
    assert (code, err) == (0, "")
    assert "tiny-shop-candidate version 3, which this data, code and scenario had already" in " ".join(
        out.replace("│", " ").split()
    )
    code, out, err = main("ensemble", *members, "--scenario", str(shop))
    assert (code, err) == (0, "")
    assert "tiny-shop-candidate version 4" in out
    _refusals(main, shop, members)


def _refusals(main: Main, shop: Path, members: list[str]) -> None:
    wrong: list[tuple[list[str], int, str]] = [
        (
            [*members, "tiny-shop-candidate/9"],
            2,
            "tiny-shop-candidate/9: no such version (known: tiny-",
        ),
        ([members[0], members[0]], 2, "tiny-shop-candidate/1: named twice"),
        (members[:1], 2, "an ensemble has at least two members"),
        ([*members, "--set", "source.options.seed=9"], 2, "was trained on other data, its vocabularies differ"),
        ([*members, "--set", "gate.floors={rating.rmse: 0.001}"], 3, "the gate refused the ensemble: rating.rmse"),
        ([members[0], "tiny-shop-candidate/3"], 2, "tiny-shop-candidate/3: an ensemble itself"),
    ]
    for arguments, code, message in wrong:
        found, out, err = main("ensemble", *arguments, "--scenario", str(shop))
        assert (found, err.count("\n")) == (code, 1), (out, err)
        assert err.startswith("mtrec: ")
        assert message in err
    assert tracking.show_model("tiny-shop-candidate@candidate").version == "4"


def test_without_a_registry_nothing_is_made(here: Path, main: Main) -> None:
    shutil.rmtree(here / ".mtrec", ignore_errors=True)
    code, out, err = main("ensemble", "a/1", "b/2")
    assert (code, out) == (2, "")
    assert err == "mtrec: a/1: no such registered model (known: none); 'mtrec run' registers one\n"
    assert list(here.iterdir()) == []
