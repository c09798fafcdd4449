"""What the champion says about interactions slice by slice, and how well: drift of texts, predictions and quality.

Every slice is answered as it would have been served: each user's state is that at the slice's beginning. The
reference is what the champion did not learn from, its own test part; item tasks are judged on items held out from
training and on new ones.

Shapes: R rows of the timeline, N items, V label values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
import torch

from mtrec.config import Binary, MultiLabel, NextItem, Regression, Retraining, Scenario, Task
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset
from mtrec.data.labels import event_label
from mtrec.data.splits import TEST, TRAIN, split_by_id, split_interactions
from mtrec.data.text import fill_template
from mtrec.drift.binning import Kind
from mtrec.drift.statistics import Column, Quality, Timeline
from mtrec.drift.texts import text_column
from mtrec.evaluation.compare import example_values
from mtrec.evaluation.metrics import measured_rows
from mtrec.evaluation.predict import Predictions, Ranked, predict
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle
from mtrec.progress import report

_AHEAD = 3
"""Part of rows that a slice must not know."""
MAX_RANKED = 1000
"""Users of a slice for whom all items are ranked."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """Columns and qualities by the names of their statistics."""

    columns: dict[str, Column] = field(default_factory=dict)
    qualities: dict[str, Quality] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Rows:
    """What is known of one task on the timeline's rows."""

    predicted: list[object]
    """A number, a class or a set of labels; None where nothing was asked."""
    score_R: np.ndarray


def ask(bundle: Bundle, tables: Tables, timeline: Timeline, settings: Retraining) -> Said:
    """Let a champion answer for the reference and for the windows.

    Args:
        bundle: the champion.
        tables: users and items as they are known now.
        timeline: interactions.
        settings: how many slices of the reference count.

    Raises:
        RunError: an answer is NaN or infinite.
    """
    report("monitor", 0.5, "the champion reads the texts")
    asked = _Asked.of(bundle, tables, timeline)
    reference_R = (timeline.slice_R < 0) & (timeline.slice_R >= -(settings.reference_windows or np.inf))
    said = Said()
    if reference_R.any():
        text_NE = asked.catalogue.text_NE.float().cpu().numpy()
        titles = asked.whole.items["title"].fill_null("").to_list()
        said.columns["text"] = text_column(text_NE, titles, asked.item_R, reference_R)
    held_R = _held_out(timeline, bundle.scenario)
    slices = np.unique(timeline.slice_R[(reference_R & held_R) | np.isin(timeline.slice_R, timeline.indices)])
    for number, index in enumerate(slices):
        report("monitor", 0.6 + 0.3 * number / len(slices), f"the champion answers, slice {number + 1}")
        asked.slice(int(index))
    asked.items()
    fresh_R = held_R | (timeline.slice_R >= 0)
    for name, task in bundle.scenario.tasks.items():
        rows = asked.rows[name]
        counts_R = np.array([p is not None for p in rows.predicted])
        if task.on != "item":
            counts_R &= fresh_R
            rows.score_R[~fresh_R] = np.nan
        kind, dtype = _kind(task)
        values = pl.Series(name, rows.predicted, dtype=dtype, strict=False)
        said.columns[f"prediction.{name}"] = Column(values=values, kind=kind, counts_R=counts_R)
        said.qualities[f"quality.{name}"] = Quality(
            score_R=rows.score_R,
            higher_is_better=not isinstance(task, Regression),
            squared=isinstance(task, Regression),
            block_R=timeline.item_R if task.on == "item" else None,
        )
    return said


def _held_out(timeline: Timeline, scenario: Scenario) -> np.ndarray:
    """Rows of the champion's own test part, (R,) bool."""
    known = np.flatnonzero(timeline.slice_R < 0)
    rows = timeline.rows[known].with_row_index("_row").sort("user_id", "timestamp", "_row")
    held_R = np.zeros(len(timeline.slice_R), dtype=bool)
    held_R[known[rows["_row"].to_numpy()]] = split_interactions(rows, scenario.split).to_numpy() == TEST
    return held_R


def _kind(task: Task) -> tuple[Kind, pl.DataType]:
    if isinstance(task, (Regression, Binary)):
        return "number", pl.Float64()
    return ("values", pl.List(pl.String())) if isinstance(task, MultiLabel) else ("category", pl.String())


@dataclass(kw_only=True)
class _Asked:
    """The champion, the data as it reads it, and the answers so far."""

    bundle: Bundle
    timeline: Timeline
    whole: Dataset
    """Every interaction, sorted by user and time."""
    order_R: np.ndarray
    """The timeline's row of each row of `whole`."""
    catalogue: Catalogue
    item_R: np.ndarray
    """Row of `whole.items` of each of the timeline's rows."""
    rows: dict[str, _Rows]

    @classmethod
    def of(cls, bundle: Bundle, tables: Tables, timeline: Timeline) -> _Asked:
        texts = fill_template(tables.items, bundle.scenario.items.text)
        own = [name for name in timeline.rows.columns if not name.startswith(("items.", "users."))]
        interactions = timeline.rows.select(own).with_row_index("_row").sort("user_id", "timestamp", "_row")
        order_R = interactions["_row"].to_numpy().astype(np.int64)
        parts = {
            f"label_{name}": pl.lit(np.nan, pl.Float32)
            for name, task in bundle.scenario.tasks.items()
            if isinstance(task, Binary) and task.positive
        }
        whole = Dataset(
            tables.users.with_columns(part=pl.lit(TEST, pl.Int8)),
            tables.items.with_columns(texts, part=pl.lit(TEST, pl.Int8)),
            interactions.drop("_row").with_columns(part=pl.lit(TRAIN, pl.Int8), **parts),
        )
        item_R = np.empty(len(order_R), dtype=np.int64)
        item_R[order_R] = whole.item
        num_rows = len(order_R)
        return cls(
            bundle=bundle,
            timeline=timeline,
            whole=whole,
            order_R=order_R,
            catalogue=bundle.model.eval().catalogue(texts.to_list(), bundle.view(whole).items),
            item_R=item_R,
            rows={
                name: _Rows(predicted=[None] * num_rows, score_R=np.full(num_rows, np.nan))
                for name in bundle.scenario.tasks
            },
        )

    def items(self) -> None:
        """Answer the item tasks, which know no time; only items that training did not learn from are judged."""
        scenario, tasks = self.bundle.scenario, _tasks(self.bundle, on_items=True)
        if not tasks:
            return
        said, _ = predict(
            self.bundle.model, self.bundle.view(self.whole), self.catalogue, tasks, TEST, scenario.model.history
        )
        ids = self.whole.items["item_id"]
        held = self._not_learned(ids, self.bundle.encoding.items.ids)
        for name, task in tasks.items():
            predicted, score = _spread(said[name], said[name].item, len(ids), task, self._values(name))
            score[~held] = np.nan
            self.rows[name] = _Rows(predicted=[predicted[n] for n in self.item_R], score_R=score[self.item_R])

    def slice(self, index: int) -> None:
        """Answer all other tasks for one slice, with the states at its beginning."""
        tasks = _tasks(self.bundle, on_items=False)
        if not tasks:
            return
        slice_R = self.timeline.slice_R[self.order_R]
        kept = np.flatnonzero(slice_R <= index)
        part = np.where(slice_R[kept] == index, TEST, TRAIN).astype(np.int8)
        interactions = self.whole.interactions[kept].with_columns(part=pl.Series(part))
        for name, task in tasks.items():
            if isinstance(task, Binary) and task.positive:
                interactions = interactions.with_columns(
                    pl.Series(f"label_{name}", event_label(task, interactions))
                )
        here = interactions.filter(part=TEST)["user_id"].unique()
        users = self.whole.users.with_columns(
            part=pl.when(pl.col("user_id").is_in(here.implode())).then(TEST).otherwise(_AHEAD).cast(pl.Int8)
        )
        dataset = Dataset(users, self.whole.items, interactions)
        view = self.bundle.view(dataset)
        rows = np.flatnonzero(part == TEST)
        said, ranked = predict(
            self.bundle.model,
            _all_asked(view, tasks, rows),
            self.catalogue,
            tasks,
            TEST,
            self.bundle.scenario.model.history,
            MAX_RANKED,
        )
        line_X = self.order_R[kept[rows]]
        user_X = dataset.user[rows]
        _, first_X = np.unique(user_X, return_index=True)
        line_U = np.full(dataset.users.height, -1)
        line_U[user_X[first_X]] = line_X[first_X]  # a user's answers stand on the first row of the slice
        for name, task in tasks.items():
            if isinstance(task, NextItem):
                self._put(name, *_ranked(ranked[name], dataset.items["item_id"].to_list(), line_U))
            elif task.on == "pair":
                label_X = view.labels[name][torch.from_numpy(rows).to(view.device)]
                unlabelled = label_X.isnan().reshape(len(rows), -1).any(1).cpu().numpy()
                place = np.arange(len(rows))
                predicted, score = _spread(said[name], place, len(rows), task, self._values(name), ~unlabelled)
                self._put(name, line_X, predicted, score)
            else:
                chosen = said[name].user
                size = dataset.users.height
                predicted, score = _spread(said[name], chosen, size, task, self._values(name))
                if task.label_table == "users":
                    score[~self._not_learned(dataset.users["user_id"], self.bundle.encoding.users.ids)] = np.nan
                there = np.flatnonzero(line_U >= 0)
                self._put(name, line_U[there], [predicted[u] for u in there], score[there])

    def _not_learned(self, ids: pl.Series, met: list[str]) -> np.ndarray:
        """Items or users whose own labels training did not learn from: held out by their hash, or new."""
        held: np.ndarray = split_by_id(ids, self.bundle.scenario.split).to_numpy() == TEST
        return held | ~ids.is_in(met).to_numpy()

    def _values(self, name: str) -> list[str]:
        return self.bundle.encoding.labels[name].values if name in self.bundle.encoding.labels else []

    def _put(self, name: str, lines: np.ndarray, predicted: list[object], score: np.ndarray) -> None:
        rows = self.rows[name]
        rows.score_R[lines] = score
        for line, value in zip(lines, predicted, strict=True):
            rows.predicted[line] = value


def _tasks(bundle: Bundle, *, on_items: bool) -> dict[str, Task]:
    return {name: task for name, task in bundle.scenario.tasks.items() if (task.on == "item") == on_items}


def _all_asked(view: View, tasks: Mapping[str, Task], rows: np.ndarray) -> View:
    """The view with some label on each of these rows, so that every row is answered, labelled or not."""
    labels = dict(view.labels)
    index = torch.from_numpy(rows).to(view.device)
    for name, task in tasks.items():
        if task.on == "pair":
            labels[name] = labels[name].clone()
            labels[name][index] = labels[name][index].nan_to_num(0.0)
    return replace(view, labels=labels)


def _spread(
    said: Predictions,
    place_X: np.ndarray,
    size: int,
    task: Task,
    values: list[str],
    labelled_X: np.ndarray | None = None,
) -> tuple[list[object], np.ndarray]:
    """Predictions and scores by the place that each belongs to; None and NaN elsewhere."""
    predicted: list[object] = [None] * size
    for place, value in zip(place_X, _plain(said, task, values), strict=True):
        predicted[place] = value
    score = np.full(size, np.nan)
    score[place_X] = _scores(said, task, labelled_X)
    return predicted, score


def _plain(said: Predictions, task: Task, values: list[str]) -> Iterator[object]:
    """Predictions as cells of a column."""
    if isinstance(task, (Regression, Binary)):
        yield from said.predicted.astype(float).tolist()
    elif isinstance(task, MultiLabel):
        limits = 0.5 if said.thresholds is None else said.thresholds
        for given in said.predicted >= limits:
            yield [values[v] for v in np.flatnonzero(given)]
    else:
        for v in said.predicted.argmax(1):
            yield values[v]


def _scores(said: Predictions, task: Task, labelled_X: np.ndarray | None) -> np.ndarray:
    """The primary metric's share of every example: its mean over examples (of squared errors: the root) is it.

    Of a yes-no task only yes has one: the share of no that is given less, whose mean is the AUC.
    """
    known = np.ones(len(said.target), dtype=bool) if labelled_X is None else labelled_X
    score_X = np.full(len(known), np.nan)
    if isinstance(task, Binary):
        yes, no = known & (said.target > 0.5), known & (said.target <= 0.5)
        if no.any():
            below = np.sort(said.predicted[no])
            ends = [np.searchsorted(below, said.predicted[yes], side=side) for side in ("left", "right")]
            score_X[yes] = (ends[0] + ends[1]) / 2 / len(below)
        return score_X
    known = known & measured_rows(task, said.target)
    score_X[known] = example_values(task, said.target[known], said.predicted[known])
    return score_X


def _ranked(
    found: list[Ranked], item_ids: list[str], line_U: np.ndarray
) -> tuple[np.ndarray, list[object], np.ndarray]:
    """Rows, first item and NDCG@10 of the users who were ranked."""
    lines = np.array([line_U[r.user] for r in found], dtype=np.int64)
    top: list[object] = [item_ids[int(r.top[0])] if len(r.top) else None for r in found]
    return lines, top, np.array([r.metrics["ndcg@10"] for r in found], dtype=float)
