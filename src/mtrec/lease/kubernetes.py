"""A lease of a cluster: an object of coordination.k8s.io/v1, written only over the version that was read.

Pods have clocks of their own, so time is the API server's, as it stands in the header of its answers. Nobody can be
locked out of an API server: what keeps two holders apart is that it refuses a second object of a name and a write
over another version than the newest (409). The fencing token is `leaseTransitions`, which grows with every holder,
with the object's uid, as one that was deleted and made again would count from the beginning.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from mtrec.errors import RunError
from mtrec.kube import answering, api_client, request
from mtrec.lease.state import Away, Changed, State, Version

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_MICRO = "%Y-%m-%dT%H:%M:%S.%fZ"
"""The API server takes neither a time without fractions nor one without a zone; the client would write both."""


class LeaseStore:
    """One Lease object.

    Args:
        namespace: where it is.
        name: of the object; a DNS name.
        labels: given to it when it is made.
        client: to ask with; by default the pod's own, or the kubeconfig's.
    """

    locks = False

    def __init__(
        self, namespace: str, name: str, *, labels: dict[str, str] | None = None, client: ApiClient | None = None
    ) -> None:
        self.namespace, self.name, self.labels, self._client = namespace, name, labels or {}, client
        self._ahead: float | None = None

    @property
    def shown(self) -> str:
        """Namespace and name."""
        return f"Lease {self.namespace}/{self.name}"

    @property
    def place(self) -> dict[str, Any]:
        """Namespace and name, and the labels for who makes it."""
        return {"kubernetes": {"namespace": self.namespace, "name": self.name, "labels": self.labels}}

    @contextmanager
    def alone(self, patience: float) -> Iterator[None]:
        """Nobody is kept out: `write` refuses what came in between."""
        yield

    def read(self) -> tuple[State | None, Version]:
        """What the object says; see `Store.read`."""
        found = self._ask("GET")
        return (None, Version()) if found is None else (state_of(found), _version(found))

    def write(self, state: State, version: Version, seconds: float) -> Version:
        """Make the object, or replace the version that was read; see `Store.write`.

        An answer that was lost on its way is no reason to fail: the object is then looked at once more.
        """
        body = self._body(state, version, seconds)
        try:
            written = self._ask("PUT" if version.uid else "POST", body)
        except (Away, Changed):
            written = self._ask("GET")
            if written is None or written.get("spec") != body["spec"]:
                raise
        assert written is not None
        return _version(written)

    def now(self) -> float:
        """The API server's clock, at its last answer and what has passed since."""
        if self._ahead is None:
            self.read()
        assert self._ahead is not None
        return time.monotonic() + self._ahead

    def every(self, labels: str) -> list[dict[str, Any]]:
        """The Lease objects of the namespace with such labels; see `held`."""
        found = self._ask("GET", query=[("labelSelector", labels)])
        return list(found["items"]) if found else []

    def _body(self, state: State, version: Version, seconds: float) -> dict[str, Any]:
        duration = math.ceil(seconds) + 1  # the clock is up to a second late, as times in answers are whole seconds
        renewed = state.expires - seconds if state.expires else self.now()
        stamp = datetime.fromtimestamp(renewed, UTC).strftime(_MICRO)
        told = {"mtrec/what": state.what, "mtrec/host": socket.gethostname()}
        meta = {
            "name": self.name,
            "namespace": self.namespace,
            "labels": {**version.others.get("labels", {}), **self.labels},
            "annotations": {**version.others.get("annotations", {}), **told},
        }
        spec = {"leaseDurationSeconds": duration, "leaseTransitions": state.token, "renewTime": stamp}
        if state.expires:
            spec |= {"holderIdentity": state.holder}
        if version.uid:
            meta |= {"uid": version.uid, "resourceVersion": version.revision}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}

    def _ask(
        self, method: str, body: dict[str, Any] | None = None, query: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any] | None:
        """The object that the API server answers with; None: it is not there."""
        from kubernetes.client import ApiException

        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        if method != "POST" and not query:
            path = f"{path}/{self.name}"
        try:
            with answering(self.shown, Away):
                client = self._client or api_client()
                found, headers = request(client, method, path, body, query)
        except ApiException as error:
            if error.status == 409:
                raise Changed from error
            if method == "GET":
                self._hear(error.headers)
                return None
            if method == "PUT":  # deleted since it was read
                raise Changed from error
            raise Away(f"{self.shown}: there is no namespace {self.namespace}; make it, or name another") from error
        self._hear(headers)
        return dict(found)

    def _hear(self, headers: Any) -> None:
        """Set the clock by an answer."""
        date = (headers or {}).get("Date")
        if not date:
            raise RunError(f"{self.shown}: the answer has no Date, by which leases expire; let no proxy remove it")
        self._ahead = parsedate_to_datetime(date).timestamp() - time.monotonic()


def held(namespace: str, labels: str, *, client: ApiClient | None = None) -> list[State]:
    """The leases that somebody holds now, by name.

    Args:
        namespace: where they are.
        labels: a label selector, e.g. `mtrec/kind=training`.
        client: to ask with; by default the pod's own, or the kubeconfig's.

    Raises:
        Away: the API server cannot be reached.
        RunError: it refuses.
    """
    store = LeaseStore(namespace, "", client=client)
    found = store.every(labels)
    return [state for state in map(state_of, found) if state.expires > store.now()]


def state_of(lease: dict[str, Any]) -> State:
    """What a Lease object says; one without a holder, or without times, is free."""
    spec, told = lease.get("spec") or {}, lease["metadata"].get("annotations") or {}
    holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime")
    lasts = spec.get("leaseDurationSeconds") or 0
    return State(
        token=spec.get("leaseTransitions") or 0,
        holder=holder,
        what=told.get("mtrec/what") or "something else",
        expires=datetime.fromisoformat(renewed).timestamp() + lasts if holder and renewed else 0.0,
        host="",
        process=0,
        born="",
    )


def _version(lease: dict[str, Any]) -> Version:
    meta = lease["metadata"]
    others = {kind: meta.get(kind) or {} for kind in ("labels", "annotations")}
    return Version(meta["uid"], meta["resourceVersion"], others)
