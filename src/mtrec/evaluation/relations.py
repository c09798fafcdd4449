"""How tasks get along in training, from the `tasks` lines of losses.jsonl.

A line holds, for one training step, the length of every task's gradient at the shared representation (`norms`) and
the cosine of every two (`cosines`). Tasks with a cosine above 0 help each other in that step, those below 0 hinder
each other (Yu et al. 2020, arXiv:2001.06782). Summed up over all recorded steps, that says which tasks belong on
one model (Fifty et al. 2021, arXiv:2109.04617).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from mtrec.evaluation.wording import finite

Json = Mapping[str, Any]

MIN_STEPS = 6
"""Recorded steps below which nothing is read out of them: two for each third of training."""
CLEAR = 0.05
"""Mean cosine from which two tasks are more than indifferent to each other."""
STEADY = 2 / 3
"""Share of steps in which the cosine must have the sign of its mean."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Two tasks over training."""

    first: str
    second: str
    kind: str
    """helps, conflicts, indifferent, apart (the gradients share no entry, so they cannot meet) or unknown."""
    steps: int
    """Recorded steps in which both have a gradient."""
    mean: float | None
    """Mean cosine over these steps; None without any."""
    above: float
    """Share of these steps with a cosine above 0."""
    below: float
    start: float | None
    """Mean over the first third of these steps; None where there are fewer than `MIN_STEPS`."""
    end: float | None
    """Mean over the last third."""


@dataclass(frozen=True, kw_only=True)
class Relations:
    """All tasks of a run over training, K of them."""

    tasks: list[str]
    steps: int
    """Recorded steps."""
    pairs: list[Relation]
    """Every two tasks, in their order."""
    pulls: list[list[float | None]]
    """What a step on task i does for task j, as a share of what a step on j does for it, (K, K)."""

    def between(self, i: int, j: int) -> Relation:
        """Two different tasks by their place."""
        names = {self.tasks[i], self.tasks[j]}
        return next(pair for pair in self.pairs if {pair.first, pair.second} == names)


@dataclass(frozen=True, kw_only=True)
class _Step:
    cosines: list[list[float | None]]
    norms: list[float | None]

    def cosine(self, i: int, j: int) -> float | None:
        """None where one of the two has no gradient in this step: its cosine with itself is 0, not 1."""
        first, second, both = self.cosines[i][i], self.cosines[j][j], self.cosines[i][j]
        if first is None or second is None or both is None or min(first, second) < 0.5:
            return None
        return max(-1.0, min(1.0, both))

    def pull(self, i: int, j: int) -> float | None:
        """gᵢ·gⱼ / |gⱼ|²: to first order, the fall of loss j by a step along gᵢ over that by a step along gⱼ."""
        cosine, own, other = self.cosine(i, j), self.norms[j], self.norms[i]
        return None if cosine is None or not own or other is None else cosine * other / own


def relations(losses: Sequence[Json]) -> Relations | None:
    """Sum up how tasks get along.

    Both shares of steps and the sign of the mean must agree before two tasks are said to help each other or to be
    in conflict, and the mean must be beyond `CLEAR` and twice its standard error.

    Args:
        losses: lines of losses.jsonl; those of other kinds than `tasks` are left out, and so are lines about other
            tasks than the last one's.

    Returns:
        None when there is no such line.
    """
    lines = [line for line in losses if line.get("kind") == "tasks" and line.get("tasks")]
    if not lines:
        return None
    tasks = [str(name) for name in lines[-1]["tasks"]]
    steps = [step for line in lines if line["tasks"] == lines[-1]["tasks"] and (step := _step(line, len(tasks)))]
    places = range(len(tasks))
    pairs = [_relation(tasks, steps, i, j) for i in places for j in places if i < j]
    pulls = [[_middle([step.pull(i, j) for step in steps]) for j in places] for i in places]
    return Relations(tasks=tasks, steps=len(steps), pairs=pairs, pulls=pulls)


def _step(line: Json, size: int) -> _Step | None:
    rows = [list(row) for row in line.get("cosines") or []]
    if len(rows) != size or any(len(row) != size for row in rows):
        return None
    norms = list(line.get("norms") or [])
    norms = norms if len(norms) == size else [None] * size
    return _Step(cosines=[[finite(v) for v in row] for row in rows], norms=[finite(v) for v in norms])


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _relation(tasks: list[str], steps: Sequence[_Step], i: int, j: int) -> Relation:
    values = [value for step in steps if (value := step.cosine(i, j)) is not None]
    count, third = len(values), len(values) // 3
    enough = count >= MIN_STEPS
    above = sum(v > 0 for v in values) / max(count, 1)
    below = sum(v < 0 for v in values) / max(count, 1)
    return Relation(
        first=tasks[i],
        second=tasks[j],
        kind=_kind(values, above, below) if enough else "unknown",
        steps=count,
        mean=fmean(values) if values else None,
        above=above,
        below=below,
        start=fmean(values[:third]) if enough else None,
        end=fmean(values[-third:]) if enough else None,
    )


def _kind(values: Sequence[float], above: float, below: float) -> str:
    if not any(values):
        return "apart"
    mean = fmean(values)
    clear = max(CLEAR, 2 * stdev(values) / math.sqrt(len(values)))
    if mean >= clear and above >= STEADY:
        return "helps"
    if mean <= -clear and below >= STEADY:
        return "conflicts"
    return "indifferent"
