"""The distillation benchmark: all models answer the same test part, and the tables say what was lost."""

import json
from pathlib import Path

import pytest

from benchmarks import distil
from mtrec.config import Scenario


def test_the_results_and_their_tables(small: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = small.training.model_copy(update={"epochs": 1})
    distillation = small.distillation.model_copy(update={"epochs": 1})
    scenario = small.model_copy(update={"training": training, "distillation": distillation})
    results = list(distil.measure(scenario, None, [1]))
    assert [r["model"] for r in results] == ["teacher", "student of 1", "1 layers alone"]
    assert all(set(r["metrics"]) == set(results[0]["metrics"]) for r in results)
    assert results[1]["about"]["layers"] == {"teacher": 2, "student": 1}
    path = tmp_path / "runs.jsonl"
    path.write_text(
        "".join(json.dumps({"data": "shop", "seed": s, "torch": "2"} | r) + "\n" for s in (0, 1) for r in results)
    )
    distil.main(["--table", str(path)])
    text = capsys.readouterr().out
    assert "**shop**, seeds 0, 1, torch 2" in text
    assert (
        "| task | metric | teacher | student of 1 | loss (each seed) | 1 layers alone | loss (each seed) |" in text
    )
    assert "| student of 1 | 1 of 2 |" in text


def test_a_loss_is_positive_where_the_student_is_worse() -> None:
    up, down = ({"value": 0.5, "higher_is_better": better} for better in (True, False))
    assert distil.loss(up, up | {"value": 0.45}) == pytest.approx(0.1)
    assert distil.loss(down, down | {"value": 0.45}) == pytest.approx(-0.1)


def test_absent_data_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTREC_DATA", str(tmp_path))
    with pytest.raises(SystemExit):
        distil.main(["--data", "movielens-latest-small"])
    assert "no such folder: " in capsys.readouterr().err
