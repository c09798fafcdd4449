"""The reference of scenario files, docs/scenario.md, written from the models in mtrec.config.

`pipelines.reference` writes it together with the reference of the command line.
"""

from __future__ import annotations

import inspect
import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_HEAD = """# Scenario files

A scenario is one YAML file. `mtrec run --scenario my-shop.yaml --data shop` reads it; a wrong key stops the run
with its place and the reason. Written by `make docs` from `src/mtrec/config.py`; a test fails when it is out of
date.

## Your own files: an example

Three files in the folder `shop`, with the columns that your system happens to have:

```csv users.csv
id,city
u1,Ulm
u2,Graz
```

```csv items.csv
sku,name,kind,price,labels
p1,Green tea,tea,4.50,organic|loose
p2,Blue mug,mug,12.00,gift
```

```csv events.csv
user,sku,what,stars,day
u1,p1,view,,01.03.2026 09:15
u1,p1,buy,,01.03.2026 09:20
u1,p1,review,5,08.03.2026 18:00
```

`my-shop.yaml` maps them:

```yaml
name: my-shop
description: A small shop with its own files.
source:
  type: tables
  users:
    file: users.csv
    columns: {user_id: id, city: city}          # contract column: column in the file
  items:
    file: items.csv
    columns: {item_id: sku, title: name, kind: kind, price: price, tags: labels}
    lists: {tags: "|"}                          # several values in one cell
  interactions:
    file: events.csv
    columns: {user_id: user, item_id: sku, event: what, rating: stars, timestamp: day}
    times: {timestamp: "%d.%m.%Y %H:%M"}        # ISO times need no format
    where: ["what <> 'test'"]                   # rows to keep
users: {categorical: [city]}
items: {text: "{title}", numeric: [price], categorical: [kind], multi: [tags]}
events: [view, buy, review]
rating_range: [1, 5]
tasks:
  rating: {type: regression, on: pair, label: interactions.rating}
  buy: {type: binary, on: pair, exposure: [view], positive: [buy]}
  kind: {type: classification, on: item, label: items.kind}
  next_item: {type: next_item, events: [view, buy]}
```

Files may be CSV, TSV, JSON lines (each gzipped or not) or Parquet. No users file? Leave `source.users` out. No
event column? `constants: {event: purchase}`. One log for everything? Name it three times, with `distinct: true` for
users and items, as [`online-retail.yaml`](../scenarios/online-retail.yaml) does. `mtrec data ingest` tries the
mapping alone. A single key is changed without a new file by `--set training.epochs=10`.

## The contract tables

Every source becomes three tables. These columns are needed; any other column may be added, and features, text and
labels are then named by it.
"""

_AFTER_TABLES = """
`rating` (a number) is an optional column of interactions. Without users, each `user_id` of the interactions is one.
"""


def scenario_reference() -> str:
    """The reference of every key of a scenario, in Markdown."""
    from mtrec.config import Scenario
    from mtrec.data.contract import REQUIRED

    parts = [_HEAD, "| table | columns |", "|---|---|"]
    parts += [f"| {table} | {', '.join(f'`{name}`' for name in names)} |" for table, names in REQUIRED.items()]
    parts += [_AFTER_TABLES, "## Top level", "", *table(Scenario)]
    for paths, model in sections():
        parts += _section(paths, model)
    return "\n".join(parts).rstrip() + "\n"


def sections() -> list[tuple[list[str], type[BaseModel]]]:
    """Every part of a scenario with the places where it may stand, in the order of the scenario's keys."""
    from mtrec.config import Scenario
    from mtrec.data.sources.simulated import Dials

    found: dict[type[BaseModel], list[str]] = {}
    for path, model in walk(Scenario):
        found.setdefault(model, []).append(path)
        if path == "source":
            found[Dials] = ["source.options"]
    return [(paths, model) for model, paths in found.items()]


def metrics() -> dict[str, list[str]]:
    """Names of the metrics per task type, the primary one first: asked from the code that computes them."""
    import numpy as np

    from mtrec.config import Task
    from mtrec.evaluation import metrics as m

    pair, table = np.array([0.0, 1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    found = {}
    for model in get_args(get_args(Task)[0]):
        kind = get_args(model.model_fields["type"].annotation)[0]
        if kind == "next_item":
            names = [*m.ranking_of_user(np.array([1.0])), f"coverage@{m.CUTOFFS[0]}"]
        else:
            target = table if kind in ("multilabel", "profile") else pair
            predicted = pair if kind in ("regression", "binary") else table
            names = list(m.compute(model.model_construct(type=kind), target, predicted))
        found[kind] = [m.PRIMARY[kind], *(name for name in names if name != m.PRIMARY[kind])]
    return found


def describe(model: type[BaseModel], name: str) -> str:
    """What a key means: its docstring, else that of the class that it comes from."""
    for owner in model.__mro__:
        field = getattr(owner, "model_fields", {}).get(name)
        if field is not None and field.description:
            return " ".join(field.description.split())
    return ""


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model within a model, with the place where it stands."""
    for name, field in model.model_fields.items():
        mapping = get_origin(field.annotation) is dict
        for child in _models(field.annotation):
            path = f"{prefix}{name}.NAME" if mapping else f"{prefix}{name}"
            yield path, child
            yield from walk(child, f"{path}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


_TASKS = """## `tasks`

Each task has a name of your choice and one of the types below: `rating: {type: regression, …}`. In `gate.floors` a
metric of a task is `task.metric`, e.g. `rating.rmse`.
"""


def _section(paths: list[str], model: type[BaseModel]) -> list[str]:
    about = ["", inspect.cleandoc(model.__doc__ or ""), ""]
    if paths != ["tasks.NAME"]:
        return [f"## {', '.join(f'`{path}`' for path in paths)}", *about, *table(model)]
    kind, all_metrics = str(get_args(model.model_fields["type"].annotation)[0]), metrics()
    lines = [_TASKS] if kind == next(iter(all_metrics)) else []
    lines += [f"### `tasks.NAME`, `type: {kind}`", *about]
    lines += [f"Metrics: {', '.join(f'`{name}`' for name in all_metrics[kind])}. The gate compares the first.", ""]
    return lines + table(model, leave_out=("type", "label") if kind == "next_item" else ("type",))


def table(model: type[BaseModel], leave_out: tuple[str, ...] = ()) -> list[str]:
    """The keys of a model as the lines of a table in Markdown."""
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in leave_out:
            value = "; ".join(part for part in (_kind(field.annotation), _range(field)) if part)
            cells = (f"`{name}`", value, _default(field), describe(model, name))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*rows, ""]


_PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def _kind(annotation: Any) -> str:
    """A type in plain words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inside[0])
    if origin in (Union, types.UnionType):
        parts = dict.fromkeys(_kind(part) for part in inside if part is not types.NoneType)
        return " or ".join(parts)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin is list:
        return f"list of {_kind(inside[0])}"
    if origin is dict:
        return f"mapping of {_kind(inside[0])} to {_kind(inside[1])}"
    if origin is tuple:
        return f"list of {len(inside)} {_kind(inside[0])}s"
    if _models(annotation):
        return "mapping, see below"
    return _PLAIN.get(annotation) or str(getattr(annotation, "__name__", annotation))


def _range(field: FieldInfo) -> str:
    """The values that are allowed, in plain words."""
    words = []
    for limit in field.metadata:
        for kind, sign, name in _SIGNS:
            if isinstance(limit, kind):
                words.append(f"{sign} {getattr(limit, name)}")
        if getattr(limit, "pattern", None):
            words.append(f"`{limit.pattern}`")
    return ", ".join(words)


_SIGNS = (
    (annotated_types.Ge, "≥", "ge"),
    (annotated_types.Gt, ">", "gt"),
    (annotated_types.Le, "≤", "le"),
    (annotated_types.Lt, "<", "lt"),
)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    if field.default is None or isinstance(field.default, BaseModel):
        return ""
    return f"`{json.dumps(field.default, default=str)}`"
