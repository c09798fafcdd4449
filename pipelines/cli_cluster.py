"""`mtrec submit`, `mtrec runs` and `mtrec schedule`: the pipelines on a cluster with Kubeflow Pipelines."""

from __future__ import annotations

import inspect
import io
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli_options import (
    ClusterOption,
    DebugOption,
    GpusOption,
    ImageOption,
    ScenarioOption,
    SetOption,
    check_text,
    console,
    new_app,
    placing,
    scenario_from,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pipelines.kfp_server import Access, RunView, Server
    from pipelines.steps import Steps
    from pipelines.submitting import Order

runs = new_app("Runs on a cluster: list them, look at one, stop one.")
schedule = new_app("The recurring training and the recurring monitor on a cluster.")


def _not_empty(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return text


RunArgument = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Id of a run, as `mtrec runs list` shows it.", callback=_not_empty),
]
ScheduleArgument = Annotated[
    str,
    typer.Argument(metavar="SCHEDULE", help="Name or id, as `mtrec schedule list` shows it.", callback=_not_empty),
]
FollowOption = Annotated[
    bool,
    typer.Option("--follow", "-f", help="Stay and show each step until the run ends; Ctrl-C leaves it running."),
]


def _access(
    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="URL",
            help="Kubeflow Pipelines. Default: KF_PIPELINES_ENDPOINT; in a pod its cluster's; else kubectl's.",
        ),
    ] = "",
    namespace: Annotated[
        str,
        typer.Option("--namespace", metavar="NAME", help="Yours, on a server for many users."),
    ] = "",
    installed: Annotated[
        str, typer.Option("--installed-in", metavar="NAME", help="Namespace of Kubeflow Pipelines itself.")
    ] = "kubeflow",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Holds a bearer token.", envvar="MTREC_KFP_TOKEN_FILE"),
    ] = None,
    cookies_file: Annotated[
        Path | None,
        typer.Option("--cookies-file", metavar="FILE", help="Holds cookies: name=value; name=value."),
    ] = None,
    context: Annotated[
        str, typer.Option("--context", metavar="NAME", help="Of the kubeconfig. Default: the current one.")
    ] = "",
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Authority that the server's certificate is by."),
    ] = None,
    ui: Annotated[
        str,
        typer.Option(
            "--ui", metavar="URL", help="Its pages, for links. Default: --host.", envvar="KF_PIPELINES_UI_ENDPOINT"
        ),
    ] = "",
) -> Access:
    from pipelines import pod_values
    from pipelines.kfp_server import Access

    _check(
        {
            "--namespace": (namespace, pod_values.NAMESPACE),
            "--installed-in": (installed, pod_values.NAMESPACE),
            "--ui": (ui, pod_values.PAGES),
        }
    )
    return Access(
        host=host,
        namespace=namespace,
        installed=installed,
        token_file=token_file,
        cookies_file=cookies_file,
        context=context,
        ca_file=ca_file,
        ui=ui,
    )


def _order(
    kind: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="training, monitoring (which contains it) or search.")
    ],
    scenario: ScenarioOption = "ecommerce",
    settings: SetOption = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="PATH",
            help="Raw data as the pods see it, or dvc: and a version; for monitoring a drop or a folder of drops.",
        ),
    ] = "",
    cluster: ClusterOption = None,
    image: ImageOption = None,
    gpus: GpusOption = None,
    experiment: Annotated[
        str,
        typer.Option("--experiment", metavar="NAME", help="Experiment of the run. Default: the scenario's name."),
    ] = "",
    service_account: Annotated[
        str, typer.Option("--service-account", metavar="NAME", help="Of the pods. Default: the cluster's.")
    ] = "",
    pipeline_root: Annotated[
        str, typer.Option("--pipeline-root", metavar="URI", help="Where artifacts go. Default: the cluster's.")
    ] = "",
    tracking_uri: Annotated[
        str, typer.Option("--tracking-uri", metavar="URI", help="MLflow as the pods reach it. Default: their own.")
    ] = "",
    dvc_root: Annotated[
        str, typer.Option("--dvc-root", metavar="PATH", help="DVC repository in the pods. Default: the cluster's.")
    ] = "",
    checkpoints: Annotated[
        str, typer.Option("--checkpoints", metavar="PATH", help="Checkpoints in the pods. Default: the cluster's.")
    ] = "",
    study: Annotated[
        str, typer.Option("--study", metavar="NAME", help="Of a search. Default: named after space and data.")
    ] = "",
    trials: Annotated[
        int,
        typer.Option(
            "--trials", min=0, max=1_000_000, help="Of a search, in all. Default: search.trials of the scenario."
        ),
    ] = 0,
    text_cache: Annotated[
        str, typer.Option("--text-cache", metavar="PATH", help="Encoded texts in the pods. Default: the cluster's.")
    ] = "",
) -> Order:
    from mtrec.errors import InputError
    from pipelines import pod_values
    from pipelines.cluster_config import Name
    from pipelines.submitting import Order

    _check(
        {
            "--data": (data, pod_values.PATH if kind == "monitoring" else pod_values.DATA),
            "--experiment": (experiment, pod_values.EXPERIMENT),
            "--service-account": (service_account, (Name, "the name of a service account of the namespace")),
            "--pipeline-root": (pipeline_root, pod_values.ROOT),
            "--tracking-uri": (tracking_uri, pod_values.TRACKING),
            "--dvc-root": (dvc_root, pod_values.PATH),
            "--checkpoints": (checkpoints, pod_values.PATH),
            "--text-cache": (text_cache, pod_values.PATH),
        }
    )
    if kind == "search" and checkpoints:
        raise InputError("--checkpoints is of training and monitoring: a search keeps none")
    placed = placing(cluster, image=image, gpus=gpus)
    parameters: dict[str, Any] = {
        "drop" if kind == "monitoring" else "data": data,
        "tracking_uri": tracking_uri,
        "dvc_root": dvc_root,
        "checkpoints": checkpoints,
        "text_cache": text_cache,
    }
    if kind == "search":
        del parameters["checkpoints"]
        parameters |= {"study": study, "trials": trials}
    elif study or trials:
        raise InputError("--study and --trials are of a search: mtrec submit search")
    return Order(
        kind=kind,
        scenario=scenario_from(scenario, settings),
        parameters=parameters,
        placed=placed,
        experiment=experiment,
        service_account=service_account or (placed.cluster.service_account if placed.cluster else ""),
        pipeline_root=pipeline_root or (placed.cluster.pipeline_root if placed.cluster else ""),
    )


def _check(given: Mapping[str, tuple[str, tuple[Any, str]]]) -> None:
    """Refuse a value that does not fit; by option, with the type and what is expected. Empty ones are none."""
    for option, (text, (kind, says)) in given.items():
        if text:
            check_text(kind, text, option, says)


def _by_file(access: Access, order: Order) -> Access:
    """With the cluster file's namespace, for a server for many users."""
    cluster = order.placed.cluster
    return replace(access, usual=cluster.namespace) if cluster else access


def _gathering(**gathered: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of functions like `_access`; it takes what they return, by these names."""

    asked = {name: _options(make) for name, make in gathered.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            made = {
                name: make(**{option.name: given.pop(option.name) for option in asked[name]})
                for name, make in gathered.items()
            }
            command(**made, **given)

        *own, debug = _options(command, without=gathered)
        options = [*own, *itertools.chain(*asked.values()), debug]
        called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        called.__annotations__ = {option.name: option.annotation for option in options}
        called.__doc__, called.__name__ = command.__doc__, command.__name__
        return called

    return decorate


def _options(function: Callable[..., Any], without: Collection[str] = ()) -> list[inspect.Parameter]:
    return [
        option.replace(annotation=eval(option.annotation, globals()), kind=inspect.Parameter.KEYWORD_ONLY)
        for name, option in inspect.signature(function).parameters.items()
        if name not in without
    ]


@_gathering(order=_order, access=_access)
def submit(order: Order, access: Access, follow: FollowOption = False, debug: DebugOption = False) -> None:
    """Start a pipeline on a cluster: training, monitoring or search.

    The pipeline is compiled here, and uploaded unless the server has that version.
    Exit codes with --follow: 0 registered, monitoring found no reason to train, or
    the search has ended, 1 the run failed or was stopped, 2 wrong input, 3 the
    gate refused the candidate, 130 stopped following.
    """
    from pipelines.kfp_server import connect
    from pipelines.submitting import submit as start

    with connect(_by_file(access, order)) as server:
        started = start(order, server)
        prepared = started.prepared
        there = "uploaded" if prepared.uploaded else "is there already"
        typer.echo(f"{prepared.pipeline} version {prepared.version} {there}")
        typer.echo(f"run {started.id} started: {started.name}")
        _link(server.run_link(started.id))
        if follow:
            _follow(server, started.id)
        else:
            typer.echo(f"follow it with: mtrec runs show {started.id} --follow")


@runs.command("list")
@_gathering(access=_access)
def list_command(
    access: Access,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="So many, the newest first.")] = 20,
    debug: DebugOption = False,
) -> None:
    """List the newest runs."""
    from pipelines.kfp_server import connect

    with connect(access) as server:
        found = server.runs(number)
    if not found:
        typer.echo("No run is there yet; 'mtrec submit training' starts one.")
        return
    rows = [
        (run.id, run.name, run.state.lower(), _moment(run.created), _took(run), "schedule" if run.schedule else "")
        for run in found
    ]
    _print_table(("run", "name", "state", "created (UTC)", "took", "started by"), rows)


@runs.command("show")
@_gathering(access=_access)
def show_command(
    run: RunArgument, access: Access, follow: FollowOption = False, debug: DebugOption = False
) -> None:
    """Show a run: each step's state, and why it failed if it did.

    Exit codes with --follow: as of mtrec submit; without it 0 whatever the run did.
    """
    from pipelines.display import elapsed_text
    from pipelines.following_cluster import ENDED, close, names_of, show
    from pipelines.kfp_server import connect
    from pipelines.steps import Steps

    with connect(access) as server:
        found = server.run(run)
        typer.echo(f"{found.name}: {found.state.lower()}, created {_moment(found.created)} UTC")
        _link(server.run_link(run))
        if follow:
            _follow(server, run)
            return
        steps = Steps(names_of(server.spec(found)))
        show(found, steps)
        if found.state in ENDED:
            close(found, steps)
        for step in steps.steps.values():
            state = "not run" if step.state == "waiting" and found.state in ENDED else step.state
            typer.echo(f"{step.name:<18} {state} {elapsed_text(step, steps.clock())}".rstrip())
        if found.state in ("FAILED", "ERROR"):
            typer.echo(_why(server, found, steps)[0])


@runs.command("stop")
@_gathering(access=_access)
def stop_command(run: RunArgument, access: Access, debug: DebugOption = False) -> None:
    """Stop a run. What is registered stays; checkpoints are gone on from where they are kept.

    The workflow engine gives the exit task of a stopped run no time, so what the run
    holds is given back from here: its lease, its TrainJob and, where
    MLFLOW_TRACKING_URI is set, its run in MLflow.
    """
    from mtrec.errors import InputError
    from pipelines.following_cluster import ENDED
    from pipelines.kfp_server import connect
    from pipelines.stopping import close, give_back, stopped

    with connect(access) as server:
        found = server.run(run)
        if found.state in ENDED:
            raise InputError(f"run {run} has ended already: {found.state.lower()}")
        server.stop(run)
        typer.echo(f"run {run} is asked to stop")
        if not stopped(server, run):
            typer.echo("its steps still run; one that begins now may take its lease again until that expires")
    for line in (*give_back(found), *close(found)):
        typer.echo(line)


@schedule.command("create")
@_gathering(order=_order, access=_access)
def create_command(
    order: Order,
    access: Access,
    cron: Annotated[
        str,
        typer.Option(
            "--cron",
            metavar="WHEN",
            help="Minute hour day month weekday, by the server's clock (mostly UTC): '0 3 * * *'.",
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Make it anew if it is there.")] = False,
    debug: DebugOption = False,
) -> None:
    """Run a pipeline again and again: one run at a time, and missed ones are not made up for.

    There is one schedule per pipeline and scenario. It keeps the image and all
    settings as they are now; --replace gives it others.
    """
    from pipelines.kfp_server import connect
    from pipelines.scheduling import create

    with connect(_by_file(access, order)) as server:
        made = create(order, cron, server, replace=replace)
        done, stays = "replaced" if made.replaced else "created", "; it stays paused" if made.paused else ""
        typer.echo(f"schedule {made.name} {done}: {made.cron} ({made.id}){stays}")
        _link(server.schedule_link(made.id))


@schedule.command("list")
@_gathering(access=_access)
def list_schedules(access: Access, debug: DebugOption = False) -> None:
    """List the schedules."""
    from pipelines.kfp_server import connect
    from pipelines.scheduling import shown

    with connect(access) as server:
        found = server.schedules()
    if not found:
        typer.echo("No schedule is there yet; 'mtrec schedule create' makes one.")
        return
    rows = [
        (
            one.name,
            shown(one.cron),
            "on" if one.enabled else "paused",
            _moment(one.created),
            one.id,
            one.data,
            one.error,
        )
        for one in found
    ]
    _print_table(("schedule", "cron", "state", "created (UTC)", "id", "data", "error"), rows)


@schedule.command("pause")
@_gathering(access=_access)
def pause_command(which: ScheduleArgument, access: Access, debug: DebugOption = False) -> None:
    """Start nothing until it is resumed; a run that goes on is left alone."""
    _change(which, access, "pause", "paused")


@schedule.command("resume")
@_gathering(access=_access)
def resume_command(which: ScheduleArgument, access: Access, debug: DebugOption = False) -> None:
    """Go on with a paused schedule."""
    _change(which, access, "resume", "goes on")


@schedule.command("delete")
@_gathering(access=_access)
def delete_command(which: ScheduleArgument, access: Access, debug: DebugOption = False) -> None:
    """Remove a schedule; its runs stay."""
    _change(which, access, "delete", "deleted")


def _change(which: str, access: Access, method: str, told: str) -> None:
    from pipelines.kfp_server import connect
    from pipelines.scheduling import find

    with connect(access) as server:
        found = find(server, which)
        getattr(server, method)(found.id)
    typer.echo(f"schedule {found.name} {told}")


def _follow(server: Server, run_id: str) -> None:
    from mtrec.errors import GateRefused, RunError
    from pipelines.following_cluster import follow
    from pipelines.kfp_server import Refused
    from pipelines.kfp_session import Interrupted

    try:
        run, steps = follow(server, run_id, console())
    except Refused as error:
        raise Refused(f"{error}; the run goes on, see mtrec runs show {run_id} --follow") from error
    except KeyboardInterrupt as error:
        again = f"mtrec runs show {run_id} --follow, or stop it: mtrec runs stop {run_id}"
        raise Interrupted(f"stopped following; the run goes on, see {again}") from error
    if run.state == "CANCELED":
        raise RunError(f"run {run_id} was stopped")
    if run.state != "SUCCEEDED":
        text, exit_code = _why(server, run, steps)
        failed = RunError(text)
        failed.exit_code = exit_code
        raise failed
    states = {name: step.state for name, step in steps.steps.items()}
    if states.get("record_outcome") == "failed":
        typer.echo(
            "record_outcome failed: MLflow may not say how the run ended, and its lease may last until it expires"
        )
    if states.get("gate_model") == "done" and states.get("register_model") != "done":
        where = server.run_link(run_id)
        raise GateRefused(
            f"the gate refused the candidate: see gate-model's report{f' in {where}' if where else ''}"
        )
    if "report_search" in states:
        typer.echo(
            "the search has ended; report-search has the trials and the command that trains with the best settings"
        )
        return
    typer.echo("registered" if states.get("register_model") == "done" else "nothing was trained")


def _why(server: Server, run: RunView, steps: Steps) -> tuple[str, int]:
    """One line about a failed run, and the exit code."""
    from pipelines.failure_reasons import reason

    found = reason(run, server.access)
    name = found.task.replace("-", "_") or (steps.failed.name if steps.failed else "the run")
    if found.text:
        return f"{name} failed: {found.text} (from {found.source})", found.exit_code
    see = server.run_link(run.id) or "its page"
    return f"{name} failed; the server does not tell why, and {found.source}; see {see}", 1


def _link(link: str) -> None:
    if link:
        typer.echo(link)


def _took(run: RunView) -> str:
    if run.created is None or run.ended is None:
        return ""
    seconds = max(0, int((run.ended - run.created).total_seconds()))
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def _moment(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _print_table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table; where no terminal is, a row is one line without spaces at its end."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:  # ids and names are for copying
        table.add_column(head, overflow="fold", no_wrap=head in ("run", "schedule", "id"))
    for row in rows:
        table.add_row(*map(Text, row))
    output = console()
    if output.is_terminal:
        output.print(table)
        return
    wide = Console(file=io.StringIO(), width=10_000)
    with wide.capture() as printed:
        wide.print(table)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())
