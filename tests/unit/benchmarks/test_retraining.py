"""The retraining benchmark: all models answer the same new rows, and the tables compare them seed by seed."""

import json
from pathlib import Path

import pytest

from benchmarks import retraining
from mtrec.config import Scenario
from mtrec.data.sources import read_source

MODELS = ["champion", "full", "warm", "full, 1 epochs", "warm, 1 epochs"]


def test_the_results_and_their_tables(small: Scenario, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = small.training.model_copy(update={"epochs": 2})
    scenario = small.model_copy(update={"training": training})
    results = list(retraining.measure(scenario, known=16, weeks=25, fewer=1))
    assert [r["model"] for r in results] == MODELS
    assert all(set(r["metrics"]) == set(results[0]["metrics"]) for r in results)
    values = [r["metrics"]["next_item"]["value"] for r in results]
    assert len(set(values)) == len(values), "five trainings"
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps({"seed": s} | r) + "\n" for s in (0, 1) for r in results))
    retraining.main(["--table", str(path)])
    text = capsys.readouterr().out
    assert "Gain over the old champion on the new test part, seeds 0, 1" in text
    assert "| task | metric | champion | full | warm | full, 1 epochs | warm, 1 epochs |" in text
    assert "| task | metric | full | warm | full, 1 epochs | warm, 1 epochs |" in text
    assert "| full | " in text
    assert "| 1.00 (1.00, 1.00) |" in text


def test_the_champion_knows_the_first_weeks_only(small: Scenario) -> None:
    tables = read_source(small, None)
    early, late = (retraining._until(tables, weeks).interactions["timestamp"] for weeks in (16, 25))
    assert early.min() == late.min()
    assert 15 * 7 < (early.max() - early.min()).days < 16 * 7  # type: ignore[operator, union-attr]
    assert len(early) < len(late) < len(tables.interactions)


def test_a_gain_is_positive_where_the_value_is_better() -> None:
    up, down = ({"value": 0.5, "higher_is_better": better} for better in (True, False))
    assert retraining.gain(up, up | {"value": 0.55}) == pytest.approx(0.1)
    assert retraining.gain(down, down | {"value": 0.55}) == pytest.approx(-0.1)


def test_an_unfinished_seed_is_left_out_and_weeks_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert retraining.table([{"model": "champion", "seed": 0}, {"model": "full", "seed": 1}]).startswith("no seed")
    with pytest.raises(SystemExit):
        retraining.main(["--known", "30"])
    assert "--known 30 and --weeks 26: 0 < known < weeks ≤ 26" in capsys.readouterr().err
