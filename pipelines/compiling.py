"""Compile a pipeline, and refuse what KFP compiles without a word but runs wrongly.

Two checks. `check_source` reads the pipeline's Python: a compound condition never reaches the compiled file, so
it cannot be found there. `check_spec` reads the compiled file: caching, images, conditions.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from mtrec.data.contract import replacing_file
from mtrec.errors import ConfigError
from pipelines.placing import PLAIN, Placing

_CONDITIONS = ("If", "Elif", "Condition")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def compile_training(path: Path, placed: Placing = PLAIN, **settings: Any) -> Path:
    """Compile the training pipeline as it runs here: whoever calls it gets its artifacts.

    Args:
        path: the YAML file to write.
        placed: where and with what its tasks run.
        settings: `release` and `parameters` of `compile_pipeline`.

    Returns:
        The path.

    Raises:
        ConfigError: a check refused the pipeline; the message lists every reason. Nothing is written.
    """
    from pipelines import training

    return _compile(training, training.training_pipeline, path, placed, settings)


def compile_guarded(path: Path, placed: Placing = PLAIN, **settings: Any) -> Path:
    """Compile the training pipeline for a cluster; arguments, result and errors are those of `compile_training`."""
    from pipelines import guarded

    return _compile(guarded, guarded.guarded_training_pipeline, path, placed, settings)


def compile_monitoring(path: Path, placed: Placing = PLAIN, **settings: Any) -> Path:
    """Compile the monitoring pipeline; arguments, result and errors are those of `compile_training`."""
    from pipelines import monitoring

    return _compile(monitoring, monitoring.monitoring_pipeline, path, placed, settings)


def compile_search(path: Path, placed: Placing = PLAIN, **settings: Any) -> Path:
    """Compile the search pipeline; arguments, result and errors are those of `compile_training`."""
    from pipelines import searching

    return _compile(searching, searching.search_pipeline, path, placed, settings)


FOR_CLUSTERS = {"training": compile_guarded, "monitoring": compile_monitoring, "search": compile_search}
"""What can be sent to a cluster, by the name that people give."""


def _compile(
    module: ModuleType, build: Callable[[Placing], Any], path: Path, placed: Placing, settings: dict[str, Any]
) -> Path:
    from pipelines import training

    sources = [Path(inspect.getfile(one)) for one in dict.fromkeys((module, training))]  # which all contain
    compile_pipeline(lambda: build(placed), path, sources=sources, side_effects=module.SIDE_EFFECTS, **settings)
    return path


def compile_pipeline(
    build: Callable[[], Any],
    path: Path,
    *,
    sources: Sequence[Path] = (),
    side_effects: Sequence[str] = (),
    release: bool = False,
    parameters: Mapping[str, str] | None = None,
) -> None:
    """Check and compile any pipeline.

    Args:
        build: returns the pipeline, a function decorated with `dsl.pipeline`. KFP checks the graph while it is
            decorated, so that has to happen in here.
        path: the YAML file to write.
        sources: the Python files that hold the pipeline; without any only the compiled file is checked.
        side_effects: tasks (as named in the compiled file: register-model) that must never be cached.
        release: refuse images that are not pinned by digest.
        parameters: new defaults of pipeline parameters.

    Raises:
        ConfigError: a check refused the pipeline; the message lists every reason. Nothing is written.
    """
    from kfp import compiler
    from kfp.compiler.compiler_utils import InvalidTopologyException

    problems = [problem for source in sources for problem in check_source(source)]
    if problems:
        raise ConfigError("; ".join(problems))
    with replacing_file(path) as temporary:
        compiled = temporary.with_suffix(".yaml")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiler.Compiler().compile(
                    build(), str(compiled), pipeline_parameters=dict(parameters or {}) or None
                )
            spec = next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
            problems = check_spec(spec, side_effects=side_effects, release=release)
            if problems:
                raise ConfigError(f"pipeline {spec['pipelineInfo']['name']}: {'; '.join(problems)}")
            compiled.replace(temporary)
        except (InvalidTopologyException, AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{sources[0] if sources else 'pipeline'}: does not compile: {error}") from error
        finally:
            compiled.unlink(missing_ok=True)


def check_source(path: Path) -> list[str]:
    """Conditions that KFP drops or cannot take, found in a pipeline's Python file.

    Returns:
        One line per problem, `file:line: what, and how to mend it`.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    problems = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_condition(node.func) and (node.args or node.keywords):
            given = node.args[0] if node.args else node.keywords[0].value
            problem = _condition_problem(given)
            if problem:
                problems.append(f"{path.name}:{node.lineno}: dsl.If({ast.unparse(given)}): {problem}")
    return problems


def check_spec(spec: Mapping[str, Any], *, side_effects: Sequence[str] = (), release: bool = False) -> list[str]:
    """What is wrong in a compiled pipeline.

    Args:
        spec: the compiled file as a mapping.
        side_effects: tasks that must never be cached.
        release: refuse images that are not pinned by digest.

    Returns:
        One line per problem.
    """
    problems = []
    seen = set()
    for name, task in _tasks(spec):
        seen.add(name)
        cached = bool(task.get("cachingOptions", {}).get("enableCache"))
        if cached and name in side_effects:
            problems.append(
                f"task {name} writes outside its outputs and is cached: call set_caching_options(False) on it"
            )
        if cached and _is_exit_task(task):
            problems.append(f"exit task {name} is cached and would not run: call set_caching_options(False) on it")
        condition = task.get("triggerPolicy", {}).get("condition", "")
        for channel in re.findall(r"pipelinechannel--([\w-]+)", condition):
            made = task["inputs"]["parameters"].get(f"pipelinechannel--{channel}", {})
            if "taskOutputParameter" in made and not channel.endswith("-Output"):
                problems.append(
                    f"condition on {channel}: the local runner reads only a task's single unnamed output and "
                    "takes any other for false; let the component return one str"
                )
    for name in side_effects:
        if name not in seen:
            problems.append(f"task {name} is listed as having side effects and is not in the pipeline")
    if release:
        problems += _image_problems(spec)
    return problems


def _image_problems(spec: Mapping[str, Any]) -> list[str]:
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    images = sorted({executor["container"]["image"] for executor in executors.values() if "container" in executor})
    return [
        f"image {image} can change under its name: a release needs NAME@sha256:<64 hex digits>, by --image or in "
        "the cluster file"
        for image in images
        if not _DIGEST.search(image)
    ]


def _tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    graphs = [spec.get("root", {}), *spec.get("components", {}).values()]
    for graph in graphs:
        yield from graph.get("dag", {}).get("tasks", {}).items()


def _is_exit_task(task: Mapping[str, Any]) -> bool:
    waits = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    return waits and any(name.startswith("exit-handler-") for name in task.get("dependentTasks", []))


def _is_condition(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
    return name in _CONDITIONS


def _condition_problem(given: ast.expr) -> str:
    merge = "Let one component decide and compare its ONE output string, e.g. gate.output == 'pass'."
    if isinstance(given, ast.BoolOp):
        word = "and" if isinstance(given.op, ast.And) else "or"
        return f"Python's '{word}' keeps one side and KFP never sees the other. {merge}"
    if isinstance(given, ast.UnaryOp) and isinstance(given.op, ast.Not):
        return f"Python's 'not' is evaluated while compiling. Write the opposite comparison. {merge}"
    if isinstance(given, ast.Compare) and len(given.ops) > 1:
        return f"a chained comparison is a hidden 'and', of which KFP sees one side. {merge}"
    if not isinstance(given, ast.Compare):
        return f"write one comparison here. {merge}"
    if isinstance(given.ops[0], ast.In | ast.NotIn | ast.Is | ast.IsNot):
        return f"'in' and 'is' are evaluated while compiling. {merge}"
    return ""
