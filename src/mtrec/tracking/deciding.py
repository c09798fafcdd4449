"""The leases of a scenario: one decides about its champion at a time, and one trains it.

A lease is a file: beside an SQLite store, else under `.mtrec/locks` here. It keeps the processes of one machine
apart, not those of several machines on one server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.lease import Lease, holding
from mtrec.tracking.connection import database_of, locked
from mtrec.tracking.history import finish_pending

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE_SECONDS = 60.0


def training_lease(name: str, uri: str) -> Lease:
    """The lease under which a scenario is trained; see `lease_of` for where it is."""
    return lease_of(name, uri, "training")


def lease_of(name: str, uri: str, what: str = "promotion") -> Lease:
    """The lease under which the champion of a scenario is changed.

    Args:
        name: the scenario.
        uri: a resolved tracking URI.
        what: another lease of the same scenario.
    """
    return Lease(_locks(uri) / f"{name}.{what}.json", seconds=LEASE_SECONDS)


def trainings(uri: str) -> list[str]:
    """What is being trained now, of any scenario, for people.

    Args:
        uri: a resolved tracking URI.
    """
    found = [Lease(path).holding() for path in sorted(_locks(uri).glob("*.training.json"))]
    return [f"{state.what} ({state.holder})" for state in found if state is not None]


def _locks(uri: str) -> Path:
    database = database_of(uri)
    return (Path(".mtrec") if database is None else database.parent) / "locks"


@contextmanager
def deciding(client: MlflowClient, uri: str, name: str, what: str) -> Iterator[None]:
    """Nobody else decides within this block; what a decision that was killed left is tidied up first.

    Raises:
        Held: another decision is under way.
        Lost: this process was so late that another may have decided.
    """
    with holding(lease_of(name, uri), what) as lease, locked(uri), lease.guarded():
        finish_pending(client, name)
        yield
