"""Evidently's own page about the newest window beside the reference, where the extra `drift` is installed.

It is drawn for people; nothing is decided by it. Evidently's tests know neither users nor windows: they take every
interaction for independent, and call drift where `mtrec.drift.statistics` finds chance.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mtrec.config import Retraining
from mtrec.data.contract import replacing_file
from mtrec.drift.statistics import Column, Timeline

if TYPE_CHECKING:
    import pandas as pd

MOST = 50_000
"""Rows of each side at most; more are drawn."""


def write_evidently(path: Path, timeline: Timeline, columns: Mapping[str, Column], settings: Retraining) -> bool:
    """Write Evidently's data drift page; it appears complete or not at all.

    Args:
        path: the HTML file.
        timeline: interactions; its newest complete window is compared.
        columns: what is compared. Cells of several values are compared as one text.
        settings: how many slices of the reference count.

    Returns:
        Whether it was written: not without Evidently, nor where there is no window.
    """
    if importlib.util.find_spec("evidently") is None or not timeline.indices:
        return False
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    oldest = -(settings.reference_windows or np.inf)
    slice_R = timeline.slice_R
    rows = [(slice_R < 0) & (slice_R >= oldest), slice_R == timeline.indices[-1]]
    shown = {name: column for name, column in columns.items() if _on_both_sides(column, rows)}
    if not shown:
        return False
    definition = DataDefinition(
        numerical_columns=[name for name, column in shown.items() if column.kind == "number"],
        categorical_columns=[name for name, column in shown.items() if column.kind != "number"],
    )
    reference, newest = (Dataset.from_pandas(_frame(shown, rows_R), data_definition=definition) for rows_R in rows)
    report = Report([DataDriftPreset()]).run(newest, reference)
    with replacing_file(path) as temporary:
        report.save_html(str(temporary))
    return True


def _on_both_sides(column: Column, rows: list[np.ndarray]) -> bool:
    there = column.values.is_not_null().to_numpy()
    return all((there & rows_R).any() for rows_R in rows)


def _frame(columns: Mapping[str, Column], rows_R: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    chosen = np.flatnonzero(rows_R)
    if len(chosen) > MOST:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MOST, replace=False))
    cells = {}
    for name, column in columns.items():
        values = column.values[chosen]
        if column.kind == "values":
            values = values.cast(pl.List(pl.String)).list.sort().list.join(", ")
        kind = float if column.kind == "number" else object
        cells[name] = pd.Series(values.cast(pl.Float64 if kind is float else pl.String).to_list(), dtype=kind)
    return pd.DataFrame(cells)
