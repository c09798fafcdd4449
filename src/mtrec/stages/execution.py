"""Run one stage by its name: the door that KFP components and `python -m mtrec.stages` (dvc.yaml) share.

Every stage module has frozen dataclasses `Inputs` and `Outputs` and a function `run`. Their fields arrive
here as text, because that is what a pipeline parameter or a command line holds, and get their types here.

A component that fails writes one marked line with the message, so that whoever runs the pipeline can print
`mtrec: <message>` instead of a traceback of the workflow engine. On a cluster it also settles whether to try again,
see `retrying`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import traceback
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from mtrec.config import Scenario, parse_scenario
from mtrec.disk import explain
from mtrec.errors import ConfigError, MtrecError, RunError
from mtrec.lease import of_run
from mtrec.progress import line_writer, listening
from mtrec.stages import retrying

STAGES = ("ingest", "validate", "preprocess", "fine_tune", "evaluate", "gate", "register")
"""The stages of a training run, in order."""
KNOWN = (
    *STAGES,
    "shard",
    "preprocess_shard",
    "join_shards",
    "search",
    "report_search",
    "monitor",
    "decide",
    "record",
)
ERROR_MARK = "mtrec-error "


def run_stage(
    name: str, *, inputs: Mapping[str, Any], outputs: Mapping[str, Any], scenario: Scenario
) -> dict[str, Any]:
    """Run a stage.

    Args:
        name: one of `KNOWN`.
        inputs: field of the stage's `Inputs` → value, as text where it comes from outside. An empty text
            means that an optional field is not given.
        outputs: field of the stage's `Outputs` → path.
        scenario: the whole scenario.

    Returns:
        The stage's summary: plain JSON types.

    Raises:
        ConfigError: no such stage, or a field is missing, unknown or of the wrong type.
        MtrecError: whatever the stage raises.
    """
    if name not in KNOWN:
        raise ConfigError(f"stage '{name}': unknown; choose one of {', '.join(KNOWN)}")
    stage = importlib.import_module(f"mtrec.stages.{name}")
    filled = [
        _fill(getattr(stage, kind), given, f"{name}: {kind.lower()}")
        for kind, given in (("Inputs", inputs), ("Outputs", outputs))
    ]
    summary: dict[str, Any] = stage.run(*filled, scenario)
    return summary


def run_component(
    name: str,
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    scenario: str,
    lease: str = "",
    pipeline_run: str = "",
) -> dict[str, Any]:
    """Run a stage as the body of a KFP component: progress and failure become marked lines on stderr.

    Args:
        name: one of `KNOWN`.
        inputs: field of the stage's `Inputs` → value, as in `run_stage`.
        outputs: field of the stage's `Outputs` → path.
        scenario: the whole scenario as JSON text; as a dict, KFP would turn every number into a float.
        lease: the lease that the steps of a run on a cluster hold together, see `mtrec.lease.of_run`; empty: none,
            or the stage sees to it itself.
        pipeline_run: the run, where there is a lease.

    Returns:
        The stage's summary.

    Raises:
        SystemExit: the stage failed; the code is the error's exit code (2 wrong input, 1 failed run).
    """
    if (failed := retrying.earlier()) and (failure := read_failure(ERROR_MARK + failed)):
        _exit_marked(failure)
    try:
        with listening(line_writer()):
            parsed = parse_scenario(json.loads(scenario), where="scenario")
            with of_run(lease, pipeline_run, f"training of {parsed.name}"):
                return run_stage(name, inputs=inputs, outputs=outputs, scenario=parsed)
    except Exception as error:
        _fail(error)


def lineage(scenario: str, data_version: str, code_revision: str, image: str, pipeline_run: str) -> str:
    """The lineage of a candidate as JSON text; the scenario's digest is its parameters hash."""
    return json.dumps(
        {
            "data_version": data_version,
            "code_revision": code_revision,
            "parameters_hash": parse_scenario(json.loads(scenario)).digest,
            "image": image,
            "pipeline_run": pipeline_run,
        }
    )


def check_data_version(metadata: Mapping[str, Any], data_version: str) -> None:
    """Refuse a dataset that the workflow's cache kept from other data than this run ingested.

    Raises:
        SystemExit: the versions differ; the message is written as a marked line.
    """
    found = metadata.get("data_version")
    if found != data_version:
        stale = RunError(
            f"the dataset was made from data version {found}, this run ingested {data_version}: "
            "a cached step is out of date; run again with --no-cache"
        )
        _fail(stale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """What a failed component said."""

    message: str
    exit_code: int
    expected: bool
    """Whether mtrec raised it on purpose; otherwise it is a bug or a broken machine."""
    traceback: str
    passing: bool = False
    """Whether the machine failed rather than the step, see `retrying.comes_again`."""


def read_failure(line: str) -> Failure | None:
    """The failure in a line of a log, or None when it holds none."""
    _, mark, text = line.partition(ERROR_MARK)
    if not mark:
        return None
    try:
        content, _ = json.JSONDecoder().raw_decode(text)
        return Failure(**content)
    except (ValueError, TypeError):
        return None


def _fail(error: Exception) -> NoReturn:
    failure = _failure_of(error)
    if not failure.passing:
        retrying.note(json.dumps(dataclasses.asdict(failure)))
    _exit_marked(failure)


def _failure_of(error: Exception) -> Failure:
    told = error if isinstance(error, MtrecError) else explain(error)
    return Failure(
        message=" ".join((str(told) if told else f"{type(error).__name__}: {error}").split()),
        exit_code=told.exit_code if told else 1,
        expected=told is not None,
        traceback="".join(traceback.format_exception(error)),
        passing=not retrying.comes_again(told or error),
    )


def _exit_marked(failure: Failure) -> NoReturn:
    sys.stderr.write(f"{failure.traceback}{ERROR_MARK}{json.dumps(dataclasses.asdict(failure))}\n")
    sys.stderr.write(f"mtrec: {failure.message}\n")
    sys.stderr.flush()
    raise SystemExit(failure.exit_code)


def _fill(kind: type, given: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)} (known: {', '.join(fields)})")
    values = {name: _convert(hints[name], value, f"{where} '{name}'") for name, value in given.items()}
    for name, field in fields.items():
        has_default = any(d is not dataclasses.MISSING for d in (field.default, field.default_factory))
        if name in values or has_default:
            continue
        if not _is_optional(hints[name]):
            raise ConfigError(f"{where}: '{name}' is missing (needs {', '.join(fields)})")
        values[name] = None
    return kind(**values)


def _is_optional(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if _is_optional(hint):
        if value is None or value == "":
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if hint is Path:
        if not str(value):
            raise ConfigError(f"{where} is empty: give a path")
        return Path(value)
    if hint is bool and isinstance(value, str):
        if value not in ("true", "false"):
            raise ConfigError(f"{where} is '{value}': write true or false")
        return value == "true"
    if typing.get_origin(hint) is dict and isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ConfigError(f"{where} is not valid JSON ({error})") from error
    return value
