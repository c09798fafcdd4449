"""What a lease is in, wherever it is kept, and what a place that keeps one must do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mtrec.errors import RunError, Unavailable
from mtrec.processes import is_gone


@dataclass(frozen=True, kw_only=True)
class State:
    """What the file, or the object, says."""

    token: int
    """Grows with every holder; never reused."""
    holder: str
    what: str
    """What the holder is doing, for people."""
    expires: float
    """Seconds since the epoch; 0 after a release."""
    host: str
    """The machine and its process namespace; one without the latter, from an mtrec of before, is nobody's own."""
    process: int
    born: str | float
    """When the holder's process was started, see `processes.me`: numbers of processes are used again."""

    def gone(self) -> bool:
        """Whether the holder was a process of this machine that has ended."""
        return is_gone({"host": self.host, "pid": self.process, "started": self.born})


class Version(NamedTuple):
    """Which writing of a state was read, so that a later one is not overwritten."""

    uid: str = ""
    """Of the object: one that was deleted and made again counts its tokens from the beginning."""
    revision: str = ""
    others: Mapping[str, Mapping[str, str]] = {}
    """Labels and annotations of the object, which a write leaves to it."""


class Held(RunError):
    """Somebody else holds the lease."""


class Lost(RunError):
    """The lease expired and may be another's by now: whatever was to be written must not be."""


class Away(Unavailable):
    """Where the lease is kept cannot be reached now."""


class Changed(Exception):
    """Somebody else wrote in between; read again."""


class Store(Protocol):
    """Keeps the state of one lease."""

    locks: bool
    """Whether `alone` keeps others from writing; where not, `write` refuses what came in between."""

    @property
    def shown(self) -> str:
        """Where it is, for people."""

    @property
    def place(self) -> dict[str, Any]:
        """Where it is, for another process."""

    def alone(self, patience: float) -> AbstractContextManager[None]:
        """Keep others from writing within this block, where that can be done.

        Args:
            patience: seconds to wait for it; negative: until it is free.

        Raises:
            Held: it was not free in time.
        """

    def read(self) -> tuple[State | None, Version]:
        """What it says now; None: nobody has ever held it.

        Raises:
            Away: it cannot be reached.
            RunError: it is damaged.
        """

    def write(self, state: State, version: Version, seconds: float) -> Version:
        """Write it over the version that was read.

        Args:
            state: what it shall say.
            version: what `read` gave with the state that this one follows.
            seconds: how long the lease lasts without a renewal.

        Raises:
            Away: it cannot be reached; it may have been written.
            Changed: it is not what was read.
        """

    def now(self) -> float:
        """Seconds since the epoch by the clock that `expires` is measured with."""
