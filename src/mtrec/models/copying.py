"""A finished model's towers and heads for a new one: a teacher's for its student, the champion's for a warm start.

Rows of tables go over by what they are about, so that the new model may know other users, items and labels.
"""

from __future__ import annotations

import torch

from mtrec.config import NextItem
from mtrec.data.questions import same_question
from mtrec.models.label_embeddings import LabelEmbeddings
from mtrec.models.store import Bundle

_UNKNOWN = "\0unknown"
"""Name of row 0 of a table, the row of everything unknown."""


@torch.no_grad()
def copy_towers(source: Bundle, target: Bundle) -> bool:
    """Give a model another one's weights outside the transformer; rows of tables go by id, category or label value.

    Rows of what the source never saw stay as they are, and so does what is counted from the target's data.

    Returns:
        False where nothing was copied: the tasks, the features or the sizes of the two differ.
    """
    if not _built_alike(source, target):
        return False
    theirs = dict(source.model.named_parameters())
    rows_of_theirs, rows_of_mine = _rows(source), _rows(target)
    for name, parameter in target.model.named_parameters():
        if name.startswith("encoder.backbone."):
            continue
        value, mine, found = theirs[name].to(parameter), rows_of_mine.get(name), rows_of_theirs.get(name)
        if not mine or not found or mine == found:
            parameter.copy_(value)
        else:
            place = {about: i for i, about in enumerate(found)}
            shared = [(i, place[about]) for i, about in enumerate(mine) if about in place]
            parameter[[i for i, _ in shared]] = value[[j for _, j in shared]]
    return True


def _built_alike(source: Bundle, target: Bundle) -> bool:
    a, b = source.scenario, target.scenario
    same_features = a.users == b.users and a.items.model_copy(update={"text": b.items.text}) == b.items
    same_tasks = list(a.tasks) == list(b.tasks) and all(same_question(a.tasks[n], b.tasks[n]) for n in b.tasks)
    return (
        same_features
        and same_tasks
        and a.model.user_heads == b.model.user_heads
        and _shapes(source) == _shapes(target)
    )


def _shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """The sizes of all weights outside the transformer, without the number of rows of tables."""
    rows = _rows(bundle)
    return {
        name: tuple(parameter.shape[1:] if rows.get(name) else parameter.shape)
        for name, parameter in bundle.model.named_parameters()
        if not name.startswith("encoder.backbone.")
    }


def _rows(bundle: Bundle) -> dict[str, list[str]]:
    """What the rows of each table are about, by the name of the parameter."""
    encoding = bundle.encoding
    users, items = [_UNKNOWN, *encoding.users.ids], [_UNKNOWN, *encoding.items.ids]
    rows = {
        "users.ids.weight": users,
        "items.ids.weight": items,
        "users.event.weight": [_UNKNOWN, *encoding.events],
    }
    for tower, features in (("users", encoding.users), ("items", encoding.items)):
        for kind in ("categorical", "multi"):
            for i, values in enumerate(getattr(features, kind).values()):
                rows[f"{tower}.attributes.{kind}.{i}.weight"] = [_UNKNOWN, *values]
    for table, ids in (("user", users), ("user_bias", users), ("item", items), ("item_bias", items)):
        rows[f"factors.{table}.weight"] = ids
    looked_for = [f"{name}\0{v}" for name in bundle.model.looked_for for v in encoding.labels[name].values or ("",)]
    rows |= {f"encoder.labels.{part}": looked_for for part in ("queries", "weights")}
    for name, task in bundle.model.tasks.items():
        if isinstance(task, NextItem):
            rows[f"rankers.{name}.bias.weight"] = items
        else:
            by_name = isinstance(bundle.model.head(name).linear, LabelEmbeddings)
            for part in ("vectors" if by_name else "weight", "bias"):
                rows |= {
                    f"heads.{name}.{which}.{part}": encoding.labels[name].values for which in ("linear", "new")
                }
    return rows
