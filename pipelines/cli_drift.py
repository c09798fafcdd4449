"""`mtrec drift`: has the data moved, is that a reason to train again, and what would it have been in the past."""

from __future__ import annotations

from datetime import UTC, datetime
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
    new_app,
    scenario_from,
)

if TYPE_CHECKING:
    from rich.table import Table

    from mtrec.config import Scenario
    from mtrec.data.contract import Tables
    from mtrec.drift.replay import Step

app = new_app("Drift of the data, and whether to train again.")


@app.command()
def check(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            metavar="FOLDER",
            help="The data drop: everything, or what is new; or a folder of drops.",
        ),
    ],
    scenario: ScenarioOption = "ecommerce",
    settings: SetOption = None,
    tracking_uri: TrackingOption = None,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="FOLDER", help="DVC repository with the champion's data. Default: .mtrec/dvc here."
        ),
    ] = None,
    now: Annotated[
        str | None, typer.Option("--now", metavar="TIME", help="ISO time to take for now. Default: the clock.")
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Compare a data drop with what the champion knows, and say whether to train again.

    Nothing is trained. .mtrec/drift/SCENARIO holds decision.json, drift.html, the
    joined tables and, where the extra drift is installed, Evidently's own page.
    Exit codes: 0 whatever is decided, 1 the data or MLflow cannot be reached, 2
    wrong input, also data that fails its checks.
    """
    from mtrec.errors import InputError, ModelError
    from mtrec.progress import listening
    from mtrec.stages import decide, monitor
    from mtrec.tracking import NO_CHAMPION
    from pipelines.cli_models import store_exists
    from pipelines.following import Following
    from pipelines.local import LOCAL_IMAGE
    from pipelines.workspace import Workspace, shown

    loaded, workspace = scenario_from(scenario, settings), Workspace.here()
    if not data.exists():
        raise InputError(f"--data {data}: no such file or folder")
    if not store_exists(tracking_uri):
        raise ModelError(NO_CHAMPION.format(loaded.name))
    folder = workspace.drift / loaded.name
    observed = folder / "observed.json"
    output = console()
    outputs = decide.Outputs(decision=folder / "decision.json", report=folder / "drift.html")
    with Following(output) as view, listening(view.heard):
        view.bars.update(view.task, description="drift check")
        monitor.run(
            monitor.Inputs(drop=data, tracking_uri=tracking_uri, dvc_root=root or workspace.dvc_root, now=now),
            monitor.Outputs(
                observed=observed,
                tables=folder / "tables",
                validation=folder / "validation",
                evidently=folder / "evidently.html",
            ),
            loaded,
        )
        told = decide.run(
            decide.Inputs(
                observed=observed,
                tracking_uri=tracking_uri,
                dvc_root=root or workspace.dvc_root,
                image=LOCAL_IMAGE,
            ),
            outputs,
            loaded,
        )
    output.print(rules_table(told["rules"]))
    newest = told["windows"][-1:]
    if newest and newest[0]["drifted"]:
        output.print(
            f"drifted in the last window: {', '.join(newest[0]['drifted'])}", markup=False, highlight=False
        )
    typer.echo(f"{told['verdict']}: {told['reason']}")
    pages = [outputs.report, folder / "evidently.html", outputs.decision]
    typer.echo(", ".join(shown(page) for page in pages if page.exists()))
    if told["data"]["problems"]:
        raise typer.Exit(InputError.exit_code)


@app.command()
def replay(
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Where the champion's data ends, as an ISO date or time.")
    ],
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="The last moment to decide at. Default: the last row."),
    ] = None,
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The page; an SVG comes beside it. Default: in .mtrec/drift."
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Show what would have been decided over past windows, as a table and a plot.

    The champion is one whose data ends at --from; each time it would have been
    trained again, its data end moves. The data's own columns decide here, not what
    a model says about them.
    """
    from mtrec.drift.replay import replay as steps_of
    from mtrec.drift.statistics import columns_of
    from mtrec.errors import InputError
    from mtrec.evaluation.drift_report import write_replay
    from pipelines.targets import new_file
    from pipelines.workspace import Workspace, shown

    loaded = scenario_from(scenario, settings)
    first = _moment(start, "--from")
    page = Workspace.here().drift / loaded.name / "replay.html"
    if out is not None:
        page = new_file(out, "--out", "replay.html")
        if page.suffix != ".html":
            raise InputError(f"--out {out}: the page is HTML; give e.g. --out {out.with_suffix('.html')}")
    tables = _sound_tables(loaded, data)
    times = tables.interactions["timestamp"]
    begin, newest = times.min(), times.max()
    assert isinstance(begin, datetime)
    assert isinstance(newest, datetime)
    last = newest if end is None else _moment(end, "--to")
    if not begin < first < last:
        raise InputError(
            f"--from {start}: the data runs from {begin:%Y-%m-%d} to {newest:%Y-%m-%d}; give a time after its "
            "beginning and before --to"
        )
    steps = list(steps_of(tables, lambda timeline: columns_of(timeline, loaded), loaded.retraining, first, last))
    if not steps:
        raise InputError(
            f"no complete window of {loaded.retraining.window_days:g} days between {first:%Y-%m-%d} and "
            f"{last:%Y-%m-%d}: give an earlier --from or a later --to, or set retraining.window_days"
        )
    told = {
        "scenario": loaded.name,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "settings": loaded.retraining.model_dump(mode="json"),
        "steps": [step.as_dict() for step in steps],
    }
    write_replay(page, page.with_suffix(".svg"), told)
    console().print(steps_table(steps))
    count = sum(step.decision.verdict == "retrain" for step in steps)
    typer.echo(f"{count} of {len(steps)} decisions: retrain")
    typer.echo(f"{shown(page)}, {shown(page.with_suffix('.svg'))}")


def rules_table(rules: list[dict[str, Any]]) -> Table:
    """Every rule with its value and threshold."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("rule", "kind", "value", "threshold", "holds", "why"):
        table.add_column(column, justify="right" if column in ("value", "threshold") else "left", overflow="fold")
    for rule in rules:
        value, threshold = (_cell(rule[key]) for key in ("value", "threshold"))
        table.add_row(rule["rule"], rule["kind"], value, threshold, "yes" if rule["holds"] else "no", rule["why"])
    return table


def _cell(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else value or ""


def steps_table(steps: list[Step]) -> Table:
    """One line per decision."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("at", "decision", "champion until", "rows", "drifted in this window", "why"):
        table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
    for step in steps:
        window = step.window
        table.add_row(
            f"{step.decision.at:%Y-%m-%d}",
            step.decision.verdict,
            f"{step.until:%Y-%m-%d}",
            str(window.num_rows) if window else "0",
            ", ".join(window.drifted) if window else "",
            step.decision.reason,
            style="bold" if step.decision.verdict == "retrain" else None,
        )
    return table


def _sound_tables(scenario: Scenario, data: Path | None) -> Tables:
    import tempfile

    from mtrec.data.cleaning import clean
    from mtrec.data.contract import Tables
    from mtrec.data.sources import read_source
    from mtrec.stages.execution import run_stage

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        read_source(scenario, data).write(folder / "tables")
        names = ("validated", "quarantine", "data_docs", "summary")
        run_stage(
            "validate",
            inputs={"tables": folder / "tables", "source": str(data) if data else f"scenario '{scenario.name}'"},
            outputs={name: folder / name for name in names},
            scenario=scenario,
        )
        return clean(Tables.read(folder / "validated"))[0]


def _moment(text: str, option: str) -> datetime:
    from mtrec.errors import InputError

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: not an ISO date or time, e.g. 2026-01-31") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
