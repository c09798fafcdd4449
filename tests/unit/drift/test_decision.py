"""Retrain or skip, as a table of cases; every rule is told in each of them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mtrec.config import Retraining
from mtrec.drift.decision import Known, decide
from mtrec.drift.windows import Statistic, Window

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = Retraining(
    windows=3, drifted_windows=2, min_rows=100, cool_down_hours=24, budget=2, budget_days=10, max_age_days=60
)
GUARDS = [
    "the new data passes its checks",
    "no retraining is under way",
    "not trained already on the same data, settings, image and code beside the same champion",
    "enough new interactions",
    "rest after the last attempt",
    "budget of 10 days",
    "a start from the champion takes over no forgotten user",
]
DRIFT, AGE = "drift in 2 of the last 3 windows", "age of the champion's data"


def windows(pattern: str) -> list[Window]:
    """One window per letter, oldest first: d drifted, . did not."""
    found = []
    for letter in pattern:
        statistic = Statistic(
            name="items.category", value=0.4, by_chance=0.1, probability=0.0, limit=0.05,
            drifted=letter == "d", why="",
        )  # fmt: skip
        found.append(Window(start=NOW, end=NOW, num_rows=500, statistics=[statistic]))
    return found


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


KNOWN = Known(
    now=NOW, champion_until=ago(days=21), data_problems=[], windows=windows("..."), new_rows=1500, attempts=[]
)

CASES: list[tuple[str, dict[str, Any], str, str, set[str]]] = [
    ("nothing drifted", {}, "skip", "nothing has drifted enough", {DRIFT, AGE}),
    (
        "drift now",
        {"windows": windows(".dd")},
        "retrain",
        "drift in 2 of the last 3 windows (items.category)",
        {AGE},
    ),
    ("drift with a gap", {"windows": windows("d.d")}, "retrain", "drift in 2 of the last 3 windows", {AGE}),
    ("once is not enough", {"windows": windows("..d")}, "skip", "nothing has drifted enough", {DRIFT, AGE}),
    ("long ago", {"windows": windows("dd..d")}, "skip", "nothing has drifted enough", {DRIFT, AGE}),
    ("too few windows", {"windows": windows("d")}, "skip", "nothing has drifted enough", {DRIFT, AGE}),
    ("two of two", {"windows": windows("dd")}, "retrain", "drift in 2 of the last 2 windows", {AGE}),
    ("no window yet", {"windows": []}, "skip", "nothing has drifted enough", {DRIFT, AGE}),
    ("old", {"champion_until": ago(days=60)}, "retrain", "the champion's data is 60.0 days old", {DRIFT}),
    (
        "old and drifted",
        {"champion_until": ago(days=61), "windows": windows("ddd")},
        "retrain",
        "; the champ",
        set(),
    ),
    (
        "bad data never trains",
        {"data_problems": ["items: no title", "x"], "windows": windows("ddd"), "champion_until": ago(days=99)},
        "skip",
        "2 critical failures of the data: items: no title",
        {GUARDS[0]},
    ),
    (
        "one problem",
        {"data_problems": ["broken"]},
        "skip",
        "1 critical failure of the data: broken",
        {GUARDS[0], DRIFT, AGE},
    ),
    (
        "one at a time",
        {"windows": windows("ddd"), "under_way": "training of shop (a host)"},
        "skip",
        "training of shop (a host) is under way already",
        {GUARDS[1], AGE},
    ),
    (
        "never twice",
        {"windows": windows("ddd"), "trained_in": "shop-1", "new_rows": 1},
        "skip",
        "run shop-1 did just this already",
        {GUARDS[2], GUARDS[3], AGE},
    ),
    (
        "too few rows",
        {"windows": windows("ddd"), "new_rows": 99},
        "skip",
        "99 new interactions, at least 100",
        {GUARDS[3], AGE},
    ),
    ("just enough rows", {"windows": windows("ddd"), "new_rows": 100}, "retrain", "drift", {AGE}),
    (
        "resting",
        {"windows": windows("ddd"), "attempts": [ago(hours=23.9)]},
        "skip",
        "last attempt 23.9 hours ago, the rest is 24",
        {GUARDS[4], AGE},
    ),
    ("rested", {"windows": windows("ddd"), "attempts": [ago(hours=24)]}, "retrain", "drift", {AGE}),
    (
        "attempts in the future do not count",
        {"windows": windows("ddd"), "attempts": [NOW + timedelta(hours=1)]},
        "retrain",
        "drift",
        {AGE},
    ),
    (
        "spent",
        {"windows": windows("ddd"), "attempts": [ago(days=9), ago(days=2)]},
        "skip",
        "2 of 2 attempts within 10 days are spent",
        {GUARDS[5], AGE},
    ),
    (
        "forgotten users are not taken over",
        {"windows": windows("ddd"), "forgotten": "learned from 1 user who was forgotten on 2026-02-01 since"},
        "skip",
        "the champion learned from 1 user who was forgotten on 2026-02-01 since; set training.start to pretrained",
        {GUARDS[6], AGE},
    ),
    (
        "spent long ago",
        {"windows": windows("ddd"), "attempts": [ago(days=10), ago(days=2)]},
        "retrain",
        "drift",
        {AGE},
    ),
]


@pytest.mark.parametrize(
    ("changes", "verdict", "reason", "broken"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_cases(changes: dict[str, Any], verdict: str, reason: str, broken: set[str]) -> None:
    decision = decide(replace(KNOWN, **changes), SETTINGS)
    assert decision.verdict == verdict
    assert reason in decision.reason
    assert [rule.rule for rule in decision.rules] == [*GUARDS, DRIFT, AGE]
    assert {rule.rule for rule in decision.rules if not rule.holds} == broken


def test_every_rule_has_value_and_threshold() -> None:
    known = replace(KNOWN, windows=windows(".dd"), attempts=[ago(days=2)])
    told = json.loads(json.dumps(decide(known, SETTINGS).as_dict()))
    assert told["at"] == NOW.isoformat()
    values = {rule["rule"]: (rule["value"], rule["threshold"]) for rule in told["rules"]}
    assert values == {
        GUARDS[0]: (0, 0), GUARDS[1]: (None, None), GUARDS[2]: (None, None), GUARDS[3]: (1500, 100),
        GUARDS[4]: (48.0, 24.0), GUARDS[5]: (1, 2), GUARDS[6]: (None, None), DRIFT: (2, 2), AGE: (21.0, 60.0),
    }  # fmt: skip


def test_age_alone_trains_only_where_asked() -> None:
    decision = decide(
        replace(KNOWN, champion_until=ago(days=900)), SETTINGS.model_copy(update={"max_age_days": None})
    )
    assert decision.verdict == "skip"
    assert [rule.rule for rule in decision.rules] == [*GUARDS, DRIFT]


def test_no_budget_never_trains() -> None:
    decision = decide(replace(KNOWN, windows=windows("ddd")), SETTINGS.model_copy(update={"budget": 0}))
    assert (decision.verdict, decision.reason) == ("skip", "0 of 0 attempts within 10 days are spent")


def test_windows_of_bad_data_are_not_counted() -> None:
    decision = decide(replace(KNOWN, data_problems=["broken"], windows=[]), SETTINGS)
    assert {rule.rule: rule.why for rule in decision.rules}[DRIFT] == "not looked at: the data failed its checks"


def test_value_and_words_are_rounded_alike() -> None:
    decision = decide(replace(KNOWN, champion_until=ago(days=571.5519)), SETTINGS)
    age = {rule.rule: rule for rule in decision.rules}[AGE]
    assert age.value == 571.6
    assert age.why.startswith("the champion's data is 571.6 days old")
