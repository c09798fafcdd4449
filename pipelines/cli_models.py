"""`mtrec models`: what is in the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli_options import DebugOption, TrackingOption, console, new_app

app = new_app("Registered models.")


@app.command("list")
def list_command(tracking_uri: TrackingOption = None, debug: DebugOption = False) -> None:
    """List the versions of every registered model, newest first."""
    from rich.table import Table

    from mtrec.tracking import list_models

    models = list_models(tracking_uri) if store_exists(tracking_uri) else []
    if not models:
        typer.echo("No model is registered yet; 'mtrec run' registers one.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("model", "version", "aliases", "gate", "created", "data version"):
        table.add_column(column, overflow="fold")
    for model in models:
        table.add_row(
            model.name,
            model.version,
            ", ".join(model.aliases),
            model.gate,
            model.created,
            model.tags.get("data_version", ""),
        )
    console().print(table)


@app.command("show")
def show_command(
    model: Annotated[str, typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="ecommerce, ecommerce@champion …")],
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Show one version: its lineage, its metrics and its model card."""
    from rich.markdown import Markdown
    from rich.table import Table

    from mtrec.errors import ModelError
    from mtrec.tracking import show_model

    if not store_exists(tracking_uri):
        raise ModelError(f"{model}: no such registered model (known: none); 'mtrec run' registers one")
    found = show_model(model, tracking_uri)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("model", f"{found.name} version {found.version}")
    facts.add_row("aliases", ", ".join(found.aliases) or "none")
    facts.add_row("gate", found.gate)
    facts.add_row("created", found.created)
    facts.add_row("MLflow run", found.run_id)
    for key, value in sorted(found.tags.items()):
        facts.add_row(key, value)
    output = console()
    output.print(facts)
    if found.metrics:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("metric")
        table.add_column("value", justify="right")
        for name, number in sorted(found.metrics.items()):
            table.add_row(name, f"{number:.4f}")
        output.print(table)
    if found.card:
        output.print(Markdown(found.card))


def store_exists(tracking_uri: str | None) -> bool:
    """Whether there is a store to look into; MLflow would create an SQLite file by looking.

    Raises:
        InputError: the SQLite file that was asked for is not there. The embedded one may be missing before a run.
    """
    from pathlib import Path

    from mtrec.errors import InputError
    from mtrec.tracking import resolve_uri
    from mtrec.tracking.connection import EMBEDDED

    uri = resolve_uri(tracking_uri)
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if not uri.startswith("sqlite:///") or ":memory:" in uri or database.exists():
        return True
    if uri != resolve_uri(EMBEDDED):
        given = "--tracking-uri" if tracking_uri else "MLFLOW_TRACKING_URI"
        raise InputError(f"{given} {uri}: no such file {database}; check the path, or make it with 'mtrec run'")
    return False
