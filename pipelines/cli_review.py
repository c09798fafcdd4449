"""Deciding about registered models: `mtrec models approve`, `reject`, `rollback` and `history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_options import DebugOption, TrackingOption, console, store_exists

if TYPE_CHECKING:
    from mtrec.tracking import Change

ModelArgument = Annotated[
    str, typer.Argument(metavar="NAME[/VERSION|@ALIAS]", help="ecommerce, ecommerce@champion …")
]
CandidateArgument = Annotated[
    str,
    typer.Argument(
        metavar="CANDIDATE", help="ecommerce-candidate/3, or a scenario's name, which means its newest candidate."
    ),
]
ScenarioArgument = Annotated[str, typer.Argument(metavar="NAME", help="The scenario, which names the model.")]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, kept in the history.")]
WhoOption = Annotated[
    str | None,
    typer.Option(
        "--who", metavar="NAME", help="Who decides. Default: MLFLOW_TRACKING_USERNAME, else the login name."
    ),
]


DvcRootOption = Annotated[
    Path | None,
    typer.Option(
        "--dvc-root",
        metavar="FOLDER",
        help="DVC repository whose remote has the data. Default: .mtrec/dvc, where there is one.",
    ),
]


def approve_command(
    candidate: CandidateArgument,
    why: WhyOption = "",
    who: WhoOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also if a rule of the review forbids it (docs/review.md). Needs --why.",
        ),
    ] = False,
    dvc_root: DvcRootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Make a candidate the champion, which serves from then on.

    It must have passed the gate, against the champion of today, and contain no user
    who was forgotten. The champion until now is kept; 'mtrec models rollback' goes
    back to it.
    """
    from mtrec.tracking import approve

    need_store(candidate, tracking_uri)
    root = dvc_repository(dvc_root)
    done = approve(candidate, who=_who(who), why=why, force=force, tracking_uri=tracking_uri, dvc_root=root)
    if not done.changed:
        typer.echo(f"{done.candidate} is the champion already: {done.champion}")
        return
    typer.echo(f"{done.candidate} is the champion now: {done.champion}, before: {done.before}")


def reject_command(
    candidate: CandidateArgument,
    why: WhyOption,
    who: WhoOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Reject a candidate; the champion stays, and approving the candidate later takes --force."""
    from mtrec.tracking import reject

    need_store(candidate, tracking_uri)
    done = reject(candidate, who=_who(who), why=why, tracking_uri=tracking_uri)
    typer.echo(f"{done.candidate} {'is rejected' if done.changed else 'was rejected already'}")


def rollback_command(
    name: ScenarioArgument,
    why: WhyOption,
    who: WhoOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="The version of NAME to go to, instead.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also if it never was champion, or may contain users who were forgotten."),
    ] = False,
    dvc_root: DvcRootOption = None,
    tracking_uri: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Make the champion before the present one the champion again; repeated, the one before that."""
    from mtrec.tracking import rollback

    need_store(name, tracking_uri)
    root = dvc_repository(dvc_root)
    done = rollback(name, who=_who(who), why=why, to=to, force=force, tracking_uri=tracking_uri, dvc_root=root)
    typer.echo(
        f"{done.champion} is the champion again, before: {done.before}"
        if done.changed
        else f"{done.champion} is the champion already"
    )


def history_command(
    name: ScenarioArgument, tracking_uri: TrackingOption = None, debug: DebugOption = False
) -> None:
    """Show every promotion, rejection and rollback of a scenario: when, who, from what to what, and why."""
    from rich.table import Table

    from mtrec.errors import ModelError
    from mtrec.tracking import history

    need_store(name, tracking_uri)
    changes = history(name, tracking_uri)
    if not changes and (scenario := name.removesuffix("-candidate")) != name:
        raise ModelError(
            f"{name}: candidates have no history of their own; give the serving model's name: {scenario}"
        )
    if not changes:
        typer.echo(f"Nothing has been decided about {name} yet.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("when", "who", "what", "champion", "why"):
        table.add_column(column, overflow="fold", no_wrap=column == "when")
    for change in changes:
        before, after = (label.removeprefix(f"{name}/") for label in (change.before, change.after))
        moved = f"{before} → {after}" if before != after else f"{after} stays"
        forced = " (forced)" if change.forced else ""
        what = f"{change.action}{forced} {change.candidate.removeprefix(f'{name}-')}".strip()
        table.add_row(moment(change.when), change.who, what, moved, change.why)
    console().print(table)


def told(change: Change) -> str:
    """One line about a decision."""
    forced = ", forced" if change.forced else ""
    reason = f": {change.why}" if change.why else ""
    return f"{change.action} by {change.who} on {moment(change.when)}{forced}{reason}"


def moment(when: str) -> str:
    """A time in UTC to the minute, for tables."""
    return when[:16].replace("T", " ")


def need_store(name: str, tracking_uri: str | None) -> None:
    """Refuse where there is no registry to look into.

    Raises:
        ModelError: there is none.
    """
    from mtrec.errors import ModelError

    if not store_exists(tracking_uri):
        raise ModelError(f"{name}: no such registered model (known: none); 'mtrec run' registers one")


def dvc_repository(given: Path | None) -> Path | None:
    """The DVC repository that was given, else the one here, where there is one.

    Raises:
        InputError: what was given is none.
    """
    from mtrec.errors import InputError
    from pipelines.workspace import Workspace

    if given is not None and not (given / ".dvc").is_dir():
        raise InputError(f"--dvc-root {given}: not a DVC repository; give the folder that holds .dvc")
    here = Workspace.here().dvc_root
    return given or (here if here.is_dir() else None)


def _who(given: str | None) -> str:
    import getpass
    import os

    from mtrec.errors import InputError

    if given is not None:
        return given
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError) as error:
        raise InputError("this system knows no login name: say who decides with --who") from error
