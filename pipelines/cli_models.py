"""`mtrec models`: what is in the registry. Deciding about it is in `cli_review`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines import cli_review
from pipelines.cli_options import DebugOption, TrackingOption, console, new_app, store_exists
from pipelines.cli_review import ModelArgument

if TYPE_CHECKING:
    from rich.table import Table

    from mtrec.tracking import Change, RegisteredVersion

app = new_app("Registered models: look at them, compare them, and decide which one serves.")


@app.command("list")
def list_command(tracking_uri: TrackingOption = None, debug: DebugOption = False) -> None:
    """List the versions of every registered model with what became of them, newest first.

    A candidate is awaiting review, out of date (compared with another champion than
    today's), rejected, refused by the gate, champion or former champion.
    """
    from mtrec.tracking import list_models, statuses

    models = list_models(tracking_uri) if store_exists(tracking_uri) else []
    if not models:
        typer.echo("No model is registered yet; 'mtrec run' registers one.")
        return
    known: dict[str, str] = {}
    for scenario in {_scenario(model) for model in models}:
        known |= statuses(scenario, tracking_uri)
    table = _table("model", "version", "status", "aliases", "gate", "created", "data version")
    for model in models:
        table.add_row(
            model.name,
            model.version,
            known.get(f"{model.name}/{model.version}", ""),
            ", ".join(model.aliases),
            model.gate,
            cli_review.moment(model.created),
            model.tags.get("data_version", "")[:8],
        )
    console().print(table)


@app.command("show")
def show_command(
    model: ModelArgument,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Show one version: its lineage, what was decided about it, its metrics and its model card."""
    from rich.markdown import Markdown
    from rich.table import Table

    from mtrec.errors import ModelError
    from mtrec.tracking import history, show_model, statuses

    if not store_exists(tracking_uri):
        raise ModelError(f"{model}: no such registered model (known: none); 'mtrec run' registers one")
    found = show_model(model, tracking_uri)
    scenario, label = _scenario(found), f"{found.name}/{found.version}"
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("model", f"{found.name} version {found.version}")
    facts.add_row("status", statuses(scenario, tracking_uri).get(label, "unknown"))
    facts.add_row("aliases", ", ".join(found.aliases) or "none")
    for change in history(scenario, tracking_uri):
        if label in _about(change):
            facts.add_row("decided", cli_review.told(change))
    facts.add_row("created", found.created)
    facts.add_row("MLflow run", found.run_id)
    for key, value in sorted(found.tags.items()):
        if not key.startswith(("mtrec.", "sha256.")):
            facts.add_row(key, value)
    output = console()
    output.print(facts)
    if found.metrics:
        table = _table("metric", "value")
        table.columns[1].justify = "right"
        for name, number in sorted(found.metrics.items()):
            table.add_row(name, f"{number:.4f}")
        output.print(table)
    if found.card:
        output.print(Markdown(found.card))


@app.command("compare")
def compare_command(
    one: ModelArgument,
    other: Annotated[str, typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="The other one.")],
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Compare two versions metric by metric, each on the test part of its own run; the better one is marked.

    Beside other data the numbers say little about the models: the note below the
    table tells. The gate's comparison with the champion is on equal test rows.
    """
    from rich.text import Text

    from mtrec.errors import ModelError
    from mtrec.evaluation.side_by_side import differing_basis, side_by_side
    from mtrec.tracking import read_evaluation, show_model

    if not store_exists(tracking_uri):
        raise ModelError(f"{one}: no such registered model (known: none); 'mtrec run' registers one")
    found = [show_model(reference, tracking_uri) for reference in (one, other)]
    labels = [f"{version.name}/{version.version}" for version in found]
    measured = [read_evaluation(label, tracking_uri) for label in labels]
    table = _table("task", "metric", *labels, "better")
    last = None
    for row in side_by_side(measured[0], measured[1]):
        values = [Text(_number(value)) for value in row.values]
        if row.better is not None:
            values[row.better].append(" ←").stylize("green")
        better = "" if row.better is None else ("first", "second")[row.better]
        name = Text(f"{row.metric} {'↑' if row.higher_is_better else '↓'}", style="bold" if row.primary else "")
        table.add_row("" if row.task == last else row.task, name, *values, better)
        last = row.task
    output = console()
    output.print(table)
    output.print("↑ higher is better, ↓ lower is better; each task's first metric is the one that the gate judges.")
    if (versions := [version.tags.get("data_version", "") for version in found])[0] != versions[1]:
        basis = differing_basis(*measured)
        output.print(
            "Not measured on the same data"
            f"{': ' + '; '.join(basis) if basis else ''}. The numbers cannot be compared directly.",
            highlight=False,
        )


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _scenario(model: RegisteredVersion) -> str:
    return model.tags.get("mtrec.scenario") or model.name.removesuffix("-candidate")


def _about(change: Change) -> tuple[str, ...]:
    return change.candidate, change.before if change.action == "rollback" else "", change.after


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


app.command("approve")(cli_review.approve_command)
app.command("reject")(cli_review.reject_command)
app.command("rollback")(cli_review.rollback_command)
app.command("history")(cli_review.history_command)
