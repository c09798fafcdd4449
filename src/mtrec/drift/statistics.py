"""The statistics of a window: how its columns, texts, newcomers, predictions and errors compare with the reference.

The reference is the newest part of what the champion knows: interactions of its data version, cut into slices as
long as a window. What one user does in one slice is a block; chance is drawn block by block
(`mtrec.drift.distance`).

Shapes: R rows (interactions, reference and windows together), X rows that count for a column, B bins, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from mtrec.config import Retraining, Scenario
from mtrec.data.contract import Tables
from mtrec.drift.binning import Binning, Kind
from mtrec.drift.distance import block_sums, chance_distances, holm, js_distance, tail_probability
from mtrec.drift.windows import Statistic, Window

ENOUGH = 30
"""Blocks that a window needs in a column; with fewer nothing is said of it."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One value per interaction."""

    values: pl.Series
    """(R,)."""
    kind: Kind
    counts_R: np.ndarray | None = None
    """Rows that count; None: all."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a task of the champion does on each interaction."""

    score_R: np.ndarray
    """NaN where there is no label, or the champion learned from the row."""
    higher_is_better: bool
    squared: bool = False
    """The score is a squared error; what counts is the root of its mean."""
    block_R: np.ndarray | None = None
    """What is drawn together; None: what one user does in one slice."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Interactions in order of time, the champion's and those after them."""

    rows: pl.DataFrame
    """Columns of interactions, and those of users and items with a prefix."""
    slice_R: np.ndarray
    """Window of each row: below 0 the reference, from 0 on the new windows."""
    block_R: np.ndarray
    """What one user did in one slice, numbered."""
    until: datetime
    """The last interaction that the champion knows."""
    window: timedelta
    indices: list[int]
    """Complete windows in which anything happened."""
    item_R: np.ndarray
    """Items, numbered."""
    user_R: np.ndarray

    @classmethod
    def of(
        cls,
        tables: Tables,
        until: datetime,
        settings: Retraining,
        now: datetime | None = None,
        before: Tables | None = None,
    ) -> Timeline:
        """Lay the interactions out.

        Args:
            tables: the contract tables with everything that is known now.
            until: time of the last interaction that the champion knows.
            settings: the length of a window.
            now: what comes later does not count; None: everything counts.
            before: users and items as they were for the interactions that the champion knows; None: as in `tables`.
        """
        window = timedelta(days=settings.window_days)
        own = tables.interactions.sort("timestamp", "user_id", maintain_order=True)
        if now is not None:
            own = own.filter(pl.col("timestamp") <= now)
        known = pl.col("timestamp") <= until
        parts = [(own.filter(known), before), (own.filter(~known), None)]
        rows = pl.concat([_with_attributes(part, tables, then) for part, then in parts], how="vertical_relaxed")
        after = ((rows["timestamp"] - until) / window).to_numpy() if rows.height else np.zeros(0)
        slice_R = np.ceil(after).astype(np.int64) - 1  # an interaction at `until` itself is known
        user_R, item_R = (
            rows[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("user_id", "item_id")
        )
        first = slice_R.min(initial=0)
        _, block_R = np.unique((slice_R - first) * (user_R.max(initial=0) + 1) + user_R, return_inverse=True)
        end = now or (rows["timestamp"].max() if rows.height else until)
        assert isinstance(end, datetime)
        complete = slice_R[(slice_R >= 0) & (slice_R < (end - until) // window)]
        return cls(
            rows=rows,
            slice_R=slice_R,
            block_R=block_R,
            until=until,
            window=window,
            indices=np.unique(complete).tolist(),
            item_R=item_R,
            user_R=user_R,
        )


def _with_attributes(rows: pl.DataFrame, tables: Tables, before: Tables | None) -> pl.DataFrame:
    """Interactions with the columns of their items and users, as they were before where that is given."""
    for prefix, key in (("items", "item_id"), ("users", "user_id")):
        table = getattr(tables, prefix).unique(key, keep="last", maintain_order=True)
        if before is not None:
            table = _as_before(table, getattr(before, prefix), key)
        table = table.rename({name: f"{prefix}.{name}" for name in table.columns if name != key})
        rows = rows.join(table, on=key, how="left", maintain_order="left")
    return rows


def _as_before(table: pl.DataFrame, before: pl.DataFrame, key: str) -> pl.DataFrame:
    """The older values of all rows and columns that were there before; what came later stays as it is."""
    shared = [key]
    for name in before.columns:
        types = before.schema[name], table.schema.get(name)
        if name != key and (types[0] == types[1] or all(t is not None and t.is_numeric() for t in types)):
            shared.append(name)
    older = table.drop(shared[1:]).join(before.select(shared), on=key).select(table.columns)
    return pl.concat([older, table.join(before, on=key, how="anti")], how="vertical_relaxed")


def columns_of(timeline: Timeline, scenario: Scenario) -> dict[str, Column]:
    """Every feature and every label of a scenario, by name."""
    rows = timeline.rows
    found = {"event": Column(values=rows["event"], kind="category")}
    if "rating" in rows.columns:
        rated = rows["rating"].is_not_null().to_numpy()
        found["rating"] = Column(values=rows["rating"], kind="number", counts_R=rated)
    for table, columns in (("users", scenario.users), ("items", scenario.items)):
        kinds: list[tuple[Kind, list[str]]] = [
            ("number", columns.numeric), ("category", columns.categorical), ("values", columns.multi),
        ]  # fmt: skip
        for kind, names in kinds:
            found |= {f"{table}.{n}": Column(values=rows[f"{table}.{n}"], kind=kind) for n in names}
    for task in scenario.tasks.values():
        if task.label is None:
            continue
        table, column = task.label_table, task.label_column
        name = column if table == "interactions" else f"{table}.{column}"
        if name in rows.columns and name not in found:
            found[name] = Column(values=rows[name], kind=_kind_of(rows[name]))
    return found


def _kind_of(values: pl.Series) -> Kind:
    if values.dtype == pl.List:
        return "values"
    return "number" if values.dtype.is_numeric() else "category"


def windows_of(
    timeline: Timeline, columns: Mapping[str, Column], qualities: Mapping[str, Quality], settings: Retraining
) -> list[Window]:
    """Measure every complete window in which anything happened, oldest first."""
    measured: dict[int, list[Statistic]] = {int(i): [] for i in timeline.indices}
    for name, column in columns.items():
        for index, statistic in _distances(name, timeline, column, settings):
            measured[index].append(statistic)
    for name, quality in qualities.items():
        for index, statistic in _losses(name, timeline, quality, settings):
            measured[index].append(statistic)
    found = []
    for index, statistics in measured.items():
        start = timeline.until + index * timeline.window
        here = timeline.slice_R == index
        whole = [*_beyond_chance(statistics, settings), *_newcomers(timeline, index, settings)]
        found.append(Window(start=start, end=start + timeline.window, num_rows=int(here.sum()), statistics=whole))
    return found


def _beyond_chance(statistics: list[Statistic], settings: Retraining) -> list[Statistic]:
    """Those of enough size drifted where all of them together leave chance no more than its share."""
    probabilities = {s.name: s.probability for s in statistics if s.probability is not None}
    sure = holm(probabilities, settings.false_alarms)
    return [replace(s, drifted=s.drifted and sure[s.name]) for s in statistics]


def _distances(
    name: str, timeline: Timeline, column: Column, settings: Retraining
) -> Iterator[tuple[int, Statistic]]:
    counts_R = np.ones(len(timeline.slice_R), dtype=bool) if column.counts_R is None else column.counts_R
    oldest = -(settings.reference_windows or np.inf)
    known = np.flatnonzero(counts_R & (timeline.slice_R < 0) & (timeline.slice_R >= oldest))
    if not len(known):
        return
    binning = Binning.fit(column.values[known], column.kind)
    shares_RB = binning.shares(column.values)
    blocks, block_X = np.unique(timeline.block_R[known], return_inverse=True)
    reference_KB = block_sums(shares_RB[known], block_X, len(blocks))
    reference_B = np.asarray(reference_KB.sum(0))
    drawn: dict[int, np.ndarray] = {}
    for index in timeline.indices:
        rows = np.flatnonzero(counts_R & (timeline.slice_R == index))
        num_blocks = len(np.unique(timeline.block_R[rows]))
        if num_blocks < ENOUGH or len(blocks) < 2 * ENOUGH:
            continue
        size = round(num_blocks, 1 - len(str(num_blocks)) + 1)  # two digits: windows of about a size share draws
        if size not in drawn:
            drawn[size] = chance_distances(reference_KB, size)
        window_B = np.asarray(shares_RB[rows].sum(0))
        value = float(js_distance(window_B, reference_B)[0])
        by_chance = float(np.sqrt((drawn[size] ** 2).mean()))
        limit = float(np.hypot(by_chance, settings.min_distance))
        yield (
            index,
            Statistic(
                name=name,
                value=value,
                by_chance=by_chance,
                probability=tail_probability(value, drawn[size]),
                limit=limit,
                drifted=value > limit,
                why=_moved(binning, window_B.ravel(), reference_B.ravel()),
            ),
        )


def _moved(binning: Binning, window_B: np.ndarray, reference_B: np.ndarray) -> str:
    """The bin whose share moved most, in words."""
    before, now = (x / max(x.sum(), 1e-300) for x in (reference_B, window_B))
    most = int(np.argmax(np.abs(now - before)))
    return f"{binning.names()[most]}: {before[most]:.1%} → {now[most]:.1%}"


def _newcomers(timeline: Timeline, index: int, settings: Retraining) -> Iterator[Statistic]:
    """Shares of interactions with what the champion never met, beside what is usual.

    Usual is what a model as old as the champion is now would have found new in the reference's last slice; it knows
    at least the first half of the reference, however old it should be.
    """
    slice_R = timeline.slice_R
    middle = int(np.median(slice_R[slice_R < 0])) if (slice_R < 0).any() else -1
    before = min(max(-1 - index, middle + 1), -1)
    for name, key_R in (("new_items", timeline.item_R), ("new_users", timeline.user_R)):
        share = _share_of_new(key_R, slice_R < 0, slice_R == index)
        usual = _share_of_new(key_R, slice_R < before, slice_R == -1)
        limit = min(usual + settings.max_new_share, 1.0)
        yield Statistic(
            name=name,
            value=share,
            by_chance=usual,
            probability=None,
            limit=limit,
            drifted=share > limit,
            why=f"{usual:.1%} → {share:.1%} of the interactions",
        )


def _share_of_new(key_R: np.ndarray, known_R: np.ndarray, here_R: np.ndarray) -> float:
    if not known_R.any() or not here_R.any():
        return 0.0
    return float(1 - np.isin(key_R[here_R], key_R[known_R]).mean())


def _losses(
    name: str, timeline: Timeline, quality: Quality, settings: Retraining
) -> Iterator[tuple[int, Statistic]]:
    """How much worse than the reference, as a share, with the probability of Welch's test on blocks' means."""
    there = ~np.isnan(quality.score_R)
    before = _block_means(timeline, quality, there & (timeline.slice_R < 0))
    if len(before) < ENOUGH or before.mean() <= 0:
        return
    for index in timeline.indices:
        now = _block_means(timeline, quality, there & (timeline.slice_R == index))
        if len(now) < ENOUGH:
            continue
        levels = [float(np.sqrt(x.mean()) if quality.squared else x.mean()) for x in (before, now)]
        part, whole = reversed(levels) if quality.higher_is_better else levels
        loss = float(np.clip(1 - part / whole, -1, 1)) if whole > 0 else -1.0
        side: Any = "less" if quality.higher_is_better else "greater"
        test = stats.ttest_ind(now, before, equal_var=False, alternative=side)
        yield (
            index,
            Statistic(
                name=name,
                value=loss,
                by_chance=0.0,
                probability=float(np.nan_to_num(test.pvalue, nan=1.0)),
                limit=settings.max_quality_loss,
                drifted=loss > settings.max_quality_loss,
                why=f"{'score' if quality.higher_is_better else 'error'} {levels[0]:.4g} → {levels[1]:.4g}",
            ),
        )


def _block_means(timeline: Timeline, quality: Quality, rows_R: np.ndarray) -> np.ndarray:
    """The mean score of every block."""
    block_R = timeline.block_R if quality.block_R is None else quality.block_R
    _, block_X = np.unique(block_R[rows_R], return_inverse=True)
    return np.bincount(block_X, weights=quality.score_R[rows_R]) / np.bincount(block_X)
