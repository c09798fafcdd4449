"""The `mtrec` command. Heavy imports happen inside the commands, so that `mtrec --help` answers at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipelines import (
    cli_check,
    cli_cluster,
    cli_data,
    cli_drift,
    cli_ensemble,
    cli_lineage,
    cli_models,
    cli_monitor,
    cli_tune,
)
from pipelines.cli_options import (
    ClusterOption,
    DataOption,
    DebugOption,
    GpusOption,
    ImageOption,
    ScenarioOption,
    SetOption,
    TrackingOption,
    console,
    fail,
    misused,
    new_app,
    placing,
    reset,
    scenario_from,
)

app = new_app("Train, gate and register multi-task recommenders. Start with: mtrec run")
report = new_app("The report of a run.")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_drift.app, name="drift")
app.add_typer(cli_check.app, name="cluster")
app.add_typer(report, name="report")
app.add_typer(cli_cluster.runs, name="runs")
app.add_typer(cli_cluster.schedule, name="schedule")


@app.command()
def run(
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of training; short for --set training.seed=N."),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME", help="Container image to name in the lineage.")
    ] = None,
    tracking_uri: TrackingOption = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Reuse validate, preprocess and training if nothing changed.")
    ] = True,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show everything that the steps print.")] = False,
    debug: DebugOption = False,
) -> None:
    """Run the training pipeline on this machine, from data to a gated, registered model.

    The state lies in .mtrec under the working directory. Stop it with Ctrl-C and
    give the same command again to go on. Exit codes: 0 registered, 1 a step
    failed or another run is going on here, 2 wrong input, 3 the gate refused the
    candidate, 130 stopped.
    """
    from mtrec.errors import GateRefused
    from pipelines.kfp_session import Interrupted
    from pipelines.local import LOCAL_IMAGE, run_training
    from pipelines.results import print_result
    from pipelines.workspace import Workspace, callable_as

    output = console()
    try:
        result = run_training(
            scenario_from(scenario, settings, seed),
            workspace=Workspace.here(),
            console=output,
            data=data,
            tracking_uri=tracking_uri,
            image=image or LOCAL_IMAGE,
            cache=cache,
            verbose=verbose,
        )
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: {callable_as('mtrec')} {shlex.join(sys.argv[1:])}") from error
    print_result(result, output)
    if not result.passed:
        raise GateRefused(f"the gate refused the candidate: {'; '.join(result.reasons)}")


app.command()(cli_monitor.monitor)
app.command()(cli_monitor.watch)
app.command()(cli_tune.tune)
app.command()(cli_ensemble.ensemble)
app.command()(cli_lineage.lineage)
app.command()(cli_cluster.submit)


@app.command("compile")
def compile_command(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The YAML file to write. Default: NAME_pipeline.yaml."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", "-s", metavar="NAME|FILE", help="Scenario to fill in as the default."),
    ] = None,
    settings: SetOption = None,
    cluster: ClusterOption = None,
    image: ImageOption = None,
    release: Annotated[
        bool, typer.Option("--release", help="Refuse an image that is not pinned by @sha256: digest.")
    ] = False,
    gpus: GpusOption = None,
    pipeline: Annotated[
        str, typer.Option("--pipeline", metavar="NAME", help="training, monitoring (which contains it) or search.")
    ] = "training",
    debug: DebugOption = False,
) -> None:
    """Compile a pipeline for Kubeflow, after checking it for what KFP gets silently wrong.

    Where things are on the storage of --cluster becomes the default of the pipeline's
    parameters; without --scenario each run has to be given the scenario.
    """
    import json

    from mtrec.errors import InputError
    from pipelines.compiling import FOR_CLUSTERS
    from pipelines.submitting import parameters_of
    from pipelines.targets import new_file
    from pipelines.workspace import shown

    if pipeline not in FOR_CLUSTERS:
        raise InputError(f"--pipeline {pipeline}: unknown; choose one of {', '.join(FOR_CLUSTERS)}")
    if settings and scenario is None:
        raise InputError("--set without --scenario: name the scenario whose settings it changes")
    placed = placing(cluster, image=image, gpus=gpus)
    file = f"{pipeline}_pipeline.yaml"
    output = output or Path(file)
    target = new_file(output, "--output", file)
    loaded = scenario_from(scenario, settings) if scenario is not None else None
    parameters = parameters_of(pipeline, placed.cluster, loaded)
    if loaded is not None:
        parameters["scenario"] = json.dumps(loaded.as_dict())
    FOR_CLUSTERS[pipeline](target, placed, release=release, parameters=parameters)
    leased = pipeline != "search" and placed.cluster is not None and placed.cluster.lease_hours is not None
    asks = f"give each run the scenario{' and the lease' if leased else ''}, or compile with --scenario"
    typer.echo(f"{shown(output)} written{f'; {asks}' if loaded is None else ''}")


@report.command("open")
def open_report(
    path: Annotated[bool, typer.Option("--path", help="Only print where it is.")] = False,
    debug: DebugOption = False,
) -> None:
    """Open the newest run's report in a browser and print its path."""
    from pipelines.workspace import Workspace, shown

    newest = Workspace.here().latest_report()
    typer.echo(shown(newest))
    if not path:
        import webbrowser

        webbrowser.open(newest.as_uri())


@app.command()
def version(debug: DebugOption = False) -> None:
    """Print the version and the revision of the code."""
    from mtrec import __version__
    from mtrec.lineage import code_revision

    typer.echo(f"mtrec {__version__} ({code_revision()})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors become one line and an exit code."""
    from typer.exceptions import TyperException

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    reset()
    try:
        code = app(list(arguments) if arguments is not None else None, prog_name="mtrec", standalone_mode=False)
    except TyperException as error:
        raise SystemExit(misused(error)) from None
    except Exception as error:
        raise SystemExit(fail(error)) from None
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
