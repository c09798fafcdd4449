"""A replay decides at the end of every window, and a retraining moves what the champion knows."""

from datetime import timedelta
from itertools import pairwise

import polars as pl

from mtrec.config import Retraining
from mtrec.data.contract import Tables
from mtrec.drift.replay import Step, replay
from mtrec.drift.statistics import Column, Timeline
from tests.unit.drift.test_statistics import busy, day

SETTINGS = Retraining(
    window_days=7, min_rows=100, windows=3, drifted_windows=2, cool_down_hours=24, reference_windows=4
)


def replayed(share_of_red: dict[int, float], settings: Retraining = SETTINGS, until: float = 28) -> list[Step]:
    timeline, _ = busy(share_of_red)
    interactions = timeline.rows.select("user_id", "item_id", "event", "timestamp", "colour")
    tables = Tables(
        users=interactions.select(pl.col("user_id").unique()),
        items=pl.DataFrame({"item_id": ["i"], "title": ["x"]}),
        interactions=interactions,
    )

    def columns(timeline: Timeline) -> dict[str, Column]:
        return {"colour": Column(values=timeline.rows["colour"], kind="category")}

    end = day(7 * (max(share_of_red) + 1))
    return list(replay(tables, columns, settings, day(until), end))


def test_one_decision_per_window_and_none_without_drift() -> None:
    steps = replayed(dict.fromkeys(range(10), 0.3))
    assert [step.decision.at for step in steps] == [day(28 + 7 * n) for n in range(1, 7)]
    assert {step.decision.verdict for step in steps} == {"skip"}
    assert {step.until for step in steps} == {day(28)}
    assert [step.window.end for step in steps if step.window] == [step.decision.at for step in steps]


def test_after_a_lasting_change_it_trains_until_the_reference_has_learned_it() -> None:
    steps = replayed(dict.fromkeys(range(6), 0.2) | dict.fromkeys(range(6, 18), 0.7))
    verdicts = [step.decision.verdict for step in steps]
    assert verdicts[:3] == ["skip", "skip", "skip"]  # no drift, no drift, once
    assert verdicts[3] == "retrain"  # twice
    assert steps[4].until == day(28 + 4 * 7) == steps[3].decision.at
    assert steps[4].decision.rules[3].value == 240  # rows since then
    assert 1 <= verdicts.count("retrain") <= 3
    assert set(verdicts[-4:]) == {"skip"}


def test_attempts_count_towards_cool_down_and_budget() -> None:
    changing = {week: 0.1 if week % 2 else 0.9 for week in range(16)}
    settings = SETTINGS.model_copy(update={"reference_windows": 1, "windows": 1, "drifted_windows": 1})
    often = sum(step.decision.verdict == "retrain" for step in replayed(changing, settings))
    assert often > 5
    rested = replayed(changing, settings.model_copy(update={"cool_down_hours": 24.0 * 21}))
    trained = [step.decision.at for step in rested if step.decision.verdict == "retrain"]
    assert len(trained) > 1
    assert min(b - a for a, b in pairwise(trained)) >= timedelta(days=21)
    spent = replayed(changing, settings.model_copy(update={"budget": 2, "budget_days": 1000.0}))
    assert sum(step.decision.verdict == "retrain" for step in spent) == 2
    assert "2 of 2 attempts" in spent[-1].decision.reason


def test_a_window_in_which_nothing_happened_has_none() -> None:
    shares = {week: 0.3 for week in range(9) if week != 5}
    steps = replayed(shares)
    assert [step.window is None for step in steps] == [False, True, False, False, False]
    told = steps[1].as_dict()
    assert told["window"] is None
    assert (told["verdict"], told["until"]) == ("skip", day(28).isoformat())
    assert steps[0].as_dict()["window"]["num_rows"] == 240
