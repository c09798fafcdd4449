"""Test targets whose value training never saw: classes that count as wrong, labels that are counted and left out.

An encoded label array has no place for such a value: a class becomes missing, a label of a set disappears. What is
lost is found here in the raw column of the label's table.

Shapes: R rows of the label's table, M chosen rows.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mtrec.config import Classification, MultiLabel, Profile, Task
from mtrec.evaluation.metrics import UNSEEN
from mtrec.models.inputs import View


def open_labels(task: Task, view: View, name: str) -> tuple[Tensor, int | None]:
    """The task's labels with a number for every class, those that training never saw behind those that it did.

    Args:
        task: any but next-item ranking; only classification has classes.
        view: holds the encoded labels and the raw columns.
        name: of the task.

    Returns:
        Labels (R,) or (R, V), NaN where the raw column has none; and the first number of an unseen class, None for
        a task without classes.
    """
    labels = view.labels[name]
    if not isinstance(task, Classification):
        return labels, None
    first = int(labels.nan_to_num(-1).max()) + 1
    column = view.dataset.label_column(task)
    rows = np.flatnonzero(labels.isnan().cpu().numpy() & column.is_not_null().to_numpy())
    numbers: dict[str, int] = {}
    for value in column.gather(rows):
        numbers.setdefault(str(value), first + len(numbers))
    opened = labels.clone()
    opened[torch.from_numpy(rows).to(labels.device)] = torch.tensor(
        [float(numbers[str(value)]) for value in column.gather(rows)], device=labels.device
    )
    return opened, first


def closed(target: Tensor, first: int | None) -> Tensor:
    """Targets with `UNSEEN` for every class from `first` on."""
    return target if first is None else target.masked_fill(target >= first, float(UNSEEN))


def outside_values(task: Task, view: View, name: str, rows: np.ndarray) -> np.ndarray | None:
    """How many values of each chosen row's label are not in the vocabulary.

    Args:
        task: any but next-item ranking.
        view: holds the encoded labels and the raw columns.
        name: of the task.
        rows: M rows of the label's table.

    Returns:
        (M,) counts, or None for tasks whose label is no set (neither multi-label nor profile).
    """
    if not isinstance(task, (MultiLabel, Profile)):
        return None
    cells = view.dataset.label_column(task).gather(rows)
    if isinstance(cells.dtype, pl.List):
        distinct = cells.list.drop_nulls().list.n_unique().fill_null(0)
    else:
        distinct = cells.is_not_null().cast(pl.Int64)
    inside = view.labels[name][torch.from_numpy(rows).to(view.device)].nan_to_num().sum(-1)
    counts: np.ndarray = distinct.to_numpy().astype(np.int64) - inside.cpu().numpy().astype(np.int64)
    return counts
