"""One holder at a time, on one machine: a lock that expires by itself, with a fencing token.

A holder that was killed cannot give a lock back, so a lease ends when it is not renewed in time, and at once where
its process is known to be gone. One that only slept may wake up after somebody else has taken over, and a step that
a killed run has started may go on without it; their token is then older than the current one, and `guarded`, which
goes around every write that must not come late, refuses it (Kleppmann 2016, "How to do distributed locking").

The state of a lease is one small JSON file, replaced whole under a short file lock, so a kill leaves it old or new.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mtrec.data.contract import replacing_file
from mtrec.errors import RunError
from mtrec.processes import is_gone, me

_PATIENCE = 5.0
"""Seconds that a new holder waits for one that is writing."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the file says."""

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


class Held(RunError):
    """Somebody else holds the lease."""


class Lost(RunError):
    """The lease expired and may be another's by now: whatever was to be written must not be."""


class Lease:
    """A lease by name in a folder.

    Args:
        path: its file, e.g. `.mtrec/locks/shop.json`.
        seconds: how long it lasts without a renewal.
        clock: seconds since the epoch.
    """

    def __init__(self, path: Path, *, seconds: float = 120.0, clock: Callable[[], float] = time.time) -> None:
        self.path, self.seconds, self.clock = path, seconds, clock
        self.holder = f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self.token: int | None = None

    def as_text(self) -> str:
        """What `from_text` needs in another process that works for the holder."""
        return json.dumps({"path": str(self.path.resolve()), "holder": self.holder, "token": self.token})

    @classmethod
    def from_text(cls, text: str) -> Lease:
        """The lease of a holder that this process works for; it can be guarded, the holder renews it.

        Raises:
            RunError: not what `as_text` wrote.
        """
        try:
            given = json.loads(text)
            lease = cls(Path(given["path"]))
            lease.holder, lease.token = given["holder"], given["token"]
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"lease '{text}': not a lease in JSON text") from error
        return lease

    def acquire(self, what: str) -> int:
        """Become the holder, or fail at once.

        Args:
            what: what the lease is for, told to those who find it held.

        Returns:
            The fencing token.

        Raises:
            Held: somebody else holds it.
        """
        with self._alone(_PATIENCE):
            found = self.holding()
            if found is not None:
                left = found.expires - self.clock()
                raise Held(
                    f"{found.what} is under way already ({found.holder}); wait for it, or, if it died, "
                    f"{left:.0f} seconds until its lock {self.path} expires"
                )
            found = self.state()
            self.token = (found.token if found else 0) + 1
            own = me()
            self._write(
                State(
                    token=self.token,
                    holder=self.holder,
                    what=what,
                    expires=self.clock() + self.seconds,
                    host=str(own["host"]),
                    process=int(own["pid"]),
                    born=own["started"],
                )
            )
            return self.token

    def renew(self) -> None:
        """Let it last `seconds` from now, also where it has expired and nobody has taken it.

        Raises:
            Lost: it is another's.
        """
        with self._alone():
            self._write(replace(self._own(expired=True), expires=self.clock() + self.seconds))

    def release(self) -> None:
        """Give it back; one that is lost already is left alone."""
        with self._alone(), suppress(Lost):
            self._write(replace(self._own(expired=True), expires=0.0))
        self.token = None

    @contextmanager
    def guarded(self) -> Iterator[int]:
        """Nobody can take the lease over within this block; however long it was, the lease is fresh afterwards.

        Raises:
            Lost: it has expired or is another's; the block does not run.
        """
        with self._alone():
            own = self._own()
            try:
                yield own.token
            finally:
                self._write(replace(own, expires=self.clock() + self.seconds))

    def holding(self) -> State | None:
        """Who holds it now, if anybody does.

        Raises:
            RunError: its file is damaged.
        """
        found = self.state()
        return found if found is not None and found.expires > self.clock() and not found.gone() else None

    def state(self) -> State | None:
        """What the file says now; None: nobody has ever held it.

        Raises:
            RunError: it is damaged.
        """
        try:
            return State(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.path}: not a lock file ({error}); remove it if nothing is running") from error

    def _own(self, *, expired: bool = False) -> State:
        found = self.state()
        if found is None or found.token != self.token or found.holder != self.holder:
            by = f" {found.holder} holds it now" if found else ""
            raise Lost(f"{self.path}: this lock was lost;{by or ' its file is gone'}. Nothing was written.")
        if not expired and found.expires <= self.clock():
            raise Lost(f"{self.path}: this lock has expired. Nothing was written.")
        return found

    def _write(self, state: State) -> None:
        with replacing_file(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")

    @contextmanager
    def _alone(self, seconds: float = -1) -> Iterator[None]:
        """Hold the file lock.

        Args:
            seconds: how long to wait for it; negative: until it is free.

        Raises:
            Held: it was not free in time.
        """
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=seconds)
        except Timeout as error:
            found = self.state()
            who = f"{found.what} is under way already ({found.holder})" if found else "another process is at it"
            raise Held(f"{who} and writes under its lock {self.path}; wait for it") from error
        try:
            yield
        finally:
            lock.release()


@contextmanager
def holding(lease: Lease, what: str) -> Iterator[Lease]:
    """Hold a lease for the time of a block, renewed by a thread at a third of its length.

    Raises:
        Held: somebody else holds it; the block does not run.
    """
    lease.acquire(what)
    done = threading.Event()

    def keep() -> None:
        while not done.wait(lease.seconds / 3):
            with suppress(Lost, OSError):
                lease.renew()

    thread = threading.Thread(target=keep, name=f"renews {lease.path.name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        lease.release()
