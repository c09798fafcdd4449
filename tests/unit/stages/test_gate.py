"""The gate stage: an evaluation to a verdict and a report."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Gate, Scenario
from mtrec.errors import ConfigError, RunError
from mtrec.stages import gate


def run(folder: Path, shop_run: Path, scenario: Scenario, **inputs: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "evaluation": shop_run / "evaluation.json",
        "losses": shop_run / "losses.jsonl",
        "lineage": {"data_version": "abc", "image": "local"},
    }
    return gate.run(
        gate.Inputs(**(given | inputs)),
        gate.Outputs(gate=folder / "gate.json", report=folder / "report.html"),
        scenario,
    )


def with_gate(scenario: Scenario, **settings: Any) -> Scenario:
    return scenario.model_copy(update={"gate": Gate(**settings)})


def test_the_decision_is_written_and_said(shop_run: Path) -> None:
    written = json.loads((shop_run / "gate.json").read_text())
    assert written == json.loads((shop_run / "said.json").read_text())["gate"]
    assert set(written) == {"verdict", "rules", "champion"}
    assert written["verdict"] in ("pass", "fail")
    assert written["rules"]
    for rule in written["rules"]:
        assert set(rule) == {"rule", "task", "metric", "kind", "value", "threshold", "verdict", "why"}
    assert (written["verdict"] == "pass") == all(rule["verdict"] == "pass" for rule in written["rules"])


def test_the_report_is_one_page_that_names_the_verdict(shop_run: Path, shop: Scenario) -> None:
    page = (shop_run / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert 'src="http' not in page
    assert shop.name in page
    for name in shop.tasks:
        assert name in page
    compared = [line for line in (shop_run / "losses.jsonl").read_text().splitlines() if '"kind": "tasks"' in line]
    assert f"compared at {len(compared)} training steps only" in page


@pytest.mark.parametrize(("floor", "verdict"), [(100.0, "pass"), (0.001, "fail")])
def test_floors_of_the_scenario_decide(
    floor: float, verdict: str, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    scenario = with_gate(shop, floors={"rating.rmse": floor}, must_improve=False)
    decision = run(tmp_path, shop_run, scenario)
    assert decision["verdict"] == verdict
    assert [rule["kind"] for rule in decision["rules"]] == ["floor"]
    assert json.loads((tmp_path / "gate.json").read_text()) == decision
    assert (tmp_path / "report.html").is_file()


def test_a_floor_on_nothing_measured_leaves_nothing(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    scenario = with_gate(shop, floors={"rating.auc": 0.5})
    with pytest.raises(ConfigError, match=r"gate\.floors\.rating\.auc: not measured; task rating has rmse"):
        run(tmp_path, shop_run, scenario)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluation", "losses", "validation"])
@pytest.mark.parametrize("content", [None, "", "{broken"])
def test_an_unreadable_input_is_named_and_nothing_is_written(
    name: str, content: str | None, shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    path = tmp_path / "in" / f"{name}.json"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    if name == "losses" and content == "":
        run(tmp_path / "out", shop_run, shop, losses=path)  # a run without a step has no line
        assert (tmp_path / "out" / "report.html").is_file()
        return
    with pytest.raises(RunError) as caught:
        run(tmp_path / "out", shop_run, shop, **{name: path})
    assert str(path) in str(caught.value)
    assert "run the stage that writes it again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
