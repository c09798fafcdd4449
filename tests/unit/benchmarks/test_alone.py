"""Joint against single-task training: every task is trained alone too, and chance is told from loss."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import alone
from mtrec.config import Scenario
from mtrec.data.cleaning import clean
from mtrec.data.sources import read_source


@pytest.fixture
def brief(small: Scenario) -> Scenario:
    """Two tasks, one epoch."""
    training = small.training.model_copy(update={"epochs": 1})
    tasks = {name: small.tasks[name] for name in ("rating", "next_item")}
    return small.model_copy(update={"training": training, "tasks": tasks})


def test_qualities_and_costs_and_their_tables(
    brief: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = clean(read_source(brief, None))[0]
    results = list(alone.qualities(tables, brief))
    assert [(r["trained"], set(r["metrics"])) for r in results] == [
        ("all tasks", {"rating", "next_item"}),
        ("rating", {"rating"}),
        ("next_item", {"next_item"}),
    ]
    costs = list(alone.costs(tables, brief, 1))
    assert all(r["step_seconds"] > 0 for r in costs)
    path = tmp_path / "runs.jsonl"
    lines = [{"data": "shop", "seed": s} | r for s in (0, 1) for r in (*results, *costs)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    alone.main(["--table", str(path)])
    text = capsys.readouterr().out
    assert "**shop**: cost of a step" in text
    assert "| rating | rmse ↓ |" in text
    assert "| 2 |" in text


def test_only_what_is_beyond_the_spread_of_seeds_is_called_worse() -> None:
    assert alone.verdict(np.array([-0.010, -0.011, -0.012])) == "worse"
    assert alone.verdict(np.array([0.010, 0.011, 0.012])) == "better"
    assert alone.verdict(np.array([-0.030, 0.020, -0.010])) == "within chance"
    assert alone.verdict(np.array([-0.5])) == "one seed"


def test_absent_data_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTREC_DATA", str(tmp_path))
    with pytest.raises(SystemExit):
        alone.main(["--data", "films"])
    assert "no such folder: " in capsys.readouterr().err
