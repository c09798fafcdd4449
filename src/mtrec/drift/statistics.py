"""The statistics of a window: how its columns, texts, newcomers, predictions and errors compare with the reference.

The reference is what the champion knows: the interactions of its data version, cut into slices as long as a window.
What one user does in one slice is a block; chance is drawn block by block (`mtrec.drift.distance`).

Shapes: R rows (interactions, reference and windows together), X rows that count for a column, B bins, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

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
class Errors:
    """What a task of the champion lost on each interaction."""

    loss_R: np.ndarray
    """NaN where there is no label, or the champion learned from the row."""


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
    num_windows: int
    """Complete ones."""
    new_item_R: np.ndarray
    """True where the champion never saw the item in an interaction."""
    new_user_R: np.ndarray

    @classmethod
    def of(cls, tables: Tables, until: datetime, settings: Retraining, now: datetime | None = None) -> Timeline:
        """Lay the interactions out.

        Args:
            tables: the contract tables with everything that is known now.
            until: time of the last interaction that the champion knows.
            settings: the length of a window.
            now: what comes later does not count; None: everything counts.
        """
        window = timedelta(days=settings.window_days)
        own = tables.interactions.sort("timestamp", "user_id", maintain_order=True)
        if now is not None:
            own = own.filter(pl.col("timestamp") <= now)
        rows = own
        for table, key, prefix in ((tables.items, "item_id", "items"), (tables.users, "user_id", "users")):
            rows = rows.join(_prefixed(table, key, prefix), on=key, how="left", maintain_order="left")
        after = ((rows["timestamp"] - until) / window).to_numpy() if rows.height else np.zeros(0)
        slice_R = np.ceil(after).astype(np.int64) - 1  # an interaction at `until` itself is known
        known = slice_R < 0
        user_R, item_R = (
            rows[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("user_id", "item_id")
        )
        _, block_R = np.unique(np.stack([slice_R, user_R]), axis=1, return_inverse=True)
        end = now or (rows["timestamp"].max() if rows.height else until)
        assert isinstance(end, datetime)
        return cls(
            rows=rows,
            slice_R=slice_R,
            block_R=block_R.ravel(),
            until=until,
            window=window,
            num_windows=max(int((end - until) / window), 0),
            new_item_R=~np.isin(item_R, item_R[known]),
            new_user_R=~np.isin(user_R, user_R[known]),
        )


def _prefixed(table: pl.DataFrame, key: str, prefix: str) -> pl.DataFrame:
    return table.unique(key, keep="last", maintain_order=True).rename(
        {name: f"{prefix}.{name}" for name in table.columns if name != key}
    )


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
        name = f"{task.label_table}.{task.label_column}"
        if task.label is not None and name in rows.columns and name not in found:
            found[name] = Column(values=rows[name], kind=_kind_of(rows[name]))
    return found


def _kind_of(values: pl.Series) -> Kind:
    if values.dtype == pl.List:
        return "values"
    return "number" if values.dtype.is_numeric() else "category"


def windows_of(
    timeline: Timeline, columns: Mapping[str, Column], errors: Mapping[str, Errors], settings: Retraining
) -> list[Window]:
    """Measure every complete window, oldest first."""
    measured: list[list[Statistic]] = [[] for _ in range(timeline.num_windows)]
    for name, column in columns.items():
        for index, statistic in _distances(name, timeline, column, settings):
            measured[index].append(statistic)
    for name, error in errors.items():
        for index, statistic in _losses(name, timeline, error, settings):
            measured[index].append(statistic)
    found = []
    for index, statistics in enumerate(measured):
        start = timeline.until + index * timeline.window
        here = timeline.slice_R == index
        whole = [*_beyond_chance(statistics, settings), *_newcomers(timeline, here, settings)]
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
    known = np.flatnonzero(counts_R & (timeline.slice_R < 0))
    if not len(known):
        return
    binning = Binning.fit(column.values[known], column.kind)
    shares_RB = binning.shares(column.values)
    blocks, block_X = np.unique(timeline.block_R[known], return_inverse=True)
    reference_KB = block_sums(shares_RB[known], block_X, len(blocks))
    reference_B = np.asarray(reference_KB.sum(0))
    drawn: dict[int, np.ndarray] = {}
    for index in range(timeline.num_windows):
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
        beyond = float(np.sqrt(max(value**2 - by_chance**2, 0.0)))
        yield (
            index,
            Statistic(
                name=name,
                value=value,
                by_chance=by_chance,
                probability=tail_probability(value, drawn[size]),
                threshold=settings.min_distance,
                drifted=beyond >= settings.min_distance,
                why=_moved(binning, window_B.ravel(), reference_B.ravel()),
            ),
        )


def _moved(binning: Binning, window_B: np.ndarray, reference_B: np.ndarray) -> str:
    """The bin whose share moved most, in words."""
    before, now = (x / max(x.sum(), 1e-300) for x in (reference_B, window_B))
    most = int(np.argmax(np.abs(now - before)))
    return f"{binning.names()[most]}: {before[most]:.1%} → {now[most]:.1%}"


def _newcomers(timeline: Timeline, here_R: np.ndarray, settings: Retraining) -> Iterator[Statistic]:
    if not here_R.any():
        return
    for name, new_R in (("new_items", timeline.new_item_R), ("new_users", timeline.new_user_R)):
        share = float(new_R[here_R].mean())
        yield Statistic(
            name=name,
            value=share,
            by_chance=0.0,
            probability=None,
            threshold=settings.max_new_share,
            drifted=share > settings.max_new_share,
            why=f"{share:.1%} of the interactions",
        )


def _losses(name: str, timeline: Timeline, errors: Errors, settings: Retraining) -> Iterator[tuple[int, Statistic]]:
    """Relative growth of a task's loss, with the probability of Welch's test on the means of blocks."""
    there = ~np.isnan(errors.loss_R)
    reference = _block_means(timeline, errors, there & (timeline.slice_R < 0))
    if len(reference) < ENOUGH:
        return
    for index in range(timeline.num_windows):
        window = _block_means(timeline, errors, there & (timeline.slice_R == index))
        if len(window) < ENOUGH or reference.mean() <= 0:
            continue
        growth = float(window.mean() / reference.mean() - 1)
        test = stats.ttest_ind(window, reference, equal_var=False, alternative="greater")
        yield (
            index,
            Statistic(
                name=name,
                value=growth,
                by_chance=0.0,
                probability=float(test.pvalue),
                threshold=settings.max_quality_loss,
                drifted=growth > settings.max_quality_loss,
                why=f"loss {reference.mean():.4g} → {window.mean():.4g}",
            ),
        )


def _block_means(timeline: Timeline, errors: Errors, rows_R: np.ndarray) -> np.ndarray:
    """The mean loss of every block."""
    _, block_X = np.unique(timeline.block_R[rows_R], return_inverse=True)
    return np.bincount(block_X, weights=errors.loss_R[rows_R]) / np.bincount(block_X)
