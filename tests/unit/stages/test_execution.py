import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mtrec.config import Scenario, load_scenario
from mtrec.errors import ConfigError, DataError
from mtrec.progress import read_line, report
from mtrec.stages import execution
from mtrec.stages.execution import check_data_version, lineage, read_failure, run_component, run_stage


@dataclass(frozen=True, kw_only=True)
class Inputs:
    tables: Path
    data: Path | None
    facts: dict[str, Any]
    name: str
    now: str | None = None
    champion: bool = True


@dataclass(frozen=True, kw_only=True)
class Outputs:
    summary: Path


GIVEN = {"tables": "in/tables", "data": "", "facts": '{"a": [1, 2.0]}', "name": "x"}


def _stage(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> list[tuple[Any, ...]]:
    """Put a stage called `gate` in place that remembers its arguments."""
    calls: list[tuple[Any, ...]] = []

    def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
        calls.append((inputs, outputs, scenario))
        report("gate", 0.5, "half")
        if error:
            raise error
        return {"verdict": "pass"}

    stage = ModuleType("stage")
    stage.Inputs, stage.Outputs, stage.run = Inputs, Outputs, run  # type: ignore[attr-defined]
    monkeypatch.setattr(execution.importlib, "import_module", lambda name: stage)
    return calls


def test_text_becomes_the_types_of_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _stage(monkeypatch)
    scenario = load_scenario("ecommerce")
    summary = run_stage("gate", inputs=GIVEN, outputs={"summary": "out.json"}, scenario=scenario)
    assert summary == {"verdict": "pass"}
    inputs, outputs, given = calls[0]
    assert inputs == Inputs(tables=Path("in/tables"), data=None, facts={"a": [1, 2.0]}, name="x", now=None)
    assert outputs == Outputs(summary=Path("out.json"))
    assert given is scenario


def test_text_becomes_true_or_false(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _stage(monkeypatch)
    for text in ("true", "false"):
        given = {**GIVEN, "champion": text}
        run_stage("gate", inputs=given, outputs={"summary": "o"}, scenario=load_scenario("ecommerce"))
    assert [call[0].champion for call in calls] == [True, False]


def test_a_missing_optional_field_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _stage(monkeypatch)
    given = {key: value for key, value in GIVEN.items() if key != "data"}
    run_stage("gate", inputs=given, outputs={"summary": "o"}, scenario=load_scenario("ecommerce"))
    assert calls[0][0].data is None


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "reason"),
    [
        ("polish", {}, {}, "stage 'polish': unknown; choose one of ingest, validate"),
        ("gate", {**GIVEN, "colour": "red"}, {"summary": "o"}, "gate: inputs: unknown colour"),
        ("gate", {"tables": "t"}, {"summary": "o"}, "gate: inputs: 'facts' is missing"),
        ("gate", {**GIVEN, "tables": ""}, {"summary": "o"}, "gate: inputs 'tables' is empty"),
        ("gate", {**GIVEN, "facts": "{"}, {"summary": "o"}, "gate: inputs 'facts' is not valid JSON"),
        (
            "gate",
            {**GIVEN, "champion": "no"},
            {"summary": "o"},
            "gate: inputs 'champion' is 'no': write true or false",
        ),
        ("gate", GIVEN, {}, "gate: outputs: 'summary' is missing"),
    ],
)
def test_a_wrong_call_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, name: str, inputs: dict[str, str], outputs: dict[str, str], reason: str
) -> None:
    _stage(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        run_stage(name, inputs=inputs, outputs=outputs, scenario=load_scenario("ecommerce"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_component_gets_the_whole_scenario_back_from_its_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = _stage(monkeypatch)
    scenario = load_scenario("ecommerce", ["source.options.num_users=7"])
    text = json.dumps(scenario.as_dict())
    assert run_component("gate", inputs=GIVEN, outputs={"summary": "o"}, scenario=text) == {"verdict": "pass"}
    assert calls[0][2] == scenario
    assert calls[0][2].digest == scenario.digest
    progress = read_line(capsys.readouterr().err)
    assert progress is not None
    assert (progress.fraction, progress.message) == (0.5, "half")


@pytest.mark.parametrize(
    ("error", "code", "expected", "message"),
    [
        (DataError("data/items.csv: no title\nsecond line"), 2, True, "data/items.csv: no title second line"),
        (ZeroDivisionError("a bug"), 1, False, "ZeroDivisionError: a bug"),
    ],
)
def test_a_failing_component_writes_one_marked_line_and_exits_with_the_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    expected: bool,
    message: str,
) -> None:
    _stage(monkeypatch, error)
    text = json.dumps(load_scenario("ecommerce").as_dict())
    with pytest.raises(SystemExit) as caught:
        run_component("gate", inputs=GIVEN, outputs={"summary": "o"}, scenario=text)
    assert caught.value.code == code
    lines = capsys.readouterr().err.splitlines()
    failures = [failure for failure in map(read_failure, lines) if failure]
    assert len(failures) == 1
    assert (failures[0].message, failures[0].exit_code, failures[0].expected) == (message, code, expected)
    assert type(error).__name__ in failures[0].traceback
    assert lines[-1] == f"mtrec: {message}"


def test_a_broken_scenario_in_a_component_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_component("ingest", inputs={}, outputs={}, scenario='{"name": "shop"}')
    assert caught.value.code == 2
    assert "tasks: Field required" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "mtrec-error", "mtrec-error {", 'mtrec-error {"message": "x"}'])
def test_other_lines_hold_no_failure(line: str) -> None:
    assert read_failure(line) is None


def test_the_lineage_names_the_scenario_by_its_digest() -> None:
    scenario = load_scenario("ecommerce")
    found = json.loads(lineage(json.dumps(scenario.as_dict()), "1.dir", "abc", "image", "run-1"))
    assert found == {
        "data_version": "1.dir",
        "code_revision": "abc",
        "parameters_hash": scenario.digest,
        "image": "image",
        "pipeline_run": "run-1",
    }


def test_a_dataset_of_other_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    check_data_version({"data_version": "1.dir"}, "1.dir")
    with pytest.raises(SystemExit) as caught:
        check_data_version({"data_version": "1.dir"}, "2.dir")
    assert caught.value.code == 1
    assert "made from data version 1.dir, this run ingested 2.dir" in capsys.readouterr().err
