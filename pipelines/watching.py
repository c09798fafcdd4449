"""`mtrec watch`: look at the data drops again and again, one look after the other, also after a restart."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtrec.data.contract import replacing_file
from mtrec.errors import InputError, RunError
from pipelines.kfp_session import Interrupted, stop_children, stoppable
from pipelines.workspace import shown

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Look = Callable[[threading.Event], int]
"""Looks once and gives an exit code; ends early when the event is set."""
Tell = Callable[[str], None]


def interval(text: str) -> timedelta:
    """Read an interval such as 90s, 30m, 6h or 1d.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if not match or not int(match[1]):
        raise InputError(f"--every {text}: write a number and s, m, h or d, like 30m or 6h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def watch(look: Look, every: timedelta, state: Path, tell: Tell, *, times: int | None = None) -> int:
    """Look at every interval, counted from the beginning of the look before; one that takes longer delays the next.

    When the last look began is kept in a file: after a restart the next one comes when it is due, and one that was
    cut off is made again at once.

    Args:
        look: looks once.
        every: the interval.
        state: the file; one beside it is the lock.
        tell: takes a line for people.
        times: so many looks at most; None: until stopped.

    Returns:
        The exit code of the last look.

    Raises:
        RunError: somebody watches this already.
        Interrupted: Ctrl-C or SIGTERM.
    """
    from filelock import FileLock, Timeout

    state.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"{shown(state)}: another mtrec watch is going on here; stop it first") from error
    try:
        with stoppable() as asked:
            done = code = 0
            while times is None or done < times:
                due = _due(state, every)
                wait = (due - datetime.now(UTC)).total_seconds()
                if wait > 0:
                    tell(f"next look at {due:%Y-%m-%d %H:%M:%S} UTC")
                    if asked.wait(wait):
                        raise KeyboardInterrupt
                begun = datetime.now(UTC)
                _write(state, begun=begun, code=None)
                code = look(asked)
                if asked.is_set():
                    raise KeyboardInterrupt
                _write(state, begun=begun, code=code)
                done += 1
            return code
    except KeyboardInterrupt as error:
        stop_children()
        raise Interrupted("stopped; the same command goes on watching") from error
    finally:
        lock.release()


def monitor_in_a_process(arguments: Sequence[str]) -> Look:
    """A look that is `mtrec monitor` with these arguments, in a process of its own: what it loads goes with it.

    `watch` stops it when it is stopped itself.
    """

    def look(asked: threading.Event) -> int:
        return subprocess.Popen([sys.executable, "-m", "pipelines.cli", "monitor", *arguments]).wait()

    return look


def _due(state: Path, every: timedelta) -> datetime:
    """When the next look is due; at once where the last one did not end, or none is known.

    Never later than an interval from now, also where the clock was ahead when the last one began.
    """
    now = datetime.now(UTC)
    try:
        last = json.loads(state.read_text(encoding="utf-8"))
        due = datetime.fromisoformat(last["begun"]) + every
        return now if last["code"] is None else min(due, now + every)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):  # TypeError also where it has no zone
        return now


def _write(state: Path, *, begun: datetime, code: int | None) -> None:
    with replacing_file(state) as temporary:
        temporary.write_text(json.dumps({"begun": begun.isoformat(), "code": code}) + "\n", encoding="utf-8")
