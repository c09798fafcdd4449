"""Recurring runs on a cluster: the training or the monitor, by the server's clock.

One run of a schedule at a time, and what was missed while it was paused or the server away is not made up for: the
newest data is what counts. The server counts the schedule's own runs alone, so one started by hand may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtrec.errors import InputError
from pipelines.kfp_server import Missing, ScheduleView, Server
from pipelines.submitting import Order, Prepared, prepare


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A schedule that was made."""

    id: str
    name: str
    cron: str
    prepared: Prepared
    replaced: int
    """How many of that name it took the place of."""


def six_fields(cron: str) -> str:
    """A cron expression as the server takes it, with seconds first; of five fields it is at second 0.

    Raises:
        InputError: neither five nor six fields.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        says = "minute hour day month weekday, as '0 3 * * *'; or six with the second first"
        raise InputError(f"--cron '{cron}': five fields are expected: {says}")
    return " ".join(fields)


def create(order: Order, cron: str, server: Server, *, replace: bool = False) -> Scheduled:
    """Make the schedule of a pipeline and scenario; there is one, by its name.

    The version of the pipeline and all parameters are kept in it: a new image or setting takes effect with a new
    schedule.

    Args:
        order: what shall run.
        cron: when, by the server's clock (UTC unless it is set up otherwise); five or six fields.
        server: that shall have it.
        replace: take the place of the one that is there.

    Raises:
        InputError: there is one already, the expression is none, or the server refuses it.
        RunError: the server is away.
    """
    six, name, parameters = six_fields(cron), f"mtrec-{order.kind}-{order.scenario.name}", order.given
    there = server.schedules(name)
    if there and not replace:
        raise InputError(f"schedule {name} is there already ({there[0].cron}): give --replace to make it anew")
    prepared = prepare(order, server)
    made = server.schedule(
        name,
        six,
        experiment_id=prepared.experiment_id,
        pipeline_id=prepared.pipeline_id,
        version_id=prepared.version_id,
        parameters=parameters,
        service_account=order.service_account,
        pipeline_root=order.pipeline_root,
        description=f"{order.kind} of {order.scenario.name}, made by mtrec",
    )
    for old in there:  # after the new one is there: a refused one must not leave none
        server.delete(old.id)
    return Scheduled(id=made, name=name, cron=six, prepared=prepared, replaced=len(there))


def find(server: Server, which: str) -> ScheduleView:
    """The schedule of that name or id.

    Raises:
        Missing: there is none.
        InputError: several have the name.
    """
    known = server.schedules()
    found = [one for one in known if which in (one.id, one.name)]
    if not found:
        names = ", ".join(one.name for one in known) or "none"
        raise Missing(f"schedule {which}: no such schedule on {server.host} (known: {names})")
    if len(found) > 1:
        raise InputError(
            f"schedule {which}: {len(found)} have that name, give an id: {', '.join(s.id for s in found)}"
        )
    return found[0]
