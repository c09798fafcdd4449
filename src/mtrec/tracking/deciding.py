"""The leases of a scenario: one decides about its champion at a time, and one trains it.

A lease is a file: beside an SQLite store, else under `.mtrec/locks` here. It keeps the processes of one machine
apart, not those of several machines on one server. With MTREC_LEASES=kubernetes, or kubernetes:NAMESPACE, it is a
Lease object of the cluster, which keeps apart whoever uses that cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.errors import InputError
from mtrec.kube import default_namespace
from mtrec.lease import Lease, LeaseStore, holding
from mtrec.lease.kubernetes import held
from mtrec.tracking.connection import database_of, locked
from mtrec.tracking.history import finish_pending

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEASE_SECONDS = 60.0
VARIABLE = "MTREC_LEASES"


def training_lease(name: str, uri: str) -> Lease:
    """The lease under which a scenario is trained; see `lease_of` for where it is."""
    return lease_of(name, uri, "training")


def lease_of(name: str, uri: str, what: str = "promotion") -> Lease:
    """The lease under which the champion of a scenario is changed.

    Args:
        name: the scenario.
        uri: a resolved tracking URI.
        what: another lease of the same scenario.

    Raises:
        InputError: MTREC_LEASES is wrong.
    """
    if (namespace := _namespace()) is not None:
        return Lease(_object(name, namespace, what), seconds=LEASE_SECONDS)
    return Lease(_locks(uri) / f"{name}.{what}.json", seconds=LEASE_SECONDS)


def run_lease(name: str, namespace: str, hours: float = 6.0) -> str:
    """What the parameter `lease` of a pipeline on a cluster is: where the lease is that its run holds.

    Args:
        name: the scenario.
        namespace: of the Lease objects.
        hours: how long the lease lasts when no step renews it: between steps, while a pod waits for a machine.
    """
    return Lease(_object(name, namespace, "training"), seconds=3600 * hours).as_place()


def trainings(uri: str) -> list[str]:
    """What is being trained now, of any scenario, for people.

    Args:
        uri: a resolved tracking URI.

    Raises:
        InputError: MTREC_LEASES is wrong.
        RunError: the leases cannot be read.
    """
    if (namespace := _namespace()) is not None:
        found = held(namespace, "mtrec/kind=training")
    else:
        paths = sorted(_locks(uri).glob("*.training.json"))
        found = [state for path in paths if (state := Lease(path).holding()) is not None]
    return [f"{state.what} ({state.holder})" for state in found]


def _namespace() -> str | None:
    """Where the Lease objects are; None: leases are files."""
    given = os.environ.get(VARIABLE, "files")
    kind, _, namespace = given.partition(":")
    if kind not in ("", "files", "kubernetes") or (namespace and kind != "kubernetes"):
        raise InputError(f"{VARIABLE}={given}: unknown; give files, kubernetes or kubernetes:NAMESPACE")
    return (namespace or default_namespace()) if kind == "kubernetes" else None


def _object(name: str, namespace: str, what: str) -> LeaseStore:
    labels = {"mtrec/kind": what, "mtrec/scenario": name}
    return LeaseStore(namespace, f"mtrec-{name}-{what}", labels=labels)


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
