"""The gate: a pure function from an evaluation to a verdict with every rule, its value and its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeGuard

from mtrec.config import Gate
from mtrec.errors import ConfigError
from mtrec.evaluation.metrics import higher_is_better


def decide(evaluation: dict[str, Any], gate: Gate) -> dict[str, Any]:
    """Judge a candidate.

    Rules, per task: absolute floors; the primary metric is no worse than before fine-tuning (worse: the bootstrap
    interval of the difference lies wholly on the worse side); the primary metric has not regressed against the
    champion (a regression is worse in that sense and exceeds `max_regression`, relative); every task of the
    champion is still there and was compared, unless `allow_dropped_tasks`. A floor of a task without test examples
    is not reached.
    Where no rule looks at a measured value there is no ground for a pass, and one more rule fails and says so.

    Args:
        evaluation: what the evaluate stage wrote.
        gate: the scenario's thresholds.

    Returns:
        `verdict` (pass or fail), `rules` (rule, task, metric, kind, value, threshold, verdict, why) and `champion`.

    Raises:
        ConfigError: a floor names a metric that its task does not have.
    """
    rules = [*_floors(evaluation, gate), *_improvements(evaluation, gate), *_regressions(evaluation, gate)]
    rules = [*(rules or [_nothing(evaluation)]), *_dropped(evaluation, gate), *_incomparable(evaluation, gate)]
    verdict = "pass" if all(rule["verdict"] == "pass" for rule in rules) else "fail"
    return {"verdict": verdict, "rules": rules, "champion": evaluation["champion"]}


def _floors(evaluation: dict[str, Any], gate: Gate) -> Iterator[dict[str, Any]]:
    for key, threshold in gate.floors.items():
        name, _, metric = key.partition(".")
        measured = evaluation["tasks"][name]["metrics"]
        if measured and metric not in measured:
            raise ConfigError(f"gate.floors.{key}: not measured; task {name} has {', '.join(measured)}")
        value = measured[metric]["after"] if measured else None
        better = higher_is_better(metric)
        ok = _usable(value) and (value >= threshold if better else value <= threshold)
        yield _rule(
            f"{key} must be at {'least' if better else 'most'} {threshold:g}",
            (name, metric, "floor"),
            value,
            threshold,
            ok,
            f"{_show(value)} {_sign(value, threshold)} {threshold:g}",
        )


def _improvements(evaluation: dict[str, Any], gate: Gate) -> Iterator[dict[str, Any]]:
    if not gate.must_improve:
        return
    for name, task in evaluation["tasks"].items():
        metric = task["primary"]
        if metric not in task["metrics"]:
            continue
        before, after, comparison = (
            task["metrics"][metric]["before"],
            task["metrics"][metric]["after"],
            task["improvement"],
        )
        ok = _usable(after) and _usable(before) and comparison is not None and comparison["verdict"] != "worse"
        yield _rule(
            f"{name}.{metric} must be no worse than before fine-tuning, beyond chance",
            (name, metric, "improvement"),
            after,
            before,
            ok,
            f"{_show(after)} after, {_show(before)} before{_difference(comparison)}",
        )


def _regressions(evaluation: dict[str, Any], gate: Gate) -> Iterator[dict[str, Any]]:
    """What holds against a champion that knows the test rows holds all the more; a failure says that it may."""
    named = evaluation["champion"] or {}
    unfair = ""
    if named.get("other_split"):
        unfair = (
            f"; the champion was trained on another split ({', '.join(named['other_split'])}), so it may have "
            "learned from these test rows: go back to its split, or take the alias 'champion' off version "
            f"{named['version']} of {named['name']} in MLflow, then nothing is compared with it"
        )
    for name, task in evaluation["tasks"].items():
        comparison = task["comparison"]
        if comparison is None:
            continue
        metric = task["primary"]
        champion, after = task["metrics"][metric]["champion"], task["metrics"][metric]["after"]
        ok = _usable(after)
        if ok and _usable(champion):
            sign = 1 if higher_is_better(metric) else -1
            loss = -sign * comparison["difference"] / max(abs(champion), 1e-12)
            ok = not (loss > gate.max_regression and comparison["verdict"] == "worse")
        yield _rule(
            f"{name}.{metric} must not fall more than {100 * gate.max_regression:.4g}% behind the champion",
            (name, metric, "no_regression"),
            after,
            champion,
            ok,
            f"{_show(after)} against {_show(champion)}{_difference(comparison)}{'' if ok else unfair}",
        )


def _dropped(evaluation: dict[str, Any], gate: Gate) -> Iterator[dict[str, Any]]:
    champion = evaluation["champion"] or {}
    for name in champion.get("tasks", []):
        if name in evaluation["tasks"]:
            continue
        why = (
            "dropped on purpose: gate.allow_dropped_tasks is true"
            if gate.allow_dropped_tasks
            else f"{champion['name']} version {champion['version']} has it and this candidate does not; declare "
            f"tasks.{name} again, or set gate.allow_dropped_tasks: true"
        )
        rule = f"the champion's task {name} must not be dropped"
        yield _rule(rule, (name, "", "dropped"), None, None, gate.allow_dropped_tasks, why)


def _incomparable(evaluation: dict[str, Any], gate: Gate) -> Iterator[dict[str, Any]]:
    """Tasks that both models have and that no rule compares: one must not win by asking something else."""
    champion = evaluation["champion"] or {}
    for name in champion.get("tasks", []):
        task = evaluation["tasks"].get(name)
        if task is None or task["comparison"] is not None:
            continue
        if task["metrics"]:
            why = f"declared differently than in {champion['name']} version {champion['version']}"
            mend = f"declare tasks.{name} as there"
        else:
            why, mend = "it has no test example", "give more data, or raise split.test"
        told = (
            f"{why}; allowed: gate.allow_dropped_tasks is true"
            if gate.allow_dropped_tasks
            else f"{why}; {mend}, or set gate.allow_dropped_tasks: true"
        )
        rule = f"the champion's task {name} must be compared"
        yield _rule(rule, (name, "", "incomparable"), None, None, gate.allow_dropped_tasks, told)


def _nothing(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The rule of a gate without any other."""
    if any(task["metrics"] for task in evaluation["tasks"].values()):
        why = "the scenario asks for nothing: set gate.floors or gate.must_improve: true"
    else:
        why = "no task has a test example, so nothing was measured: give more data, or raise split.test"
    return _rule("at least one measured value must be judged", ("", "", "nothing"), None, None, False, why)


def _rule(
    rule: str, about: tuple[str, str, str], value: float | None, threshold: float | None, ok: bool, why: str
) -> dict[str, Any]:
    task, metric, kind = about
    verdict = "pass" if ok else "fail"
    return {
        "rule": rule,
        "task": task,
        "metric": metric,
        "kind": kind,
        "value": value,
        "threshold": threshold,
        "verdict": verdict,
        "why": why,
    }


def _difference(comparison: dict[str, Any] | None) -> str:
    if comparison is None:
        return ""
    return f", difference {comparison['difference']:+.4f} [{comparison['low']:+.4f}, {comparison['high']:+.4f}]"


def _usable(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _show(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"


def _sign(value: float | None, threshold: float) -> str:
    if value is None or not math.isfinite(value):
        return "against"
    return "=" if value == threshold else (">" if value > threshold else "<")
