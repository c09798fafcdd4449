"""The space of a search: which settings, which values, and the scenario that a point of it stands for."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mtrec.config import Parameter, Scenario, Value, parse_scenario, read_yaml
from mtrec.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Point = dict[str, Value]
"""Dotted setting → value."""
MAX_GRID = 10_000
"""Points of a grid; more than that nobody trains."""
_DIGITS = 4


def check_space(scenario: Scenario) -> None:
    """Make sure that every point of the scenario's space is a scenario, as far as one setting at a time can tell.

    Raises:
        ConfigError: the space is empty, a path is unknown or changes the data, a value is not allowed there, or a
            grid has no end; one line that names every wrong parameter.
    """
    search = scenario.search
    if not search.space:
        raise ConfigError(
            f"scenario {scenario.name}: search.space is empty; name the settings to try, e.g. "
            "--set 'search.space.training.lr={low: 0.0003, high: 0.01, log: true}', or give --space FILE"
        )
    problems = [text for path, parameter in search.space.items() for text in _problems(scenario, path, parameter)]
    if problems:
        raise ConfigError(f"search.space: {'; '.join(problems)}")
    if search.sampler == "grid" and (points := _grid_size(scenario)) > MAX_GRID:
        raise ConfigError(f"search.space: a grid of {points:,} points, at most {MAX_GRID:,}; use --sampler tpe")


def at(scenario: Scenario, point: Mapping[str, Value]) -> Scenario:
    """The scenario with the point's settings.

    Raises:
        ConfigError: the settings do not go together.
    """
    raw = copy.deepcopy(scenario.as_dict())
    for path, value in point.items():
        node, last = _place(raw, path)
        node[last] = value
    return parse_scenario(raw, where="trial")


def distributions(scenario: Scenario) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(path: str, p: Parameter) -> BaseDistribution:
        if p.choices is not None:
            return CategoricalDistribution(p.choices)
        low, high = _ends(p)
        if p.step:
            high = _steps(p)[-1]
        if _is_whole(scenario, path):
            return IntDistribution(int(low), int(high), log=p.log, step=int(p.step or 1))
        return FloatDistribution(low, high, log=p.log, step=p.step)

    return {path: one(path, parameter) for path, parameter in scenario.search.space.items()}


def start(scenario: Scenario) -> Point:
    """The point of the space nearest to the scenario's own settings: in each parameter the nearest value."""
    return {path: _nearest(scenario, path) for path in scenario.search.space}


def moved(scenario: Scenario) -> list[str]:
    """Where the scenario's own settings lie outside the space, in words: `training.lr: 0.5, tried from 0.01`."""
    return [
        f"{path}: {_yaml(_present(scenario, path))}, tried from {_yaml(value)}"
        for path, value in start(scenario).items()
        if value != _present(scenario, path)
    ]


def grid(scenario: Scenario) -> list[Point]:
    """All points of the grid, each once, in an order drawn by `search.seed`, so that the first ones say most.

    Optuna's own GridSampler may give two processes the same point; these are queued in the study instead, where
    each is taken once.
    """
    space = scenario.search.space
    axes = [_values(scenario, path) for path in space]
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    random.Random(scenario.search.seed).shuffle(points)
    return points


def settled(scenario: Scenario, params: Mapping[str, Any]) -> Point:
    """What Optuna suggested, with floats rounded to four digits, as it is trained with and shown."""
    point: Point = {}
    for path, parameter in scenario.search.space.items():
        value = params[path]
        if isinstance(value, float) and parameter.choices is None:
            low, high = _ends(parameter)
            value = min(max(float(f"{value:.{_DIGITS}g}"), low), high)
        point[path] = value
    return point


def as_settings(point: Mapping[str, Value]) -> list[str]:
    """The point as arguments of `--set`: training.lr=0.002."""
    return [f"{path}={_yaml(value)}" for path, value in point.items()]


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first difference of two spaces given as plain data, in words; empty when there is none."""
    for path in [*before, *(path for path in now if path not in before)]:
        if before.get(path) != now.get(path):
            return f"{path}: {_told(before.get(path))} there, {_told(now.get(path))} here"
    return ""


def _problems(scenario: Scenario, path: str, parameter: Parameter) -> Iterator[str]:
    section, *rest = path.split(".")
    if section not in ("model", "training") and not (section == "tasks" and rest[1:] == ["weight"]):
        yield f"{path}: only settings under model and training and tasks.<name>.weight can be searched"
        return
    raw = scenario.as_dict()
    try:
        node, last = _place(raw, path)
    except LookupError as error:
        yield f"{path}: {error.args[0]}"
        return
    present = node[last]
    if isinstance(present, (dict, list)):
        yield f"{path}: a section, name one setting in it"
    elif parameter.choices is None and (isinstance(present, (bool, str)) or present is None):
        yield f"{path}: holds no number, give 'choices'"
    elif _is_whole(scenario, path) and any(v % 1 for v in (parameter.low, parameter.high, parameter.step) if v):
        yield f"{path}: whole numbers only"
    elif scenario.search.sampler == "grid" and parameter.choices is None and not _has_steps(scenario, path):
        yield f"{path}: a grid needs 'choices', or 'low', 'high' and 'step'"
    else:
        for value in parameter.choices or (parameter.low, parameter.high):
            yield from _refused(scenario, path, value)


def _refused(scenario: Scenario, path: str, value: Value) -> Iterator[str]:
    value = int(value) if isinstance(value, float) and _is_whole(scenario, path) and value == int(value) else value
    try:
        at(scenario, {path: value})
    except ConfigError as error:
        yield str(error).removeprefix("trial: ")


def _place(raw: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    node: Any = raw
    *parents, last = path.split(".")
    for depth, part in enumerate([*parents, last]):
        so_far = ".".join(path.split(".")[:depth]) or "the scenario"
        if node is None:
            raise LookupError(f"{so_far} is not set in the scenario; set it there first")
        if not isinstance(node, dict) or part not in node:
            known = f" (known: {', '.join(map(str, node))})" if isinstance(node, dict) and node else ""
            raise LookupError(f"{so_far} has no '{part}'{known}")
        if depth < len(parents):
            node = node[part]
    return node, last


def _present(scenario: Scenario, path: str) -> Value:
    node, last = _place(scenario.as_dict(), path)
    value: Value = node[last]
    return value


def _is_whole(scenario: Scenario, path: str) -> bool:
    present = _present(scenario, path)
    return isinstance(present, int) and not isinstance(present, bool)


def _has_steps(scenario: Scenario, path: str) -> bool:
    parameter = scenario.search.space[path]
    return parameter.step is not None or (_is_whole(scenario, path) and not parameter.log)


def _ends(parameter: Parameter) -> tuple[float, float]:
    assert parameter.low is not None
    assert parameter.high is not None
    return parameter.low, parameter.high


def _steps(parameter: Parameter) -> list[float]:
    (low, high), step = _ends(parameter), parameter.step or 1
    return [round(low + k * step, 12) for k in range(math.floor((high - low) / step + 1e-9) + 1)]


def _values(scenario: Scenario, path: str) -> list[Value]:
    """All values of a parameter with choices or steps."""
    parameter = scenario.search.space[path]
    if parameter.choices is not None:
        return list(parameter.choices)
    return [int(step) if _is_whole(scenario, path) else step for step in _steps(parameter)]


def _grid_size(scenario: Scenario) -> int:
    return math.prod(len(_values(scenario, path)) for path in scenario.search.space)


def _nearest(scenario: Scenario, path: str) -> Value:
    parameter, present = scenario.search.space[path], _present(scenario, path)
    number = None if isinstance(present, (bool, str)) else present
    if parameter.choices is not None:
        choices = parameter.choices
        same = [c for c in choices if c == present and isinstance(c, bool) == isinstance(present, bool)]
        if same:
            return same[0]
        numbers = [c for c in choices if isinstance(c, (int, float)) and not isinstance(c, bool)]
        return choices[0] if number is None or not numbers else min(numbers, key=lambda c: abs(c - number))
    assert number is not None
    low, high = _ends(parameter)
    near = min(_steps(parameter), key=lambda v: abs(v - number)) if parameter.step else min(max(number, low), high)
    return int(near) if _is_whole(scenario, path) else float(near)


def _yaml(value: Value) -> str:
    if isinstance(value, str) and read_yaml(value) == value:
        return value
    return json.dumps(value)


def _told(parameter: Any) -> str:
    if parameter is None:
        return "nothing"
    given = {key: value for key, value in parameter.items() if value is not None and value is not False}
    return json.dumps(given).replace('"', "")
