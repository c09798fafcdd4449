"""The gate: every rule passes and fails as told."""

import copy
import json
import math
from typing import Any

import pytest

from mtrec.config import Gate
from mtrec.errors import ConfigError
from mtrec.evaluation.gate import decide


def measured(
    better: bool, before: float | None, after: float | None, champion: float | None = None
) -> dict[str, Any]:
    return {"higher_is_better": better, "before": before, "after": after, "champion": champion}


def evaluation(**changes: Any) -> dict[str, Any]:
    """Two tasks that improved; keywords replace a primary metric (rmse, auc), its comparison or its improvement."""
    comparisons = {name: changes.get(f"{name}_comparison") for name in ("rmse", "auc")}
    gains = {
        "rmse": changes.get("rmse_improvement", difference(-0.3, -0.4, -0.2, "better")),
        "auc": changes.get("auc_improvement", difference(0.2, 0.1, 0.3, "better")),
    }
    found: dict[str, Any] = {
        "champion": changes.get("champion"),
        "tasks": {
            "rating": {
                "primary": "rmse",
                "metrics": {
                    "rmse": changes.get("rmse", measured(False, 1.2, 0.9)),
                    "mae": measured(False, 1.0, 0.7),
                },
                "improvement": gains["rmse"],
                "comparison": comparisons["rmse"],
            },
            "purchase": {
                "primary": "auc",
                "metrics": {"auc": changes.get("auc", measured(True, 0.5, 0.7)), "ece": measured(False, 0.1, 0.2)},
                "improvement": gains["auc"],
                "comparison": comparisons["auc"],
            },
        },
    }
    return found


def difference(value: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    return {"metric": "x", "difference": value, "low": low, "high": high, "confidence": 0.95, "verdict": verdict}


def rule(decision: dict[str, Any], kind: str, metric: str) -> dict[str, Any]:
    (found,) = [r for r in decision["rules"] if r["kind"] == kind and r["metric"] == metric]
    return dict(found)


# ------------------------------------------------------------------------------------------------ floors


@pytest.mark.parametrize(
    ("floor", "threshold", "verdict", "words", "why"),
    [
        ("rating.rmse", 1.0, "pass", "at most 1", "0.9 < 1"),
        ("rating.rmse", 0.9, "pass", "at most 0.9", "0.9 = 0.9"),
        ("rating.rmse", 0.8, "fail", "at most 0.8", "0.9 > 0.8"),
        ("purchase.auc", 0.6, "pass", "at least 0.6", "0.7 > 0.6"),
        ("purchase.auc", 0.7, "pass", "at least 0.7", "0.7 = 0.7"),
        ("purchase.auc", 0.8, "fail", "at least 0.8", "0.7 < 0.8"),
        ("purchase.ece", 0.1, "fail", "at most 0.1", "0.2 > 0.1"),
        ("rating.mae", 0.75, "pass", "at most 0.75", "0.7 < 0.75"),
    ],
)
def test_floors_hold_in_the_metrics_direction(
    floor: str, threshold: float, verdict: str, words: str, why: str
) -> None:
    decision = decide(evaluation(), Gate(floors={floor: threshold}))
    found = rule(decision, "floor", floor.partition(".")[2])
    assert found["verdict"] == verdict
    assert found["rule"] == f"{floor} must be {words}"
    assert found["why"] == why
    assert found["threshold"] == threshold
    assert decision["verdict"] == verdict


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_no_number_reaches_no_floor(value: float | None) -> None:
    decision = decide(evaluation(auc=measured(True, 0.5, value)), Gate(floors={"purchase.auc": 0.1}))
    assert rule(decision, "floor", "auc")["verdict"] == "fail"
    assert decision["verdict"] == "fail"


def test_a_floor_on_something_unmeasured_is_a_mistake_in_the_scenario() -> None:
    with pytest.raises(ConfigError, match=r"gate.floors.rating.auc: not measured; task rating has rmse, mae"):
        decide(evaluation(), Gate(floors={"rating.auc": 0.5}))


def test_a_floor_of_a_task_without_examples_fails_and_says_so() -> None:
    """Nobody can say that the floor is reached, and the scenario is not to blame."""
    given = evaluation()
    given["tasks"]["rating"]["metrics"] = {}
    decision = decide(given, Gate(floors={"rating.rmse": 1.0}))
    found = rule(decision, "floor", "rmse")
    assert (found["verdict"], found["value"]) == ("fail", None)
    assert "not measured" in found["why"]


# ------------------------------------------------------------------------------------------------ improvement


WORSE = difference(0.01, 0.004, 0.02, "worse")
CHANCE = difference(0.01, -0.01, 0.03, "same")
BETTER = difference(-0.3, -0.4, -0.2, "better")


@pytest.mark.parametrize(
    ("before", "after", "found", "verdict"),
    [
        (1.2, 0.9, BETTER, "pass"),
        (0.9, 0.91, CHANCE, "pass"),
        (0.9, 0.91, WORSE, "fail"),
        (None, 0.9, BETTER, "fail"),
        (1.2, None, BETTER, "fail"),
        (1.2, 0.9, None, "fail"),
    ],
)
def test_what_got_worse_beyond_chance_fails(
    before: float | None, after: float | None, found: dict[str, Any] | None, verdict: str
) -> None:
    changed = evaluation(rmse=measured(False, before, after), rmse_improvement=found)
    decision = decide(changed, Gate())
    made = rule(decision, "improvement", "rmse")
    assert made["verdict"] == verdict
    assert made["rule"] == "rating.rmse must be no worse than before fine-tuning, beyond chance"
    assert decision["verdict"] == verdict


def test_the_reason_shows_the_interval() -> None:
    found = decide(evaluation(rmse=measured(False, 0.9, 0.91), rmse_improvement=WORSE), Gate())
    assert (
        rule(found, "improvement", "rmse")["why"] == "0.91 after, 0.9 before, difference +0.0100 [+0.0040, +0.0200]"
    )


def test_only_primary_metrics_must_improve() -> None:
    decision = decide(evaluation(), Gate())  # ece got worse
    assert decision["verdict"] == "pass"
    assert {r["metric"] for r in decision["rules"]} == {"rmse", "auc"}


def test_improvement_can_be_switched_off() -> None:
    gate = Gate(must_improve=False, floors={"purchase.auc": 0.5})
    decision = decide(evaluation(rmse=measured(False, 0.5, 0.9)), gate)
    assert decision["verdict"] == "pass"
    assert [r["kind"] for r in decision["rules"]] == ["floor"]


def test_a_gate_that_asks_for_nothing_passes_nobody() -> None:
    decision = decide(evaluation(), Gate(must_improve=False))
    (found,) = decision["rules"]
    assert (decision["verdict"], found["verdict"], found["kind"]) == ("fail", "fail", "nothing")
    assert found["why"] == "the scenario asks for nothing: set gate.floors or gate.must_improve: true"


@pytest.mark.parametrize("tasks", [{}, {"rating": {"primary": "rmse", "metrics": {}, "comparison": None}}])
def test_a_candidate_without_a_measured_task_fails(tasks: dict[str, Any]) -> None:
    decision = decide({"champion": None, "tasks": tasks}, Gate())
    (found,) = decision["rules"]
    assert (decision["verdict"], found["kind"]) == ("fail", "nothing")
    assert "nothing was measured" in found["why"]
    assert "split.test" in found["why"]


def test_a_task_without_examples_has_no_rule() -> None:
    given = evaluation()
    given["tasks"]["rating"]["metrics"] = {}
    decision = decide(given, Gate())
    assert [r["task"] for r in decision["rules"]] == ["purchase"]


# ------------------------------------------------------------------------------------------------ the champion


@pytest.mark.parametrize(
    ("metric", "champion", "after", "interval", "verdict"),
    [
        # AUC 0.70 against 0.80: 12.5 % behind, and the interval agrees.
        ("auc", 0.8, 0.7, (-0.1, -0.15, -0.05, "worse"), "fail"),
        # As far behind, but the interval reaches zero.
        ("auc", 0.8, 0.7, (-0.1, -0.25, 0.05, "same"), "pass"),
        # The interval agrees, but 1.25 % is within the tolerance of 2 %.
        ("auc", 0.8, 0.79, (-0.01, -0.015, -0.005, "worse"), "pass"),
        ("auc", 0.6, 0.7, (0.1, 0.05, 0.15, "better"), "pass"),
        ("rmse", 0.8, 0.9, (0.1, 0.05, 0.15, "worse"), "fail"),
        ("rmse", 0.8, 0.9, (0.1, -0.05, 0.25, "same"), "pass"),
        ("rmse", 0.8, 0.81, (0.01, 0.005, 0.015, "worse"), "pass"),
        ("rmse", 1.0, 0.9, (-0.1, -0.15, -0.05, "better"), "pass"),
    ],
)
def test_a_regression_counts_when_it_is_large_and_certain(
    metric: str, champion: float, after: float, interval: tuple[float, float, float, str], verdict: str
) -> None:
    better = metric == "auc"
    changes = {metric: measured(better, 0.1 if better else 2.0, after, champion)}
    comparison = {f"{metric}_comparison": difference(*interval)}
    named = {"name": "shop", "version": "3"}
    decision = decide(evaluation(**changes, **comparison, champion=named), Gate(max_regression=0.02))
    found = rule(decision, "no_regression", metric)
    assert found["verdict"] == verdict
    assert found["threshold"] == champion
    assert "2% behind the champion" in found["rule"]
    assert f"[{interval[1]:+.4f}, {interval[2]:+.4f}]" in found["why"]
    assert decision["verdict"] == verdict
    assert decision["champion"] == named


@pytest.mark.parametrize("other", [[], ["split.seed is 1 there and 0 here"]])
def test_a_loss_to_a_champion_that_may_know_the_test_rows_says_so(other: list[str]) -> None:
    """Whoever holds against it has no ground to complain; whoever does not learns why and what to do."""
    changes = {
        "auc": measured(True, 0.1, 0.7, 0.8),
        "auc_comparison": difference(-0.1, -0.15, -0.05, "worse"),
        "rmse": measured(False, 1.2, 0.9, 1.0),
        "rmse_comparison": difference(-0.1, -0.15, -0.05, "better"),
    }
    named = {"name": "shop", "version": "3", "tasks": ["rating", "purchase"], "other_split": other}
    decision = decide(evaluation(**changes, champion=named), Gate())
    held, lost = (rule(decision, "no_regression", metric) for metric in ("rmse", "auc"))
    assert (held["verdict"], lost["verdict"]) == ("pass", "fail")
    for words in ("another split (split.seed is 1 there and 0 here)", "take the alias 'champion' off version 3"):
        assert words not in held["why"]
        assert (words in lost["why"]) == bool(other)


def test_the_tolerance_is_relative_to_the_champion() -> None:
    changes = {"auc": measured(True, 0.1, 0.7, 0.8), "auc_comparison": difference(-0.1, -0.15, -0.05, "worse")}
    assert decide(evaluation(**changes), Gate(max_regression=0.13))["verdict"] == "pass"
    for tolerance, words in ((0.13, "13%"), (0.025, "2.5%"), (0.004, "0.4%"), (0, "0%")):
        found = rule(decide(evaluation(**changes), Gate(max_regression=tolerance)), "no_regression", "auc")
        assert f"must not fall more than {words} behind" in found["rule"]
    assert decide(evaluation(**changes), Gate(max_regression=0.12))["verdict"] == "fail"


@pytest.mark.parametrize("lost", ["after", "champion"])
def test_a_candidate_that_is_no_number_regresses_and_a_champion_that_is_none_stops_nobody(lost: str) -> None:
    values = {"after": 0.9, "champion": 0.9} | {lost: None}
    given = evaluation(
        rmse=measured(False, 1.2, values["after"], values["champion"]),
        rmse_comparison=difference(math.nan, math.nan, math.nan, "worse"),
    )
    decision = decide(given, Gate(must_improve=False))
    assert rule(decision, "no_regression", "rmse")["verdict"] == ("fail" if lost == "after" else "pass")


CHAMPION = {"name": "shop", "version": "3", "tasks": ["rating", "region", "purchase"]}
SAME = {f"{name}_comparison": difference(0.0, -0.1, 0.1, "same") for name in ("rmse", "auc")}


def test_a_task_of_the_champion_must_not_be_dropped() -> None:
    decision = decide(evaluation(champion=CHAMPION, **SAME), Gate())
    (found,) = [r for r in decision["rules"] if r["kind"] == "dropped"]
    assert (found["task"], found["verdict"]) == ("region", "fail")
    assert found["rule"] == "the champion's task region must not be dropped"
    for words in ("shop version 3 has it", "declare tasks.region again", "gate.allow_dropped_tasks: true"):
        assert words in found["why"]
    assert decision["verdict"] == "fail"
    assert {r["verdict"] for r in decision["rules"] if r["kind"] != "dropped"} == {"pass"}


def test_a_task_may_be_dropped_on_purpose_and_the_gate_says_so() -> None:
    decision = decide(evaluation(champion=CHAMPION, **SAME), Gate(allow_dropped_tasks=True))
    (found,) = [r for r in decision["rules"] if r["kind"] == "dropped"]
    assert found["verdict"] == "pass"
    assert "on purpose" in found["why"]
    assert decision["verdict"] == "pass"
    # It is no measured value, so it alone is no ground for a pass.
    alone = decide(evaluation(champion=CHAMPION), Gate(allow_dropped_tasks=True, must_improve=False))
    assert alone["verdict"] == "fail"
    assert [r["kind"] for r in alone["rules"]] == ["nothing", "dropped", "incomparable", "incomparable"]


@pytest.mark.parametrize("tasks", [["rating"], ["rating", "purchase"], []])
def test_new_tasks_are_welcome(tasks: list[str]) -> None:
    decision = decide(evaluation(champion={**CHAMPION, "tasks": tasks}, **SAME), Gate())
    assert decision["verdict"] == "pass"
    assert {"dropped", "incomparable"}.isdisjoint(r["kind"] for r in decision["rules"])


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize(
    ("metrics", "reason", "mend"),
    [
        (True, "declared differently than in shop version 3", "declare tasks.purchase as there, or set"),
        (False, "it has no test example", "give more data, or raise split.test, or set"),
    ],
)
def test_a_task_that_cannot_be_compared_with_the_champion_s_fails(
    metrics: bool, reason: str, mend: str, allowed: bool
) -> None:
    """Declared differently, a task would escape every comparison and its name would still be there."""
    given = evaluation(champion={**CHAMPION, "tasks": ["rating", "purchase"]}, **SAME)
    given["tasks"]["purchase"] |= {"comparison": None} | ({} if metrics else {"metrics": {}, "improvement": None})
    decision = decide(given, Gate(allow_dropped_tasks=allowed))
    (found,) = [r for r in decision["rules"] if r["kind"] == "incomparable"]
    assert found["rule"] == "the champion's task purchase must be compared"
    assert found["why"].startswith(reason)
    assert found["verdict"] == decision["verdict"] == ("pass" if allowed else "fail")
    assert (mend in found["why"]) == (not allowed)
    assert "gate.allow_dropped_tasks" in found["why"]


# ------------------------------------------------------------------------------------------------ the whole


def test_one_failed_rule_fails_the_candidate_and_every_rule_is_listed() -> None:
    given = evaluation(auc=measured(True, 0.9, 0.7), auc_improvement=WORSE)
    gate = Gate(floors={"rating.rmse": 1.0, "purchase.auc": 0.6})
    decision = decide(given, gate)
    assert [(r["kind"], r["task"], r["verdict"]) for r in decision["rules"]] == [
        ("floor", "rating", "pass"),
        ("floor", "purchase", "pass"),
        ("improvement", "rating", "pass"),
        ("improvement", "purchase", "fail"),
    ]
    assert decision["verdict"] == "fail"
    for found in decision["rules"]:
        assert set(found) == {"rule", "task", "metric", "kind", "value", "threshold", "verdict", "why"}
    assert json.loads(json.dumps(decision, allow_nan=False)) == decision


def test_deciding_changes_nothing_and_decides_the_same_again() -> None:
    given = evaluation()
    before = copy.deepcopy(given)
    first = decide(given, Gate())
    assert given == before
    assert decide(given, Gate()) == first
