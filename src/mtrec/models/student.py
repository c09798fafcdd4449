"""A student: fewer of a teacher's encoder layers, and its towers and heads."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from mtrec.config import Encoder, NextItem
from mtrec.data.questions import same_question
from mtrec.errors import ModelError
from mtrec.models.encoder import TextEncoder, empty_backbone, transformer_layers
from mtrec.models.label_embeddings import LabelEmbeddings
from mtrec.models.store import Bundle

log = logging.getLogger(__name__)

_UNKNOWN = "\0unknown"
"""Name of row 0 of a table, the row of everything unknown."""


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Numbers of `wanted` out of `total` layers at even distances: the first, and from two on the last."""
    return [round(i * (total - 1) / max(wanted - 1, 1)) for i in range(wanted)]


def cut_encoder(teacher: TextEncoder, layers: int, config: Encoder) -> TextEncoder:
    """An encoder of some of the teacher's layers, with its embeddings and its tokenizer, on its device.

    Which layers: `evenly_spaced` (as DistilBERT starts, arXiv:1910.01108). Adapters are merged into the weights.

    Args:
        teacher: stays as it is.
        layers: the student's layers, at most as many as the teacher has.
        config: what of the student learns, and how it is pooled.

    Raises:
        ModelError: the teacher has fewer layers, or its architecture cannot be cut.
    """
    base: Any = teacher.backbone
    if hasattr(base, "merge_and_unload"):
        base = copy.deepcopy(base).merge_and_unload()
    stack = transformer_layers(base)
    if layers > len(stack):
        raise ModelError(f"distillation.layers: {layers} are asked for, the teacher's encoder has {len(stack)}")
    chosen = evenly_spaced(len(stack), layers)
    prefix = next(f"{name}." for name, module in base.named_modules() if module is stack)
    place = {str(old): new for new, old in enumerate(chosen)}
    weights = {}
    for name, value in base.state_dict().items():
        number, _, rest = name.removeprefix(prefix).partition(".")
        if not name.startswith(prefix):
            weights[name] = value
        elif number in place:
            weights[f"{prefix}{place[number]}.{rest}"] = value
    architecture = copy.deepcopy(base.config)
    architecture.num_hidden_layers = layers
    if getattr(architecture, "layer_types", None):
        architecture.layer_types = [architecture.layer_types[i] for i in chosen]
    try:
        backbone = empty_backbone(architecture)
        backbone.load_state_dict(weights)
    except Exception as error:  # architectures check their configurations in their own ways
        first = str(error).strip().splitlines()[0]
        raise ModelError(
            f"distillation.layers: an encoder of type {architecture.model_type} cannot be cut to {layers} layers "
            f"({first})"
        ) from error
    student = TextEncoder(backbone, copy.deepcopy(teacher.tokenizer), config).to(next(base.parameters()).device)
    student.precision = teacher.precision
    return student


@torch.no_grad()
def copy_towers(teacher: Bundle, student: Bundle) -> bool:
    """Give a student the teacher's weights outside the transformer; rows of tables go by id, category or label.

    Rows of what the teacher never saw stay as they are, and so does what is counted from the student's data.

    Returns:
        False where nothing was copied: the tasks, the features or the sizes of the two differ.
    """
    if not _built_alike(teacher, student):
        log.warning("the student's towers and heads start anew: its tasks, features or sizes are not the teacher's")
        return False
    theirs = dict(teacher.model.named_parameters())
    rows_of_theirs, rows_of_mine = _rows(teacher), _rows(student)
    for name, parameter in student.model.named_parameters():
        if name.startswith("encoder.backbone."):
            continue
        source, mine, found = theirs[name].to(parameter), rows_of_mine.get(name), rows_of_theirs.get(name)
        if not mine or not found or mine == found:
            parameter.copy_(source)
        else:
            place = {value: i for i, value in enumerate(found)}
            shared = [(i, place[value]) for i, value in enumerate(mine) if value in place]
            parameter[[i for i, _ in shared]] = source[[j for _, j in shared]]
    return True


def _built_alike(teacher: Bundle, student: Bundle) -> bool:
    a, b = teacher.scenario, student.scenario
    same_features = a.users == b.users and a.items.model_copy(update={"text": b.items.text}) == b.items
    same_tasks = list(a.tasks) == list(b.tasks) and all(same_question(a.tasks[n], b.tasks[n]) for n in b.tasks)
    return (
        same_features
        and same_tasks
        and a.model.user_heads == b.model.user_heads
        and _shapes(teacher) == _shapes(student)
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
