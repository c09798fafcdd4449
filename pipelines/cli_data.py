"""`mtrec data`: make, read, check and version data, one step at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines import cli_forget
from pipelines.cli_options import (
    DataOption,
    DebugOption,
    ScenarioOption,
    SetOption,
    console,
    new_app,
    scenario_from,
)
from pipelines.targets import checked_folder, new_folder, remove_empty, tables_folder

if TYPE_CHECKING:
    from mtrec.data.contract import Tables

app = new_app("Make, read, check and version data.")

OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write.")]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="DVC repository. Default: the one around here, else .mtrec/dvc."),
]


@app.command()
def simulate(
    out: OutOption = Path("data/simulated"),
    scenario: ScenarioOption = "ecommerce",
    settings: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Write simulated interaction data as the three contract tables.

    The dials are settings of the scenario: --set source.options.num_users=5000, and so on for num_items,
    num_interactions, seed, noise, missing, cold_items and drift.
    """
    from mtrec.data.sources import read_source

    target = tables_folder(out, None)
    _write(read_source(scenario_from(scenario, settings), None), target, out)


@app.command()
def ingest(
    out: OutOption = Path("data/tables"),
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Read raw data and write the three contract tables."""
    from mtrec.data.sources import read_source

    target = tables_folder(out, data)
    _write(read_source(scenario_from(scenario, settings), data), target, out)


@app.command()
def validate(
    out: OutOption = Path("data/validated"),
    scenario: ScenarioOption = "ecommerce",
    data: DataOption = None,
    settings: SetOption = None,
    debug: DebugOption = False,
) -> None:
    """Read raw data and check it; write good rows, quarantined rows and Data Docs.

    Exit code 2 when the data does not pass; what was found is written all the same.
    """
    import tempfile

    from mtrec.data.sources import read_source
    from mtrec.stages.execution import run_stage

    loaded = scenario_from(scenario, settings)
    target = checked_folder(out, data)
    outputs = {
        "validated": target / "tables",
        "quarantine": target / "quarantine",
        "data_docs": target / "data_docs",
        "summary": target / "validation.json",
    }
    with tempfile.TemporaryDirectory() as temporary:
        tables = Path(temporary) / "tables"
        read_source(loaded, data).write(tables)
        target.mkdir(parents=True, exist_ok=True)
        inputs = {"tables": tables, "source": str(data) if data else f"scenario '{loaded.name}'"}
        summary = run_stage("validate", inputs=inputs, outputs=outputs, scenario=loaded)
    _print_validation(summary, out)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="movielens-latest-small, movietweetings-100k, online-retail …")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of data sets.")] = Path("data"),
    debug: DebugOption = False,
) -> None:
    """Fetch a public data set that may not be copied with mtrec, and say how to use it.

    An unknown name lists all names. The publisher's terms hold; they are printed.
    """
    from mtrec.data.download import PUBLIC_SETS
    from mtrec.data.download import download as fetch

    last = -1

    def progress(file: str, done: int, total: int | None) -> None:
        nonlocal last
        tenth = done // (1 << 20) // 10 if not total else 10 * done // total
        if tenth != last:
            last = tenth
            typer.echo(f"{file}: {done / 1e6:.1f} MB{f' of {total / 1e6:.1f} MB' if total else ''}", err=True)

    made = [folder for folder in (to, *to.parents) if not folder.exists()]
    if name in PUBLIC_SETS:
        new_folder(to / name, "--to")
    try:
        folder = fetch(name, to, progress)
    except BaseException:
        remove_empty(made)
        raise
    known = PUBLIC_SETS[name]
    typer.echo(f"{folder}\nterms: {known.terms}\nuse it: mtrec run --scenario {known.scenario} --data {folder}")


@app.command()
def snapshot(
    folder: Annotated[Path, typer.Argument(help="The data drop to version.")],
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of this series of drops. Default: the folder's name.")
    ] = None,
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Version a data drop with DVC and push it to the remote; print its version."""
    from mtrec.data.versioning import repository
    from mtrec.data.versioning import snapshot as take
    from pipelines.workspace import shown

    drop = take(folder, name, root)
    pointer = shown((root or repository()).resolve() / drop.pointer)
    typer.echo(f"{drop.version}  {drop.name}: {drop.num_files} files, {drop.num_bytes} bytes, {pointer}")


@app.command()
def restore(
    data_version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version that snapshot printed, or its beginning.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A folder that does not exist yet.")],
    root: RootOption = None,
    debug: DebugOption = False,
) -> None:
    """Bring back the exact bytes of a data version, for example the one named by a registered model."""
    from mtrec.data.versioning import restore as bring_back

    version = bring_back(data_version, new_folder(to, "--to"), root)
    typer.echo(f"{to} holds {version}")


@app.command()
def versions(root: RootOption = None, debug: DebugOption = False) -> None:
    """List the data versions that were taken, oldest first."""
    from mtrec.data.versioning import versions as known

    drops = known(root)
    if not drops:
        typer.echo("No data version yet; take one with 'mtrec data snapshot FOLDER --name NAME'.")
    for drop in drops:
        typer.echo(f"{drop.version}  {drop.time}  {drop.name}: {drop.num_files} files, {drop.num_bytes} bytes")


app.command()(cli_forget.forget)
app.command()(cli_forget.forgotten)
app.command()(cli_forget.purge)


def _write(tables: Tables, target: Path, out: Path) -> None:
    tables.write(target)
    counts = ", ".join(f"{rows} {name}" for name, rows in tables.num_rows.items())
    typer.echo(f"{out}: {counts}")


def _print_validation(summary: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("table", "rows", "good", "quarantined"):
        table.add_column(column, justify="left" if column == "table" else "right")
    for name, counts in summary["tables"].items():
        table.add_row(name, *(str(counts[key]) for key in ("input", "good", "quarantined")))
    output = console()
    output.print(table)
    for line in summary["warnings"]:
        output.print(f"warning: {line}", style="yellow", highlight=False, soft_wrap=True)
    typer.echo(f"{out}: tables, quarantine, data_docs/index.html, validation.json")
