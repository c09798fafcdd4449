import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mtrec.evaluation import export

EVALUATION: dict[str, Any] = {
    "tasks": {
        "rating": {
            "metrics": {
                "rmse": {"before": 1.21, "after": 0.93, "champion": 0.95},
                "mae": {"before": 1.0, "after": 0.75, "champion": None},
            },
            "reliability": None,
        },
        "purchase": {
            "metrics": {"auc": {"before": 0.5, "after": None, "champion": None}},
            "reliability": {"ece": 0.1, "bins": [{"predicted": 0.05, "observed": 0.07, "count": 120}]},
        },
        "tags": {"metrics": {}, "reliability": None},
    }
}
LOSSES: list[dict[str, Any]] = [
    {"kind": "train", "step": 0, "loss": 3.0, "losses": {"rating": 1.0, "purchase": 2.0}},
    {"kind": "train", "step": 10, "loss": 2.5, "losses": {"rating": 0.5, "purchase": 2.0}},
    {"kind": "tasks", "step": 0, "tasks": ["rating", "purchase"], "norms": [1, 2], "cosines": [[1, 0.5], [0.5, 1]]},
    {"kind": "tasks", "step": 10, "tasks": ["rating", "purchase"], "norms": [1, 2], "cosines": [[1, 0], [0, 1]]},
    {"kind": "valid", "step": 10, "score": 0.6, "metrics": {"rating": 0.1}},
]


def table(path: Path) -> list[list[str]]:
    return list(csv.reader(path.open(encoding="utf-8")))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "losses.jsonl").write_text("\n".join(map(json.dumps, LOSSES)) + "\n")
    return tmp_path


def run(folder: Path) -> int:
    names = {
        "evaluation": "evaluation.json",
        "losses": "losses.jsonl",
        "metrics": "metrics.json",
        "plots": "plots",
    }
    return export.main([part for key, name in names.items() for part in (f"--{key}", str(folder / name))])


def test_metrics_and_plots_are_written(written: Path) -> None:
    assert run(written) == 0
    assert json.loads((written / "metrics.json").read_text()) == {
        "rating": {"rmse": 0.93, "mae": 0.75},
        "purchase": {},
    }
    plots = written / "plots"
    assert table(plots / "losses" / "rating.csv") == [["step", "value"], ["0", "1.0"], ["10", "0.5"]]
    assert table(plots / "losses" / "all tasks.csv") == [["step", "value"], ["0", "3.0"], ["10", "2.5"]]
    assert table(plots / "losses" / "validation score.csv") == [["step", "value"], ["10", "0.6"]]
    assert table(plots / "metrics" / "rating.csv") == [
        ["metric", "value"],
        ["rmse before", "1.21"],
        ["rmse after", "0.93"],
        ["rmse champion", "0.95"],
        ["mae before", "1.0"],
        ["mae after", "0.75"],
    ]
    assert table(plots / "reliability" / "purchase.csv") == [
        ["predicted", "observed", "count"],
        ["0.05", "0.07", "120"],
    ]
    assert table(plots / "cosines" / "rating.csv") == [["task", "value"], ["purchase", "0.25"]]
    assert table(plots / "cosines" / "purchase.csv") == [["task", "value"], ["rating", "0.25"]]
    assert {path.name for path in plots.rglob("*.csv")} == {
        *("rating.csv", "purchase.csv", "all tasks.csv", "validation score.csv")
    }


def test_a_run_that_compared_no_tasks_has_no_cosines(written: Path) -> None:
    lines = [line for line in LOSSES if line["kind"] != "tasks"]
    (written / "losses.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert run(written) == 0
    assert list((written / "plots" / "cosines").iterdir()) == []
    assert table(written / "plots" / "losses" / "validation score.csv") == [["step", "value"], ["10", "0.6"]]


def test_old_plots_do_not_stay(written: Path) -> None:
    run(written)
    (written / "plots" / "losses" / "gone.csv").write_text("step,value\n")
    run(written)
    assert not (written / "plots" / "losses" / "gone.csv").exists()


def test_broken_input_is_one_line(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (written / "losses.jsonl").write_text('{"kind": "train"\n')
    assert run(written) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"mtrec: {written}/losses.jsonl: not readable as JSON")
    assert said.count("\n") == 1
    assert not (written / "metrics.json").exists()
    (written / "evaluation.json").unlink()
    assert run(written) == 1
    assert "evaluation.json" in capsys.readouterr().err
