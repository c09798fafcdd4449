"""What the decision would have been over past windows: one step at the end of every window.

A champion that knows everything until the start is taken as given. Where the decision says retrain, the champion's
data end moves there at once, as if training took no time and the new model was approved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mtrec.config import Retraining
from mtrec.data.contract import Tables
from mtrec.drift.decision import Decision, Known, decide
from mtrec.drift.statistics import Column, Timeline, windows_of
from mtrec.drift.windows import Window

Columns = Callable[[Timeline], dict[str, Column]]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision."""

    decision: Decision
    until: datetime
    """The last interaction that the champion knew."""
    window: Window | None
    """The window that has just ended; None where nothing happened in it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        window = self.window.as_dict() if self.window else None
        return {**self.decision.as_dict(), "until": self.until.isoformat(), "window": window}


def replay(
    tables: Tables, columns: Columns, settings: Retraining, start: datetime, end: datetime
) -> Iterator[Step]:
    """Decide at the end of every window from `start` to `end`.

    Args:
        tables: sound contract tables.
        columns: what is compared, e.g. `columns_of` of a scenario.
        settings: lengths and thresholds.
        start: the champion's data ends here.
        end: the last decision is made here or before.
    """
    window, until, at = timedelta(days=settings.window_days), start, start
    attempts: list[datetime] = []
    timeline, windows = _measured(tables, columns, settings, until, end)
    while at + window <= end:
        at += window
        past = [w for w in windows if w.end <= at]
        new_rows = int(((timeline.slice_R >= 0) & (timeline.slice_R < (at - until) // window)).sum())
        known = Known(
            now=at,
            champion_until=until,
            data_problems=[],
            windows=past,
            new_rows=new_rows,
            attempts=attempts,
        )
        decision = decide(known, settings)
        newest = past[-1] if past and past[-1].end == at else None
        yield Step(decision=decision, until=until, window=newest)
        if decision.verdict == "retrain":
            until, attempts = at, [*attempts, at]
            timeline, windows = _measured(tables, columns, settings, until, end)


def _measured(
    tables: Tables, columns: Columns, settings: Retraining, until: datetime, end: datetime
) -> tuple[Timeline, list[Window]]:
    timeline = Timeline.of(tables, until, settings, end)
    return timeline, windows_of(timeline, columns(timeline), {}, settings)
