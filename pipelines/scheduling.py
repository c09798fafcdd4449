"""Recurring runs on a cluster: the training or the monitor, by the server's clock.

One run of a schedule at a time, and what was missed while it was paused or the server away is not made up for: the
newest data is what counts. The server counts the schedule's own runs alone, so one started by hand may overlap.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mtrec.errors import InputError
from pipelines.kfp_server import Away, Missing, ScheduleView, Server
from pipelines.kfp_session import Interrupted
from pipelines.submitting import Order, Prepared, prepare, sent

_NUMBER = re.compile(r"[0-9]{1,9}")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: Sequence[tuple[str, int, int, Sequence[str]]] = (
    ("second", 0, 59, ()),
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("weekday", 0, 6, _DAYS),
)
"""As the server takes them: Sunday is 0, and there is no 7."""


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """A schedule that was made."""

    id: str
    name: str
    cron: str
    """As `shown` has it."""
    prepared: Prepared
    replaced: int
    """How many of that name it took the place of."""
    paused: bool = False
    """Whether it starts nothing, as what it took the place of."""


def six_fields(cron: str) -> str:
    """A cron expression as the server takes it, with seconds first; of five fields it is at second 0.

    Raises:
        InputError: neither five nor six fields, or one that is not in its range.
    """
    fields = cron.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        says = "minute hour day month weekday, as '0 3 * * *'; or six with the second first"
        raise InputError(f"--cron '{cron}': five fields are expected: {says}")
    for given, (name, low, high, words) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(part, low, high, words) for part in given.lower().split(",")):
            known = f"{low} to {high}" + (f" or {words[0].upper()} to {words[-1].upper()}" if words else "")
            says = f"{known}, with * , - and /"
            raise InputError(f"--cron '{cron}': '{given}' is no {name} ({says})")
    return " ".join(fields)


def shown(cron: str) -> str:
    """A cron expression as people write it: of the server's six fields without the second, where that is 0."""
    second, _, rest = cron.partition(" ")
    return rest if second == "0" and len(rest.split()) == 5 else cron


def _fits(part: str, low: int, high: int, words: Sequence[str]) -> bool:
    """Whether the server takes a part of a field: *, VALUE or FIRST-LAST, each with /STEP where it is wanted."""
    span, slash, step = part.partition("/")
    if slash and not (_NUMBER.fullmatch(step) and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    first, dash, last = span.partition("-")
    ends = [_value(end, low, words) for end in ([first, last] if dash else [first])]
    return all(low <= end <= high for end in ends) and ends == sorted(ends)


def _value(text: str, low: int, words: Sequence[str]) -> int:
    if text in words:
        return low + words.index(text)
    return int(text) if _NUMBER.fullmatch(text) else -1


def create(order: Order, cron: str, server: Server, *, replace: bool = False) -> Scheduled:
    """Make the schedule of a pipeline and scenario; there is one, by its name.

    The version of the pipeline and all parameters are kept in it: a new image or setting takes effect with a new
    schedule.

    Args:
        order: what shall run.
        cron: when, by the server's clock (UTC unless it is set up otherwise); five or six fields.
        server: that shall have it.
        replace: take the place of the one that is there; where that is paused, the new one is too.

    Raises:
        InputError: there is one already, also where somebody made it at the same moment; the expression is none; or
            the server refuses it.
        RunError: the server is away.
        Interrupted: the user stopped it, and it may be made.
    """
    six, name, parameters = six_fields(cron), f"mtrec-{order.kind}-{order.scenario.name}", order.given
    there = server.schedules(name)
    if there and not replace:
        raise InputError(
            f"schedule {name} is there already ({shown(there[0].cron)}): give --replace to make it anew"
        )
    prepared = prepare(order, server)
    paused = bool(there) and not any(old.enabled for old in there)
    beside = " beside the one of before" if there else ""
    try:
        made = server.schedule(
            name,
            six,
            **sent(order, prepared, parameters),
            description=f"{order.kind} of {order.scenario.name}, made by mtrec",
            enabled=not paused,
        )
    except (Away, Interrupted) as error:
        raise type(error)(f"{error}{beside}") from error
    others = ", and so may be the one of before" if there else ""
    see = "see 'mtrec schedule list', and delete by its id what is too much"
    try:
        _alone(server, name, made, there)
        for old in there:  # after the new one is there: a refused one must not leave none
            with suppress(Missing):
                server.delete(old.id)
    except Away as error:
        raise Away(f"schedule {name} is made ({made}){others}; then the server was away: {error}; {see}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(f"schedule {name} is made ({made}){others}; then it was stopped; {see}") from error
    return Scheduled(id=made, name=name, cron=shown(six), prepared=prepared, replaced=len(there), paused=paused)


def _alone(server: Server, name: str, made: str, before: Sequence[ScheduleView]) -> None:
    """Take a new schedule back where somebody else made one of that name since its maker had looked.

    The server takes any number of one name. Its times have whole seconds: of two within one, both may go.

    Raises:
        InputError: it was taken back.
    """
    new = [one for one in server.schedules(name) if one.id not in {old.id for old in before}]
    own = next((one.created for one in new if one.id == made), None)
    if any(one.id != made and (one.created is None or own is None or one.created <= own) for one in new):
        server.delete(made)
        raise InputError(
            f"schedule {name}: somebody else made it at the same moment, and this one was taken back; see `mtrec "
            "schedule list`, and try again if it is not what you want"
        )


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
