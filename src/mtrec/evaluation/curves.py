"""The learning curves of the report, from the lines of losses.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtrec.evaluation.early_curves import early_curves
from mtrec.evaluation.plots import Series, Strip, smooth, steps_plot, thin
from mtrec.evaluation.wording import finite, metric_label, number

Json = Mapping[str, Any]


def learning_curves(losses: Sequence[Json], tasks: Json, best_epoch: Any) -> dict[str, Any]:
    """One drawing for what came before the tasks, one for the joint loss and one per task.

    Args:
        losses: lines with `kind` train (`step`, `loss`, `losses`) or valid (`step`, `epoch`, `score`, `metrics`,
            and `losses` where they were measured). A key of `metrics` is `task.metric`, or `task` for its skill.
        tasks: the evaluation's tasks, for their order and their primary metric.
        best_epoch: the epoch whose weights were kept, marked where it is known.

    Returns:
        `plots` (name, svg), and `epochs` with `columns`: the validation numbers as a table.
    """
    train = [line for line in losses if line.get("kind") == "train" and finite(line.get("step")) is not None]
    valid = [line for line in losses if line.get("kind") == "valid" and finite(line.get("step")) is not None]
    best = [float(line["step"]) for line in valid if best_epoch is not None and line.get("epoch") == best_epoch]
    mark = (best[0], f"best epoch: {number(best_epoch)}") if best else None
    plots = early_curves(losses)
    whole = _drawing(
        "all tasks together", _pick(train, "loss"), _pick(valid, "loss"), _pick(valid, "score"), "score"
    )
    if whole:
        plots.append({"name": "All tasks together", "svg": steps_plot(whole[0], whole[1], mark=mark)})
    named = {name for line in [*train, *valid] for name in line.get("losses") or {}}
    for name in [*tasks, *sorted(named - set(tasks))]:
        key = _metric_of(name, tasks.get(name) or {}, valid)
        drawing = _drawing(
            name,
            _pick(train, "losses", name),
            _pick(valid, "losses", name),
            _pick(valid, "metrics", key) if key else [],
            _label(key) if key else "",
        )
        if drawing:
            plots.append({"name": name, "svg": steps_plot(drawing[0], drawing[1], mark=mark)})
    return {"plots": plots, **_epochs(valid)}


def _pick(lines: Sequence[Json], *keys: str) -> list[tuple[float, float]]:
    points = []
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        y = finite(value)
        if y is not None:
            points.append((float(line["step"]), y))
    return points


def _metric_of(name: str, task: Json, valid: Sequence[Json]) -> str | None:
    """The key of a task's validation numbers: `task.primary`, else another metric of it, else its skill `task`."""
    there = [key for line in valid for key in line.get("metrics") or {} if key.partition(".")[0] == name]
    wanted = f"{name}.{task.get('primary')}"
    return wanted if wanted in there else next(iter(there), None)


def _label(key: str) -> str:
    return metric_label(key.partition(".")[2] or "skill")


def _drawing(
    name: str,
    train: list[tuple[float, float]],
    valid: list[tuple[float, float]],
    metric: list[tuple[float, float]],
    label: str,
) -> tuple[list[Strip], str] | None:
    strips, told = [], []
    if train or valid:
        points = thin(train)
        few = len(points) <= 12
        lines = [Series(points=points, style="raw", dots=few), Series(points=smooth(points), style="after")]
        legend = [("after", "train"), ("valid", "valid")] if train and valid else []
        if valid:
            lines.append(Series(points=valid, style="valid", dots=True))
        strips.append(Strip(title="Loss", series=lines, legend=legend))
        if points:
            told.append(f"training loss from {number(points[0][1])} to {number(points[-1][1])}")
    if metric:
        line = Series(points=metric, style="valid", dots=True)
        strips.append(Strip(title=f"Validation {label}", series=[line], height=70))
        told.append(f"validation {label} from {number(metric[0][1])} to {number(metric[-1][1])}")
    if not strips:
        return None
    return strips, f"Learning curve of {name}: {'; '.join(told)}."


def _epochs(valid: Sequence[Json]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for line in valid for key in line.get("metrics") or {}))
    rows = [
        {
            "epoch": line.get("epoch"),
            "step": line.get("step"),
            "score": line.get("score"),
            "values": [(line.get("metrics") or {}).get(key) for key in columns],
        }
        for line in valid
    ]
    names = [(key.partition(".")[0], _label(key)) for key in columns]
    return {"columns": names, "epochs": rows, "skill": any("." not in key for key in columns)}
