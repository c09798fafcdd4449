import io
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.results import RunResult, collect, mlflow_command, print_result, promotion
from pipelines.workspace import Run, callable_as


def _metric(before: float | None, after: float | None, better: bool, champion: float | None) -> dict[str, Any]:
    return {"higher_is_better": better, "before": before, "after": after, "champion": champion}


def _rule(task: str, verdict: str, kind: str = "floor") -> dict[str, Any]:
    return {"rule": f"{task} holds", "task": task, "kind": kind, "verdict": verdict, "why": "0.9 against 0.5"}


def _result(folder: Path, *, verdict: str = "pass", champion: float | None = None) -> RunResult:
    rating = _metric(1.21, 0.93, False, champion)
    next_item = _metric(None, 0.05, True, None)
    tasks = {
        "rating": {"primary": "rmse", "metrics": {"rmse": rating}},
        "next_item": {"primary": "ndcg@10", "metrics": {"ndcg@10": next_item}},
        "tags": {"primary": "micro_f1", "metrics": {}},
    }
    contents: dict[str, Any] = {
        "evaluation": {"scenario": "shop", "tasks": tasks},
        "gate": {"verdict": verdict, "rules": [_rule("rating", verdict), _rule("next_item", "pass")]},
        "validation": {
            "tables": {"items": {"quarantined": 3}, "users": {"quarantined": 0}},
            "warnings": ["items.price: 2 of 9 are zero"],
        },
    }
    if verdict == "pass":
        contents["registration"] = {
            "name": "shop-candidate",
            "version": "4",
            "created": False,
            "champion": True,
            "champion_version": "2",
        }
    made = folder / "made"
    made.mkdir()
    paths = {}
    for name, content in contents.items():
        paths[name] = made / name
        paths[name].write_text(json.dumps(content))
    paths["report"] = made / "report"
    paths["report"].write_text("<html></html>")
    paths["quarantine"] = made / "quarantine"
    paths["quarantine"].mkdir()
    (paths["quarantine"] / "items.parquet").write_bytes(b"rows")
    run = Run(name="shop-1", folder=folder / "runs" / "shop-1", outputs=folder / "outputs")
    return collect(run, paths, tracking_uri=f"sqlite:///{folder / '.mtrec' / 'mlflow.db'}", seconds=95.0)


def _shown(result: RunResult) -> str:
    output = io.StringIO()
    print_result(result, Console(file=output, width=140))
    return output.getvalue()


def test_the_artifacts_are_copied_for_people(tmp_path: Path) -> None:
    result = _result(tmp_path)
    assert result.report.read_text() == "<html></html>"
    assert (result.run.folder / "quarantine" / "items.parquet").read_bytes() == b"rows"
    assert json.loads((result.run.folder / "gate.json").read_text()) == result.gate


def test_the_table_has_everything_a_person_wants_to_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = _shown(_result(tmp_path))
    assert "shop · 1 min 35 s" in text
    rows = [line.strip("│ ").split() for line in text.splitlines()]
    assert ["rating", "rmse", "↓", "1.2100", "0.9300", "pass"] in rows
    assert ["next_item", "ndcg@10", "↑", "–", "0.0500", "pass"] in rows
    assert ["tags", "no", "test", "example"] in rows
    assert "pass, 2 of 2 rules hold" in text
    assert "shop-candidate version 4, which this data, code and scenario had already" in text
    assert "the champion: shop version 2" in text
    assert "3 items, in runs/shop-1/quarantine" in text
    assert "items.price: 2 of 9 are zero" in text
    assert "runs/shop-1/report.html" in text
    assert "mlflow ui --backend-store-uri sqlite:///.mtrec/mlflow.db" in text
    assert "Next" not in text, "the champion needs no promotion"
    assert "champion" not in text.split("Gate")[0], "no column without a champion"


@pytest.mark.parametrize(
    ("kind", "before", "champion", "verdict", "shown"),
    [
        ("improvement", 0.9, None, "same", "pass (within chance)"),
        ("improvement", 0.9, None, "worse", "pass"),
        ("improvement", 0.95, None, "same", "pass"),
        ("no_regression", 1.21, 0.9, "same", "pass (within chance)"),
        ("no_regression", 1.21, 0.9, "worse", "pass"),
        ("no_regression", 1.21, 0.95, "same", "pass"),
        ("floor", 0.9, 0.9, "same", "pass"),
    ],
)
def test_a_loss_that_passes_is_said_to_be_within_chance(
    kind: str, before: float, champion: float | None, verdict: str, shown: str, tmp_path: Path
) -> None:
    result = _result(tmp_path, champion=champion)
    rating = result.evaluation["tasks"]["rating"]
    rating["metrics"]["rmse"]["before"] = before
    rating["improvement" if kind == "improvement" else "comparison"] = {"verdict": verdict}
    result.gate["rules"][0] = _rule("rating", "pass", kind)
    (row,) = [line for line in _shown(result).splitlines() if "rmse" in line]
    assert row.strip("│ ").endswith(f"  {shown}")


def test_a_refusal_lists_every_reason_and_registers_nothing(tmp_path: Path) -> None:
    result = _result(tmp_path, verdict="fail", champion=0.91)
    text = _shown(result)
    assert not result.passed
    assert "rating holds: 0.9 against 0.5" in text
    assert "nothing: the gate refused this candidate" in text
    assert "champion" in text
    assert "0.9100" in text
    rows = [line.strip("│ ").split() for line in text.splitlines()]
    assert ["rating", "rmse", "↓", "1.2100", "0.9300", "0.9100", "fail"] in rows


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment's commands under the working directory, as with make; not on PATH."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("mtrec", "mlflow"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


@pytest.mark.parametrize("champion", ["2", None])
def test_a_later_candidate_says_who_stays_champion_and_how_to_promote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, champion: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _result(tmp_path)
    assert result.registration is not None
    result.registration.update(champion=False, champion_version=None)
    result.evaluation["champion"] = {"name": "shop", "version": "2"} if champion else None
    text = _shown(result)
    assert ("champion: shop version 2 stays; " if champion else "champion: there is none; ") in text
    box, _, command = text.partition("To make it the champion:\n")
    assert "approve this one with the command below" in box
    assert command.strip() == f"{callable_as('mtrec')} models approve shop-candidate/4 --why '…'"
    assert command.count("\n") == 1, "it must be copied in one piece"
    assert promotion(result) == command.strip()


def test_the_commands_work_where_the_environment_is_not_active(tmp_path: Path, scripts: Path) -> None:
    result = _result(tmp_path)
    assert "(.venv/bin/mtrec report open)" in _shown(result)
    assert ".venv/bin/mlflow ui --backend-store-uri sqlite:///.mtrec/mlflow.db" in _shown(result)
    assert callable_as("mtrec") == ".venv/bin/mtrec"
    assert callable_as("unheard-of") == "unheard-of"


def test_the_commands_are_short_where_the_environment_is_active(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(scripts))
    assert callable_as("mtrec") == "mtrec"


def test_how_to_open_mlflow(tmp_path: Path, scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(scripts))
    inside, outside = tmp_path / ".mtrec" / "mlflow.db", tmp_path.parent / "a b" / "mlflow.db"
    command = "mlflow ui --backend-store-uri"
    assert mlflow_command(f"sqlite:///{inside}") == f"{command} sqlite:///.mtrec/mlflow.db"
    assert mlflow_command(f"sqlite:///{outside}") == f"{command} 'sqlite:///{outside}'"
    assert mlflow_command("http://mlflow:5000") == "open http://mlflow:5000"
