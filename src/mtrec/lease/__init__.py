"""One holder at a time: a lock that expires by itself, with a fencing token.

A holder that was killed cannot give a lock back, so a lease ends when it is not renewed in time, and at once where
its process is known to be gone. One that only slept may wake up after somebody else has taken over, and a step that
a killed run has started may go on without it; their token is then older than the current one, and `guarded`, which
goes around every write that must not come late, refuses it (Kleppmann 2016, "How to do distributed locking").

    state.py         what a lease is in, and what a place that keeps one must do
    file.py          a file, for the processes of one machine
    kubernetes.py    a Lease object, for the pods of a cluster
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mtrec.errors import RunError
from mtrec.lease.file import FileStore
from mtrec.lease.kubernetes import LeaseStore
from mtrec.lease.state import Away, Changed, Held, Lost, State, Store, Version
from mtrec.processes import me

__all__ = [
    "Away",
    "FileStore",
    "Held",
    "Lease",
    "LeaseStore",
    "Lost",
    "State",
    "Store",
    "has",
    "holding",
    "leave",
    "of_run",
]

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds that a new holder waits for one that is writing."""
_TRIES = 20
"""How often a write is begun anew because somebody else wrote in between."""


class Lease:
    """A lease.

    Args:
        where: its file, e.g. `.mtrec/locks/shop.json`, or another store.
        seconds: how long it lasts without a renewal.
        clock: seconds since the epoch; by default the store's own.
        holder: who holds it; by default this object alone. With a name that several processes share, e.g. that of
            a run, whichever comes first acquires it and the others go on with its token.
    """

    def __init__(
        self,
        where: Path | Store,
        *,
        seconds: float = 120.0,
        clock: Callable[[], float] | None = None,
        holder: str | None = None,
    ) -> None:
        self.store: Store = FileStore(where) if isinstance(where, Path) else where
        self.seconds, self.clock = seconds, clock or self.store.now
        self.holder = holder or f"{socket.gethostname()}, process {os.getpid()}, {uuid.uuid4().hex[:8]}"
        self.token: int | None = None
        self._shared, self._uid = holder is not None, ""
        self._sure = -math.inf
        """Until when nobody can have taken it, whether or not the store can be reached; by `time.monotonic`."""

    @property
    def path(self) -> Path:
        """The file of a lease that is one."""
        if not isinstance(self.store, FileStore):
            raise AttributeError(f"{self.store.shown} has no path")
        return self.store.path

    def as_text(self) -> str:
        """What `from_text` needs in another process that works for the holder."""
        own: dict[str, Any] = {"holder": self.holder, "token": self.token}
        if self._uid:
            own |= {"uid": self._uid, "seconds": self.seconds}
        return json.dumps(self.store.place | own)

    def as_place(self) -> str:
        """What `join` needs in the processes of a run that has not begun: where the lease is, without a token."""
        return json.dumps(self.store.place | {"seconds": self.seconds})

    @classmethod
    def from_text(cls, text: str) -> Lease:
        """The lease of a holder that this process works for; it can be guarded, the holder renews it.

        Raises:
            RunError: not what `as_text` wrote.
        """
        with _lease_text(text):
            given = json.loads(text)
            lease = cls._at(given, None)
            lease.holder, lease.token, lease._uid = given["holder"], given["token"], given.get("uid", "")
            return lease

    @classmethod
    def join(cls, text: str, holder: str) -> Lease:
        """The lease of a run, for one of its processes: with the run's token, where the run holds it by now.

        Args:
            text: what `as_text` wrote, which says all, or what `as_place` wrote.
            holder: the run, where the text does not say who holds it.

        Raises:
            Away: the store cannot be reached.
            RunError: not such a text.
        """
        with _lease_text(text):
            given = json.loads(text)
            if "token" in given:
                return cls.from_text(text)
            lease = cls._at(given, holder)
        lease._adopt(*lease.store.read())
        return lease

    @classmethod
    def _at(cls, given: dict[str, Any], holder: str | None) -> Lease:
        """The lease at the place that a text names."""
        seconds = float(given.get("seconds", 120.0))
        if "path" in given:
            return cls(Path(given["path"]), seconds=seconds, holder=holder)
        place = given["kubernetes"]
        store = LeaseStore(place["namespace"], place["name"], labels=place.get("labels"))
        return cls(store, seconds=seconds, holder=holder)

    def acquire(self, what: str) -> int:
        """Become the holder, or fail at once.

        Args:
            what: what the lease is for, told to those who find it held.

        Returns:
            The fencing token.

        Raises:
            Held: somebody else holds it.
            Away: the store cannot be reached.
        """
        with self.store.alone(_PATIENCE):
            return self._until_unchanged(lambda: self._acquire(what))

    def _acquire(self, what: str) -> int:
        found, version = self.store.read()
        if found is not None and self._adopt(found, version):
            self._extend(found, version)
            return found.token
        if found is not None and self._lives(found):
            left = found.expires - self.clock()
            raise Held(
                f"{found.what} is under way already ({found.holder}); wait for it, or, if it died, "
                f"{left:.0f} seconds until its lock {self.store.shown} expires"
            )
        own, sure = me(), time.monotonic() + self.seconds
        state = State(
            token=(found.token if found else 0) + 1,
            holder=self.holder,
            what=what,
            expires=self.clock() + self.seconds,
            host=str(own["host"]),
            process=int(own["pid"]),
            born=own["started"],
        )
        self._uid = self.store.write(state, version, self.seconds).uid
        self.token, self._sure = state.token, sure
        return state.token

    def _adopt(self, found: State | None, version: Version) -> bool:
        """Take up the token of the holder of the same name, where the name is shared and nobody came after it."""
        if not self._shared or found is None or found.holder != self.holder or found.expires == 0:
            return False
        self.token, self._uid = found.token, version.uid
        return True

    def renew(self) -> None:
        """Let it last `seconds` from now, also where it has expired and nobody has taken it.

        Raises:
            Lost: it is another's.
            Away: the store cannot be reached.
        """
        with self.store.alone(-1):
            self._until_unchanged(lambda: self._extend(*self._own(expired=True)))

    def release(self) -> None:
        """Give it back; one that is lost already is left alone.

        Raises:
            Away: the store cannot be reached; it expires.
        """
        with self.store.alone(-1), suppress(Lost):
            self._until_unchanged(lambda: self._give_back(*self._own(expired=True)))
        self.token = None

    def guarded(self) -> AbstractContextManager[int]:
        """Nobody can take the lease over within this block; however long it was, the lease is fresh afterwards.

        Where others can be kept from writing, they are. Elsewhere the lease is renewed before, within and after the
        block, and a loss meanwhile is told: what was written may then have been late, so such writes must do
        no harm when another makes them too.

        Returns:
            A context manager that gives the fencing token.

        Raises:
            Lost: it has expired or is another's; the block does not run. Or, where nobody can be kept out, it was
                lost within the block.
            Away: the store cannot be reached; the block does not run.
        """
        return self._locked() if self.store.locks else self._renewed()

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self.store.alone(-1):
            own, version = self._own()
            try:
                yield own.token
            finally:
                self._extend(own, version)

    @contextmanager
    def _renewed(self) -> Iterator[int]:
        self._until_unchanged(lambda: self._extend(*self._own()))
        assert self.token is not None
        with _renewing(self):
            yield self.token
        self._confirm()

    def _confirm(self) -> None:
        """The lease is still the holder's, after a write."""
        try:
            self.renew()
        except Lost as error:
            why = str(error).removesuffix(" Nothing was written.")
            raise Lost(f"{why} What was written meanwhile may have come late; see who holds it now") from error
        except Away as error:
            if time.monotonic() >= self._sure:
                raise Lost(f"{error}; whether what was written came in time is not known") from error

    def holding(self) -> State | None:
        """Who holds it now, if anybody does.

        Raises:
            RunError: its file is damaged, or the store cannot be reached.
        """
        found = self.state()
        return found if found is not None and self._lives(found) else None

    def state(self) -> State | None:
        """What the store says now; None: nobody has ever held it.

        Raises:
            RunError: it is damaged, or the store cannot be reached.
        """
        return self.store.read()[0]

    def _lives(self, found: State) -> bool:
        return found.expires > self.clock() and not found.gone()

    def _own(self, *, expired: bool = False) -> tuple[State, Version]:
        found, version = self.store.read()
        shown, own = self.store.shown, (self.token, self.holder, self._uid)
        if found is None or (found.token, found.holder, version.uid) != own:
            by = f"{found.holder or 'nobody'} holds it now." if found else f"{shown} is gone."
            raise Lost(f"{shown}: this lock was lost; {by} Nothing was written.")
        if not expired and found.expires <= self.clock():
            raise Lost(f"{shown}: this lock has expired. Nothing was written.")
        return found, version

    def _extend(self, own: State, version: Version) -> None:
        sure = time.monotonic() + self.seconds
        self.store.write(replace(own, expires=self.clock() + self.seconds), version, self.seconds)
        self._sure = sure

    def _give_back(self, own: State, version: Version) -> None:
        self.store.write(replace(own, expires=0.0), version, self.seconds)

    def _until_unchanged(self, act: Callable[[], T]) -> T:
        """Read and write again as long as somebody else writes in between."""
        for _ in range(_TRIES):
            try:
                return act()
            except Changed:
                time.sleep(0.01)
        raise Away(f"{self.store.shown}: others write it all the time; try again")


@contextmanager
def holding(lease: Lease, what: str) -> Iterator[Lease]:
    """Hold a lease for the time of a block, renewed by a thread at a third of its length.

    Raises:
        Held: somebody else holds it; the block does not run.
        Away: the store cannot be reached; the block does not run.
    """
    lease.acquire(what)
    try:
        with _renewing(lease):
            yield lease
    finally:
        with suppress(Away):  # then it expires by itself
            lease.release()


@contextmanager
def of_run(text: str, run: str, what: str) -> Iterator[None]:
    """Work under the lease that the steps of a run on a cluster hold together; it stays the run's afterwards.

    Args:
        text: what `as_place` wrote. Nothing is done for an empty text, nor for what `as_text` wrote, whose holder
            lives through all steps and renews it.
        run: the run, which holds it.
        what: what the run is for, told to others.

    Raises:
        Held, Away: see `working`; the block does not run.
    """
    if not _is_place(text):
        yield
        return
    with working(Lease.join(text, run), what):
        yield


def leave(text: str, run: str) -> None:
    """Give back the lease of a run whose last step this is; see `of_run` for the arguments.

    Raises:
        Away: the store cannot be reached; it expires.
    """
    if _is_place(text) and (lease := Lease.join(text, run)).token is not None:
        lease.release()


def has(text: str, run: str) -> bool:
    """Whether a run has the lease of its steps, or needs none; see `of_run` for the arguments.

    Raises:
        Away: the store cannot be reached.
    """
    return not _is_place(text) or Lease.join(text, run).token is not None


def _is_place(text: str) -> bool:
    with _lease_text(text):
        return bool(text) and "token" not in json.loads(text)


@contextmanager
def working(lease: Lease, what: str) -> Iterator[Lease]:
    """Hold the lease of a run for the time of one of its steps; afterwards it stays the run's until it expires.

    Its first step acquires it, later ones go on with its token. One that finds it expired or given back, as where a
    person tries an ended run again, acquires it anew, if nobody has it.

    Args:
        lease: see `Lease.join`.
        what: what the run is for, told to others.

    Raises:
        Held: another run holds it; the block does not run.
        Away: the store cannot be reached; the block does not run.
    """
    lease.acquire(what)
    with _renewing(lease):
        yield lease


@contextmanager
def _renewing(lease: Lease) -> Iterator[None]:
    done = threading.Event()

    def keep() -> None:
        while not done.wait(lease.seconds / 3):
            with suppress(Lost, Away, OSError):
                lease.renew()

    thread = threading.Thread(target=keep, name=f"renews {lease.store.shown}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _lease_text(text: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"lease '{text}': not a lease in JSON text") from error
