"""`mtrec monitor` and `mtrec watch`: look at a data drop and retrain where so decided, once or on an interval."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_options import (
    DebugOption,
    ScenarioOption,
    SetOption,
    TrackingOption,
    console,
    scenario_from,
)

DropOption = Annotated[
    Path,
    typer.Option(
        "--data", "-d", metavar="FOLDER", help="A data drop (everything, or what is new), or a folder of drops."
    ),
]
ImageOption = Annotated[
    str | None, typer.Option("--image", metavar="NAME", help="Container image to name in the lineage.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that the steps print.")]


def monitor(
    data: DropOption,
    scenario: ScenarioOption = "ecommerce",
    settings: SetOption = None,
    image: ImageOption = None,
    tracking_uri: TrackingOption = None,
    now: Annotated[
        str | None, typer.Option("--now", metavar="TIME", help="ISO time to take for now. Default: the clock.")
    ] = None,
    verbose: VerboseOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare a data drop with what the champion knows, decide, and retrain if so decided.

    The monitoring pipeline, run on this machine. Its decision and page are kept in
    MLflow, in the experiment SCENARIO-monitoring, and in .mtrec/drift/SCENARIO.
    Exit codes: 0 skipped or registered, 1 a step failed or another run is going
    on, 2 wrong input, also data that fails its checks, 3 the gate refused the
    candidate, 130 stopped.
    """
    from mtrec.errors import DataError, GateRefused
    from pipelines.kfp_session import Interrupted
    from pipelines.local import LOCAL_IMAGE, run_monitoring
    from pipelines.results import print_result
    from pipelines.workspace import Workspace, callable_as, shown

    output = console()
    try:
        found = run_monitoring(
            scenario_from(scenario, settings),
            data,
            workspace=Workspace.here(),
            console=output,
            tracking_uri=tracking_uri,
            image=image or LOCAL_IMAGE,
            now=now or "",
            verbose=verbose,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: {callable_as('mtrec')} {shlex.join(sys.argv[1:])}") from error
    typer.echo(f"{found.decision['verdict']}: {found.decision['reason']}")
    typer.echo(shown(found.page))
    if found.decision["data"]["problems"]:
        raise typer.Exit(DataError.exit_code)
    if found.training is None:
        return
    print_result(found.training, output)
    if not found.training.passed:
        raise GateRefused(f"the gate refused the candidate: {'; '.join(found.training.reasons)}")


def watch(
    data: DropOption,
    scenario: ScenarioOption = "ecommerce",
    settings: SetOption = None,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="From one look to the next: 30m, 6h, 1d.")
    ] = "1d",
    image: ImageOption = None,
    tracking_uri: TrackingOption = None,
    times: Annotated[
        int | None, typer.Option("--times", min=1, help="So many looks, then end. Default: until stopped.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Run mtrec monitor on an interval, until it is stopped.

    Looks never overlap. A look that fails is told, and the next one comes when it
    is due, also after a restart of this command: .mtrec/drift/SCENARIO/watch.json
    knows when the last one began. With --times the exit code is the last look's,
    as of mtrec monitor.
    """
    from mtrec.errors import InputError
    from pipelines.watching import interval, monitor_in_a_process
    from pipelines.watching import watch as watch_on
    from pipelines.workspace import Workspace

    apart = interval(every)
    name = scenario_from(scenario, settings).name  # what is wrong is told now, not at the first look
    if not data.exists():
        raise InputError(f"--data {data}: no such file or folder")
    given = ["--data", str(data), "--scenario", scenario]
    for option, values in (("--set", settings or []), ("--image", [image]), ("--tracking-uri", [tracking_uri])):
        given += [part for value in values if value is not None for part in (option, value)]
    state = Workspace.here().drift / name / "watch.json"
    raise typer.Exit(watch_on(monitor_in_a_process(given), apart, state, typer.echo, times=times))
