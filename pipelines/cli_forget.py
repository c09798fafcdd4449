"""`mtrec data forget`, `forgotten` and `purge`: users who are to be left out, and what still contains them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_options import (
    DebugOption,
    ScenarioOption,
    TrackingOption,
    console,
    scenario_from,
    store_exists,
)

RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="FOLDER", help="DVC repository of the data versions. Default: .mtrec/dvc here."),
]


def forget(
    users: Annotated[
        list[str] | None, typer.Argument(metavar="[USER_ID]...", help="The users, by their ids.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A text file with one user id a line.")
    ] = None,
    scenario: ScenarioOption = "ecommerce",
    data_version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Data version to start from. Default: the champion's."),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take the users off the list again, for those who come back.")
    ] = False,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Remember also users whom that data version does not have.")
    ] = False,
    root: RootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a data version without some users, and leave them out of all data to come.

    Their rows go from every table. Ingest, drift check and so every retraining leave
    them out whatever data brings them back. Data versions and models of before keep
    them: see 'mtrec data forgotten' and docs/deletion.md. An id is kept as a keyed
    hash only.
    """
    from mtrec.data.forgetting import forget as leave_out
    from mtrec.data.forgetting import recall

    wanted = _ids(users, file)
    loaded, folder = scenario_from(scenario, None), _root(root)
    if undo:
        recall(wanted, scenario=loaded.name, root=folder)
        typer.echo(f"{_users(wanted)} taken off the list; their rows come back with the next data that has them")
        return
    start = data_version or _champions_data(loaded.name, tracking_uri)
    done = leave_out(wanted, scenario=loaded.name, version=start, root=folder, allow_unknown=allow_unknown)
    again = f" ({done.again} forgotten before)" if done.again else ""
    gone = ", ".join(f"{_counted(count, 'row')} of {name}" for name, count in done.rows.items() if count)
    typer.echo(f"{_users(wanted)} forgotten{again}: {gone or 'no row'} left out of {done.before}")
    typer.echo(f"{done.version}  the data version without them" if gone else f"{done.version} stays as it is")
    typer.echo("'mtrec data forgotten' lists the models and data versions that still contain them")


def forgotten(
    scenario: ScenarioOption = "ecommerce",
    root: RootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """List the models and data versions that still contain forgotten users.

    A model contains what its data version contains, an ensemble and a student also
    what their members and their teacher learned from. Of a remote on another machine
    the snapshots and the models' data versions are looked into.
    """
    from rich.table import Table

    from mtrec.data.forgetting import held_by
    from mtrec.data.forgotten import read_forgotten
    from mtrec.data.versioning import known_versions
    from mtrec.errors import DataError
    from mtrec.tracking import count_users, holders

    loaded, folder = scenario_from(scenario, None), _root(root)
    known = read_forgotten(folder, loaded.name)
    if not known:
        typer.echo(f"Scenario {loaded.name} forgot nobody; 'mtrec data forget USER_ID' does.")
        return
    typer.echo(f"scenario {loaded.name}: {count_users(known.when)}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("", "", "status", "forgotten users"):
        table.add_column(column, overflow="fold")
    models = holders(loaded.name, folder, tracking_uri) if store_exists(tracking_uri) else []
    for model in models:
        if model.users or model.unknown:
            table.add_row("model", model.name, model.status, _contains(len(model.users), model.unknown))
    foreign = _other_data(loaded.name, tracking_uri)
    for version in dict.fromkeys([*known_versions(folder), *(v for model in models for v in model.data_versions)]):
        if version in foreign:
            continue
        try:
            count, unknown = len(held_by(version, known, folder, loaded)), ""
        except DataError as error:
            count, unknown = 0, str(error)
        if count or unknown:
            table.add_row("data version", version, "", _contains(count, unknown))
    if table.row_count:
        console().print(table)
    typer.echo(
        "Retrain and promote, then delete what is listed: docs/deletion.md"
        if table.row_count
        else "No registered model and no data version contains them."
    )


def purge(
    data_version: Annotated[str, typer.Argument(metavar="VERSION", help="The data version, or its beginning.")],
    root: RootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Delete a data version from the DVC remote; it cannot be restored afterwards.

    Objects that another version there needs stay. Refused while a registered model
    or a .dvc file of the repository names the version, and while anything is trained,
    as that may be on this version.
    """
    from mtrec.data.purging import purge as delete
    from mtrec.errors import InputError, RunError
    from mtrec.tracking import list_models, resolve_uri, trainings

    folder = _root(root)
    if trained := trainings(resolve_uri(tracking_uri)):
        raise RunError(f"{data_version}: {trained[0]} is under way and may need it; purge it when that has ended")
    models = list_models(tracking_uri) if store_exists(tracking_uri) else []
    named = [f"{m.name}/{m.version}" for m in models if m.tags.get("data_version", "").startswith(data_version)]
    if named:
        raise InputError(
            f"{data_version}: the registered model {named[0]} was made from it; delete that model first"
        )
    version, count = delete(data_version, folder)
    typer.echo(f"{version} is deleted, {count} objects")


def _ids(users: list[str] | None, file: Path | None) -> list[str]:
    from mtrec.errors import InputError

    if not users and file is None:
        raise InputError("whom? Give user ids, or --file with one id a line")
    if file is None:
        return list(users or [])
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--file {file}: not a readable text file") from error
    found = [*(users or []), *(line.strip() for line in lines if line.strip())]
    if not found:
        raise InputError(f"--file {file}: holds no user id; write one a line")
    return found


def _root(given: Path | None) -> Path:
    from pipelines.workspace import Workspace

    return given or Workspace.here().dvc_root


def _champions_data(scenario: str, tracking_uri: str | None) -> str:
    from mtrec.errors import ModelError
    from mtrec.tracking import list_models

    for model in list_models(tracking_uri) if store_exists(tracking_uri) else []:
        if model.name == scenario and "champion" in model.aliases and "data_version" in model.tags:
            return model.tags["data_version"]
    raise ModelError(f"scenario {scenario} has no champion yet; name the data version with --version")


def _other_data(scenario: str, tracking_uri: str | None) -> set[str]:
    """Data versions that only models of other scenarios were made from: equal ids there are other users."""
    from mtrec.tracking import list_models

    own: set[str] = set()
    others: set[str] = set()
    for model in list_models(tracking_uri) if store_exists(tracking_uri) else []:
        mine = model.name.removesuffix("-candidate") == scenario
        (own if mine else others).add(model.tags.get("data_version", ""))
    return others - own


def _users(ids: list[str]) -> str:
    return _counted(len(set(ids)), "user")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _contains(count: int, unknown: str) -> str:
    return "; ".join(filter(None, [str(count) if count else "", f"not known: {unknown}" if unknown else ""]))
