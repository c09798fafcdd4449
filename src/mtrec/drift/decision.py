"""Retrain or skip: a pure function of what is known, which names every rule with its value and threshold.

The order is that of what forbids more: data that failed its checks never trains, whatever has drifted; then a
retraining that is under way or was made already, too few new rows, rest after the last attempt, the budget, and
forgotten users in the champion that training would start from; last comes whether there is a reason at all, drift
in N of the last M windows or a champion that is too old. Every rule is worked out and told, also where an earlier
one has decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from mtrec.config import Retraining
from mtrec.drift.windows import Window

Verdict = Literal["retrain", "skip"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of the decision."""

    rule: str
    """What it asks, in plain words."""
    value: float | int | str | None
    threshold: float | int | str | None
    holds: bool
    why: str
    kind: Literal["guard", "reason"]
    """All guards must hold; of the reasons one is enough."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What `decide` found."""

    verdict: Verdict
    reason: str
    """One line for people."""
    rules: list[Rule]
    at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "at": self.at.isoformat(),
            "rules": [vars(rule) for rule in self.rules],
        }


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a decision is made from."""

    now: datetime
    champion_until: datetime
    """Time of the last interaction that the champion learned from."""
    data_problems: Sequence[str]
    """Critical failures of the data's validation; none: it is sound."""
    windows: Sequence[Window]
    """Complete windows since then, oldest first."""
    new_rows: int
    """Interactions since then."""
    attempts: Sequence[datetime]
    """When retraining was started, whether it succeeded or failed."""
    under_way: str | None = None
    """Who is training the scenario just now."""
    trained_in: str | None = None
    """The finished run that trained on just this: data, parameters, image, code and champion."""
    forgotten: str | None = None
    """What the champion that training would start from has of forgotten users; None: nothing, or it would not."""


def decide(known: Known, settings: Retraining) -> Decision:
    """Decide whether to retrain.

    Args:
        known: data quality, windows, new rows and attempts.
        settings: thresholds.
    """
    rules = [*_guards(known, settings), *_reasons(known, settings)]
    guard = next((rule for rule in rules if rule.kind == "guard" and not rule.holds), None)
    reasons = [rule for rule in rules if rule.kind == "reason" and rule.holds]
    if guard is not None:
        return Decision(verdict="skip", reason=guard.why, rules=rules, at=known.now)
    if not reasons:
        return Decision(verdict="skip", reason="nothing has drifted enough", rules=rules, at=known.now)
    return Decision(verdict="retrain", reason="; ".join(rule.why for rule in reasons), rules=rules, at=known.now)


def _guards(known: Known, settings: Retraining) -> Iterator[Rule]:
    count = len(known.data_problems)
    first = f": {known.data_problems[0]}" if count else ""
    yield Rule(
        rule="the new data passes its checks",
        value=count,
        threshold=0,
        holds=not count,
        why=f"{count} critical failure{'' if count == 1 else 's'} of the data{first}" if count else "sound",
        kind="guard",
    )
    yield Rule(
        rule="no retraining is under way",
        value=known.under_way,
        threshold=None,
        holds=known.under_way is None,
        why="none is" if known.under_way is None else f"{known.under_way} is under way already",
        kind="guard",
    )
    yield Rule(
        rule="not trained already on the same data, settings, image and code beside the same champion",
        value=known.trained_in,
        threshold=None,
        holds=known.trained_in is None,
        why="it was not" if known.trained_in is None else f"run {known.trained_in} did just this already",
        kind="guard",
    )
    yield Rule(
        rule="enough new interactions",
        value=known.new_rows,
        threshold=settings.min_rows,
        holds=known.new_rows >= settings.min_rows,
        why=f"{known.new_rows:,} new interactions, at least {settings.min_rows:,} are needed",
        kind="guard",
    )
    past = [at for at in known.attempts if at <= known.now]
    hours = (known.now - max(past)) / timedelta(hours=1) if past else None
    yield Rule(
        rule="rest after the last attempt",
        value=None if hours is None else round(hours, 1),
        threshold=settings.cool_down_hours,
        holds=hours is None or hours >= settings.cool_down_hours,
        why="no attempt yet"
        if hours is None
        else f"last attempt {hours:.1f} hours ago, the rest is {settings.cool_down_hours:g}",
        kind="guard",
    )
    spent = sum(at > known.now - timedelta(days=settings.budget_days) for at in past)
    yield Rule(
        rule=f"budget of {settings.budget_days:g} days",
        value=spent,
        threshold=settings.budget,
        holds=spent < settings.budget,
        why=f"{spent} of {settings.budget} attempts within {settings.budget_days:g} days are spent",
        kind="guard",
    )
    yield Rule(
        rule="a start from the champion takes over no forgotten user",
        value=known.forgotten,
        threshold=None,
        holds=known.forgotten is None,
        why="it takes over none"
        if known.forgotten is None
        else f"the champion {known.forgotten}; set training.start to pretrained, or approve a model without them",
        kind="guard",
    )


def _reasons(known: Known, settings: Retraining) -> Iterator[Rule]:
    looked_at = known.windows[-settings.windows :]
    drifted = [window for window in looked_at if window.drifted]
    unseen = known.data_problems and not looked_at
    names = list(dict.fromkeys(name for window in drifted for name in window.drifted))
    yield Rule(
        rule=f"drift in {settings.drifted_windows} of the last {settings.windows} windows",
        value=len(drifted),
        threshold=settings.drifted_windows,
        holds=len(drifted) >= settings.drifted_windows,
        why="not looked at: the data failed its checks"
        if unseen
        else f"drift in {len(drifted)} of the last {len(looked_at)} windows"
        + (f" ({', '.join(names)})" if names else ""),
        kind="reason",
    )
    if settings.max_age_days is not None:
        days = (known.now - known.champion_until) / timedelta(days=1)
        yield Rule(
            rule="age of the champion's data",
            value=round(days, 1),
            threshold=settings.max_age_days,
            holds=days >= settings.max_age_days,
            why=f"the champion's data is {days:.1f} days old, the limit is {settings.max_age_days:g}",
            kind="reason",
        )
