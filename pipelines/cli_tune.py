"""`mtrec tune`: search settings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli_options import (
    DataOption,
    DebugOption,
    ScenarioOption,
    SetOption,
    TrackingOption,
    console,
    scenario_from,
)

if TYPE_CHECKING:
    from mtrec.config import Scenario


def tune(
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="YAML file of settings to try, instead of search.space."),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            min=0,
            help="Trials of the study in all. Default: search.trials; of a grid all points.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="Begin no trial after so many seconds."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", metavar="NAME", help="tpe, random or grid; short for search.sampler.")
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option("--pruner", metavar="NAME", help="median, hyperband or none; short for search.pruner."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Database of studies: sqlite:///path or postgresql://… Default: .mtrec/search.db here.",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study", metavar="NAME", help="The study to begin or go on with. Default: named after space and data."
        ),
    ] = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Search the settings that learn all tasks best.

    Data goes once through ingest, validate and preprocess; then trials train
    with settings out of search.space: learning rates, dropout, task weights.
    Trial 0 has the scenario's own settings and the value 1; a trial's value is
    the mean over tasks of its validation skill as a share of trial 0's. Trials
    that fall behind stop early. The same command goes on with its study after
    Ctrl-C or a crash, and may run several times at once, on several machines
    with --storage postgresql://… and one --study NAME.
    """
    from pipelines.kfp_session import Interrupted
    from pipelines.tuning import run_search
    from pipelines.tuning_view import print_search
    from pipelines.workspace import Workspace, callable_as

    given = [*(settings or [])]
    given += [f"search.{key}={value}" for key, value in (("sampler", sampler), ("pruner", pruner)) if value]
    loaded = scenario_from(scenario, given)
    if space is not None:
        loaded = _with_space(loaded, space)
    output = console()
    try:
        result = run_search(
            loaded,
            workspace=Workspace.here(),
            console=output,
            command=_run_command(scenario, data, settings or []),
            data=data,
            storage=storage,
            study=study,
            trials=trials,
            timeout=timeout,
            tracking_uri=tracking_uri,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: {callable_as('mtrec')} {shlex.join(sys.argv[1:])}") from error
    print_search(result, output)


def _with_space(scenario: Scenario, path: Path) -> Scenario:
    """The scenario with the space of a file."""
    import yaml

    from mtrec.config import parse_scenario, read_yaml
    from mtrec.errors import ConfigError

    try:
        read: Any = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--space {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--space {path}: not valid YAML ({' '.join(str(error).split())})") from error
    raw = scenario.as_dict()
    raw["search"]["space"] = read
    return parse_scenario(raw, where=str(path))


def _run_command(scenario: str, data: Path | None, settings: list[str]) -> list[str]:
    """The words of the `mtrec run` with the same scenario, data and settings."""
    from pipelines.workspace import callable_as

    words = [
        *shlex.split(callable_as("mtrec")),
        "run",
        "--scenario",
        scenario,
        *(["--data", str(data)] if data else []),
    ]
    for setting in settings:
        if not setting.startswith("search."):
            words += ["--set", setting]
    return words
