"""A stand-in for a Kubernetes API server, in this process, over real HTTP.

It keeps to what the API promises its clients and mtrec relies on: objects have a uid and a resourceVersion, which
changes with every write; creating what is there is 409 AlreadyExists, replacing with a stale resourceVersion or
another uid is 409 Conflict, what is not there is 404, what is wrong is 422, what cannot be decoded is 400, each as
a `Status` object; lists by label; dry runs that check and keep nothing; namespaces that must exist; rights that can
be taken away, which SelfSubjectAccessReview tells and requests meet as 403; every answer has the server's `Date`.

It is not Kubernetes: no watch, no admission, no controllers (a Job makes no pods, a claim is bound only where a
test says so), no defaults, no schemas but that of Lease, rights only as tests take them away, one version of each
resource, and a strategic merge patch is an ordinary merge patch.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from mtrec import kube

Object = dict[str, Any]

_KINDS = {
    "namespaces": ("v1", "Namespace", False),
    "nodes": ("v1", "Node", False),
    "pods": ("v1", "Pod", True),
    "events": ("v1", "Event", True),
    "services": ("v1", "Service", True),
    "secrets": ("v1", "Secret", True),
    "configmaps": ("v1", "ConfigMap", True),
    "serviceaccounts": ("v1", "ServiceAccount", True),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim", True),
    "deployments": ("apps/v1", "Deployment", True),
    "leases": ("coordination.k8s.io/v1", "Lease", True),
    "customresourcedefinitions": ("apiextensions.k8s.io/v1", "CustomResourceDefinition", False),
    "trainjobs": ("trainer.kubeflow.org/v1alpha1", "TrainJob", True),
    "trainingruntimes": ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime", True),
    "clustertrainingruntimes": ("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", False),
}
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_MICRO_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)$")
_SET = re.compile(r"([^\s,]+) in \(([^)]*)\)")
_REVIEWS = ("selfsubjectaccessreviews", "subjectaccessreviews")
_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<rest>.+))?)?$"
)


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


@dataclass
class Request:
    """One request, as the server understood it."""

    method: str
    path: str
    query: dict[str, str]
    body: Any = None
    user: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""
    """A subresource: log, status, proxy."""


class KubeServer:
    """The server; a context manager.

    Attributes:
        objects: what it holds, by (resource, namespace, name).
        forbidden: (verb, resource) or (verb, resource, name) that nobody may.
        logs: the log of a pod by (namespace, name).
        proxied: what services answer through the API server's proxy: (namespace, service) → (code, text).
        seen: every request.
        ahead: seconds by which its clock is ahead of this machine's.
        version: what /version says.
        away: whether connections are closed without an answer.
        unanswered: methods whose next request is done, and its answer lost.
        cut: pods, by (namespace, name), whose log is next broken off before its end.
    """

    def __init__(self, version: str = "v1.33.1") -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.forbidden: set[tuple[str, ...]] = set()
        self.logs: dict[tuple[str, str], str] = {}
        self.proxied: dict[tuple[str, str], tuple[int, str]] = {}
        self.seen: list[Request] = []
        self.version, self.ahead, self.away = version, 0.0, False
        self.unanswered: set[str] = set()
        self.cut: set[tuple[str, str]] = set()
        self._first: list[tuple[str, str, Callable[[], Any]]] = []
        self._lock = threading.RLock()
        self._revision = 100
        self._epoch = time.time() - time.monotonic()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.kube = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "KubeServer":
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, path: Path, *, namespace: str = "default", token: str = "somebody") -> Path:
        """Write a file that clients read."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": self.url}}],
            "users": [{"name": "me", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": namespace}}],
        }
        path.write_text(json.dumps(config))
        return path

    def add(self, resource: str, name: str, namespace: str = "", **fields: Any) -> Object:
        """Put an object there, as an administrator would."""
        version, kind, _ = _KINDS[resource]
        meta = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
        return self._create(
            resource, namespace, {"apiVersion": version, "kind": kind, "metadata": meta, **fields}, keep=True
        )

    def change(self, resource: str, name: str, namespace: str = "", **fields: Any) -> None:
        """Change an object behind its clients' backs, as a controller would."""
        with self._lock:
            found = self.objects[resource, namespace, name]
            self.objects[resource, namespace, name] = self._stamped(_merged(found, fields))

    def remove(self, resource: str, name: str, namespace: str = "") -> None:
        """Delete an object behind its clients' backs."""
        with self._lock:
            del self.objects[resource, namespace, name]

    def before(self, method: str, path: str, act: Callable[[], Any]) -> None:
        """Do something once, when the next such request has come and before it is looked at."""
        self._first.append((method, path, act))

    @contextmanager
    def gone(self) -> Iterator[None]:
        """The server cannot be reached within this block."""
        self.away = True
        try:
            yield
        finally:
            self.away = False

    def now(self) -> float:
        """Seconds since the epoch by its clock."""
        return time.monotonic() + self._epoch + self.ahead

    def answer(self, request: Request) -> tuple[int, Any]:
        """The code and the JSON object, or text, that answer a request."""
        for one in list(self._first):
            if request.method == one[0] and one[1] in request.path:
                self._first.remove(one)
                one[2]()
        self.seen.append(request)
        if request.path == "/version":
            major, minor = self.version.removeprefix("v").split(".")[:2]
            return 200, {"major": major, "minor": minor, "gitVersion": self.version}
        found = _PATH.match(request.path)
        if found is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        request.resource, request.namespace = found["resource"], found["namespace"] or ""
        request.name, request.rest = found["name"] or "", found["rest"] or ""
        group = found["core"] or found["group"]
        if request.resource in _REVIEWS and group == "authorization.k8s.io/v1":
            return self._review(request)
        if request.resource not in _KINDS or _KINDS[request.resource][0] != group:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        self._installed(request.resource)
        with self._lock:
            return self._act(request)

    def _installed(self, resource: str) -> None:
        """A resource of Kubeflow is there only once its definition is."""
        group = _KINDS[resource][0].partition("/")[0]
        if (
            group.endswith("kubeflow.org")
            and ("customresourcedefinitions", "", f"{resource}.{group}") not in self.objects
        ):
            raise Refused(404, "NotFound", "the server could not find the requested resource")

    def _act(self, request: Request) -> tuple[int, Any]:
        resource, place = request.resource, request.namespace if _KINDS[request.resource][2] else ""
        verb = {"GET": "get" if request.name else "list", "POST": "create", "PUT": "update"}.get(request.method)
        verb = verb or request.method.lower()
        if request.rest.startswith("proxy"):
            self._allowed(verb, f"{resource}/proxy", request)
            return self._proxy(request)
        self._allowed(verb, resource if not request.rest else f"{resource}/{request.rest}", request)
        keep = request.query.get("dryRun") != "All"
        if request.method == "POST":
            return 201, self._create(resource, place, request.body, keep=keep)
        if verb == "list":
            return 200, self._list(resource, place, request)
        if request.method == "PUT":
            return self._replace(request, place, keep=keep)
        found = self._found(resource, place, request.name)
        if request.method == "GET":
            return (200, self.logs.get((place, request.name), "")) if request.rest == "log" else (200, found)
        if request.method == "PATCH":
            changed = _merged(found, request.body)
            self._same(found, changed)
            return 200, self._store(resource, place, changed, keep=keep)
        self._same(found, {"metadata": (request.body or {}).get("preconditions") or {}})
        if keep:
            del self.objects[resource, place, request.name]
        return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _allowed(self, verb: str, resource: str, request: Request) -> None:
        if {(verb, resource), (verb, resource, request.name)} & self.forbidden:
            what = f'{resource} "{request.name}" is' if request.name else f"{resource} is"
            why = f'forbidden: User "{request.user}" cannot {verb} resource "{resource}"'
            raise Refused(403, "Forbidden", f'{what} {why} in the namespace "{request.namespace}"')

    def _review(self, request: Request) -> tuple[int, Object]:
        self._allowed("create", request.resource, request)
        asked = request.body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, [asked["resource"], asked.get("subresource")]))
        user = request.body["spec"].get("user", "")
        rule = (asked["verb"], resource)
        given = {rule, (*rule, asked.get("name", "")), (*rule, "", user)}
        return 201, {**request.body, "status": {"allowed": not given & self.forbidden}}

    def _proxy(self, request: Request) -> tuple[int, str]:
        service = request.name.split(":")
        name = service[1] if len(service) == 3 else service[0]
        self._found("services", request.namespace, name)
        if (request.namespace, name) not in self.proxied:
            raise Refused(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
        return self.proxied[request.namespace, name]

    def _found(self, resource: str, place: str, name: str) -> Object:
        try:
            return self.objects[resource, place, name]
        except KeyError:
            raise Refused(404, "NotFound", f'{resource} "{name}" not found') from None

    def _list(self, resource: str, place: str, request: Request) -> Object:
        selector = request.query.get("labelSelector", "")
        sets = {key: re.split(r",\s*", values) for key, values in _SET.findall(selector)}
        wanted = [part.partition("=") for part in _SET.sub("", selector).split(",") if part]
        items = [
            found
            for (kind, where, _), found in sorted(self.objects.items())
            if kind == resource
            and (not place or where == place)
            and all(
                (found["metadata"].get("labels") or {}).get(key) == value if equal
                else key in (found["metadata"].get("labels") or {})
                for key, equal, value in wanted
            )
            and all((found["metadata"].get("labels") or {}).get(key) in values for key, values in sets.items())
        ]  # fmt: skip
        version, kind, _ = _KINDS[resource]
        meta = {"resourceVersion": str(self._revision)}
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": meta, "items": items}

    def _create(self, resource: str, place: str, given: Object, *, keep: bool) -> Object:
        with self._lock:
            if place and resource != "namespaces" and ("namespaces", "", place) not in self.objects:
                raise Refused(404, "NotFound", f'namespaces "{place}" not found')
            made = copy.deepcopy(given)
            meta = made["metadata"]
            if meta.get("resourceVersion"):
                raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
            if "generateName" in meta and not meta.get("name"):
                meta["name"] = f"{meta['generateName']}{uuid.uuid4().hex[:5]}"
            if (resource, place, meta.get("name")) in self.objects:
                raise Refused(409, "AlreadyExists", f'{resource} "{meta["name"]}" already exists')
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))
            meta.update(uid=str(uuid.uuid4()), creationTimestamp=stamp, **({"namespace": place} if place else {}))
            return self._store(resource, place, made, keep=keep)

    def _replace(self, request: Request, place: str, *, keep: bool) -> tuple[int, Object]:
        given = copy.deepcopy(request.body)
        meta = given["metadata"]
        if meta.get("name") != request.name:
            why = "the name of the object does not match the name on the URL"
            raise Refused(400, "BadRequest", f"{why} ({meta.get('name')} is not {request.name})")
        found = self.objects.get((request.resource, place, request.name))
        if found is None and meta.get("uid"):
            raise Refused(
                409, "Conflict", f"Precondition failed: UID in precondition: {meta['uid']}, UID in object: "
            )
        if found is None and request.resource == "leases":  # a PUT may create one
            meta.pop("resourceVersion", None)
            return 201, self._create(request.resource, place, given, keep=keep)
        found = self._found(request.resource, place, request.name)
        if request.resource == "leases" and not meta.get("resourceVersion"):
            why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise Refused(422, "Invalid", f'Lease.coordination.k8s.io "{request.name}" is invalid: {why}')
        self._same(found, given)
        fixed = {key: found["metadata"][key] for key in ("uid", "creationTimestamp")}
        given["metadata"] = {**meta, **fixed, **({"namespace": place} if place else {})}
        return 200, self._store(request.resource, place, given, keep=keep)

    def _same(self, found: Object, given: Object) -> None:
        """What is written is what was read."""
        meta, name = given["metadata"], found["metadata"]["name"]
        if meta.get("uid") and meta["uid"] != found["metadata"]["uid"]:
            both = f"UID in precondition: {meta['uid']}, UID in object meta: {found['metadata']['uid']}"
            raise Refused(409, "Conflict", f"Precondition failed: {both}")
        if meta.get("resourceVersion") and meta["resourceVersion"] != found["metadata"]["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise Refused(409, "Conflict", f'Operation cannot be fulfilled on "{name}": {why}')

    def _store(self, resource: str, place: str, made: Object, *, keep: bool) -> Object:
        name = made["metadata"].get("name") or ""
        if not _NAME.match(name) or len(name) > 253:
            kind = _KINDS[resource][1]
            why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
            raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: metadata.name: Invalid value: {why}')
        if resource == "leases":
            check_lease(made)
        stored = self._stamped(made)
        if keep:
            self.objects[resource, place, name] = stored
        return stored

    def _stamped(self, made: Object) -> Object:
        self._revision += 1
        return {**made, "metadata": {**made["metadata"], "resourceVersion": str(self._revision)}}


@contextmanager
def cluster(folder: Path, monkeypatch: pytest.MonkeyPatch, *, namespace: str = "default") -> Iterator[KubeServer]:
    """A cluster that this process, and those that it starts, find by KUBECONFIG.

    Args:
        folder: gets the kubeconfig.
        monkeypatch: of the test.
        namespace: made, and that of the kubeconfig.
    """
    with KubeServer() as server:
        server.add("namespaces", namespace)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder / "kubeconfig", namespace=namespace)))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        kube.api_client.cache_clear()
        yield server
        kube.api_client.cache_clear()


def check_lease(lease: Object) -> None:
    """What the API server asks of a Lease; an empty holder is refused by new servers only, here always."""
    spec = lease.get("spec") or {}
    for key in ("acquireTime", "renewTime"):
        if spec.get(key) is not None and not _MICRO_TIME.match(str(spec[key])):
            why = f'parsing time "{spec[key]}" as "2006-01-02T15:04:05.000000Z07:00"'
            raise Refused(400, "BadRequest", f'Lease in version "v1" cannot be handled as a Lease: {why}')
    wrong = []
    if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
        wrong.append("spec.leaseDurationSeconds: Invalid value: must be greater than 0")
    if spec.get("leaseTransitions") is not None and spec["leaseTransitions"] < 0:
        wrong.append("spec.leaseTransitions: Invalid value: must be greater than or equal to 0")
    if spec.get("holderIdentity") == "":
        wrong.append("spec.holderIdentity: Invalid value: must not be empty")
    for key in ("leaseDurationSeconds", "leaseTransitions"):
        if spec.get(key) is not None and type(spec[key]) is not int:
            why = f"json: cannot unmarshal {type(spec[key]).__name__} into Go struct field LeaseSpec.spec.{key}"
            raise Refused(400, "BadRequest", f'Lease in version "v1" cannot be handled as a Lease: {why}')
    if wrong:
        name = lease["metadata"]["name"]
        raise Refused(422, "Invalid", f'Lease.coordination.k8s.io "{name}" is invalid: {"; ".join(wrong)}')


def _merged(old: Any, new: Any) -> Any:
    """RFC 7396."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return copy.deepcopy(new)
    kept = {key: value for key, value in old.items() if key not in new}
    changed = {key: _merged(old.get(key, {}), value) for key, value in new.items() if value is not None}
    return {**kept, **changed}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    kube: KubeServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def _any(self) -> None:
        kube = self.server.kube
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if kube.away:
            self.close_connection = True
            return
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        user = (self.headers.get("authorization") or "").partition(" ")[2] or "system:anonymous"
        request = Request(self.command, unquote(url.path), query, user=user)
        try:
            request.body = json.loads(body) if body else None
            code, said = kube.answer(request)
        except Refused as refused:
            code, said = refused.code, _status(refused)
        except ValueError as error:
            code, said = 400, _status(Refused(400, "BadRequest", str(error)))
        if self.command in kube.unanswered:
            kube.unanswered.discard(self.command)
            self.close_connection = True
            return
        text = said if isinstance(said, str) else json.dumps(said)
        self.send_response_only(code)
        self.send_header("Date", formatdate(kube.now(), usegmt=True))
        self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if request.rest == "log" and (request.namespace, request.name) in kube.cut:
            kube.cut.discard((request.namespace, request.name))
            self.close_connection = True
            text = text[: len(text) // 2]
        self.wfile.write(text.encode())
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any


def _status(refused: Refused) -> Object:
    said = {"status": "Failure", "message": str(refused), "reason": refused.reason, "code": refused.code}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **said}
