"""A stand-in for a Kubeflow Pipelines server, in this process.

It is no server: no workflow runs, nothing is authorised, and what a run does is a script that the test writes.
What it does faithfully is refuse. Every request is checked against the models that the project publishes for the
version (`kfp_schema`): unknown or mistyped fields, values outside an enumeration, filters, sort keys, page sizes,
pipelines and platform documents with fields that the version does not know, runs whose version, experiment or
parameters do not fit, schedules that a server would not take. Its answers are checked by the same models. Where a
rule is not in the models (which fields are required, what is checked when) it follows the server's sources. Tasks
are told as a server tells them: the nodes of the workflow, with neither errors nor names of pods.
"""

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests import kfp_schema

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGERS = {"int": int, "str": str, "bool": bool, "float": float}
_SORT = re.compile(r"(|(created_at|display_name|name|id|status)( (asc|desc))?)")
_CRON = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
_CRON_NAMES = {
    "month": ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    "weekday": ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
_TAGS = {"2.14": "2.14.3", "2.17": "2.17.0", "2.13": "2.13.0"}
_TYPES: dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


class Refuse(Exception):
    """What a server answers to a request that it does not take."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Frame:
    """A moment of a run: what a server tells until the next one."""

    state: str
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Task as named in the compiled file → its state."""
    error: str = ""


@dataclass
class Request:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class StandIn:
    """The server; `with StandIn("2.14").running() as server: server.url`."""

    def __init__(
        self, version: str = "2.17", *, multi_user: bool = False, token: str = "", prefix: str = ""
    ) -> None:
        self.schema = kfp_schema.schema("2.14" if version < "2.17" else version)
        self.tag: str | None = _TAGS.get(version, version)
        self.multi_user = multi_user
        self.token = token
        self.prefix = prefix
        self.play: list[Frame] = []
        """What the runs go through: one frame for each time that somebody asks; the last one stays."""
        self.trouble: Callable[[Request], int | float | str | None] = lambda request: None
        """Asked first: a status to answer, seconds to wait, "drop" the connection, "lose" the answer, or None."""
        self.requests: list[Request] = []
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, list[Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, int] = {}
        self._moments: dict[tuple[str, str, str], str] = {}
        self._lock = threading.Lock()
        self._count = 0
        self.url = ""

    @contextmanager
    def running(self, certificate: Path | None = None) -> Iterator["StandIn"]:
        """Serve while the block runs; by TLS with a certificate and its key in one PEM file."""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                stand_in._handle(self)

            do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    # The wire

    def _handle(self, http: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(http.path)
        raw = http.rfile.read(int(http.headers.get("Content-Length") or 0))
        kind = http.headers.get("Content-Type", "")
        body: Any = _multipart(kind, raw) if kind.startswith("multipart/") else raw
        request = Request(
            http.command,
            parts.path.removeprefix(self.prefix),
            dict(parse_qsl(parts.query)),
            dict(http.headers),
            body,
        )
        self.requests.append(request)
        trouble = self.trouble(request)
        if isinstance(trouble, float):
            time.sleep(trouble)
        if trouble == "drop":
            http.close_connection = True
            return
        try:
            if isinstance(trouble, int):
                raise Refuse(trouble, "the test asked for it")
            if self.prefix and not parts.path.startswith(self.prefix):
                raise Refuse(404, "page not found")
            if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
                raise Refuse(401, "Request header error: there is no user identity header")
            with self._lock:
                status, answer = 200, self._route(request)
        except Refuse as refusal:
            status, answer = (
                refusal.status,
                {"error": str(refusal), "code": 3, "message": str(refusal), "details": []},
            )
        if trouble == "lose":
            http.close_connection = True
            return
        sent = json.dumps(answer).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(sent)))
        http.end_headers()
        http.wfile.write(sent)

    def _route(self, request: Request) -> Any:
        for method, pattern, serve in (
            ("GET", "healthz", self._healthz),
            ("GET", "pipelines", self._list_pipelines),
            ("POST", "pipelines", self._create_pipeline),
            ("POST", "pipelines/upload_version", self._upload_version),
            ("GET", "pipelines/([^/]+)/versions", self._list_versions),
            ("GET", "pipelines/([^/]+)/versions/([^/]+)", self._get_version),
            ("GET", "experiments", self._list_experiments),
            ("POST", "experiments", self._create_experiment),
            ("POST", "runs", self._create_run),
            ("GET", "runs", self._list_runs),
            ("GET", "runs/([^/:]+)", self._get_run),
            ("POST", "runs/([^/:]+):terminate", self._terminate),
            ("POST", "recurringruns", self._create_schedule),
            ("GET", "recurringruns", self._list_schedules),
            ("POST", "recurringruns/([^/:]+):(enable|disable)", self._switch_schedule),
            ("DELETE", "recurringruns/([^/:]+)", self._delete_schedule),
        ):
            found = re.fullmatch(f"/apis/v2beta1/{pattern}", request.path)
            if found and method == request.method:
                return serve(request, *found.groups())
        raise Refuse(404, "Not Found")

    # The models

    def _check(self, value: Any, kind: str, where: str) -> None:
        """Refuse what protojson would not take for this type of the published models."""
        if value is None or kind == "object":
            return
        if kind.startswith("list["):
            self._want(isinstance(value, list), where, kind)
            for item in value:
                self._check(item, kind[5:-1], where)
        elif kind.startswith("dict("):
            self._want(isinstance(value, dict), where, kind)
            for key, item in value.items():
                self._check(item, kind[5:-1].split(", ")[1], f"{where}.{key}")
        elif kind in self.schema["enums"]:
            self._want(value in self.schema["enums"][kind] or isinstance(value, int), where, kind)
        elif kind in self.schema["models"]:
            self._want(isinstance(value, dict), where, kind)
            known = self.schema["models"][kind]
            for key, item in value.items():
                if key not in known:
                    raise Refuse(400, f'proto: unknown field "{key}" in {where}')
                self._check(item, known[key], f"{where}.{key}")
        elif kind == "datetime":
            self._want(isinstance(value, str) and value.endswith(("Z", "+00:00")), where, "RFC 3339 time")
        elif kind == "str":  # an int64 is a str to the models, and may come as a number
            self._want(isinstance(value, str | int) and not isinstance(value, bool), where, kind)
        else:
            self._want(isinstance(value, _INTEGERS[kind]), where, kind)

    @staticmethod
    def _want(right: bool, where: str, kind: str) -> None:
        if not right:
            raise Refuse(400, f"proto: invalid value for {where}: {kind} is expected")

    def _body(self, request: Request, model: str) -> dict[str, Any]:
        try:
            body = json.loads(request.body)
        except ValueError:
            raise Refuse(400, "proto: syntax error") from None
        self._check(body, model, model)
        return body

    def _answer(self, answer: dict[str, Any], model: str) -> dict[str, Any]:
        self._check(answer, model, f"answer {model}")
        return answer

    def _message(self, value: Any, message: str, where: str) -> None:
        """Refuse what is not this protobuf message of the version."""
        self._want(isinstance(value, dict), where, message)
        known = self.schema["messages"][message]
        for key, item in value.items():
            if key not in known:
                raise Refuse(400, f'proto: unknown field "{key}" in {where} ({message})')
            inner = known[key]
            if inner and isinstance(item, list):
                for one in item:
                    self._message(one, inner, f"{where}.{key}")
            elif inner and isinstance(item, dict) and item and self._is_map(item, inner):
                for name, one in item.items():
                    self._message(one, inner, f"{where}.{key}.{name}")
            elif inner and isinstance(item, dict):
                self._message(item, inner, f"{where}.{key}")

    def _is_map(self, item: dict[str, Any], message: str) -> bool:
        return not set(item) <= set(self.schema["messages"][message]) and all(
            isinstance(one, dict) for one in item.values()
        )

    # Lists

    def _page(self, request: Request, found: list[dict[str, Any]], field_name: str, model: str) -> dict[str, Any]:
        query = request.query
        size = int(query.get("page_size", 10))
        if not 0 < size <= 200:
            raise Refuse(400, "The page size should be between 1 and 200")
        if not _SORT.fullmatch(query.get("sort_by", "")):
            raise Refuse(400, f"Invalid sorting field: {query['sort_by']}")
        if query.get("filter"):
            found = self._filtered(found, query["filter"])
        found = sorted(found, key=lambda one: one["created_at"], reverse=query.get("sort_by", "").endswith("desc"))
        start, token_filter = (
            json.loads(query["page_token"]) if query.get("page_token") else (0, query.get("filter"))
        )
        if token_filter != query.get("filter"):
            raise Refuse(400, "page token does not match the filter")
        answer: dict[str, Any] = {field_name: found[start : start + size], "total_size": len(found)}
        if start + size < len(found):
            answer["next_page_token"] = json.dumps([start + size, query.get("filter")])
        return self._answer({key: value for key, value in answer.items() if value}, model)

    def _filtered(self, found: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
        try:
            predicates = json.loads(text)["predicates"]
        except (ValueError, KeyError, TypeError):
            raise Refuse(400, "Failed to parse filter") from None
        for predicate in predicates:
            snake = {re.sub(r"([A-Z])", lambda up: f"_{up[1].lower()}", key): one for key, one in predicate.items()}
            self._check(snake, "V2beta1Predicate", "filter")
            if snake["key"] not in ("display_name", "name") or snake["operation"] not in ("EQUALS", 1):
                raise Refuse(400, f"cannot filter by {snake}")
            found = [one for one in found if one["display_name"] == snake["string_value"]]
        return found

    def _ours(self, request: Request, known: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        if not self.multi_user:
            return list(known.values())
        if not request.query.get("namespace"):
            raise Refuse(400, "Invalid input error: in multi-user mode a namespace must be specified")
        return [one for one in known.values() if self._space(one) == request.query["namespace"]]

    def _space(self, one: dict[str, Any]) -> str:
        return one.get("namespace") or self.experiments.get(one.get("experiment_id", ""), {}).get("namespace", "")

    def _new(self, kind: str) -> tuple[str, str]:
        self._count += 1
        return f"{kind}-{self._count}", self._now()

    @staticmethod
    def _now() -> str:
        return datetime.now(UTC).isoformat().replace("+00:00", "Z")

    # Pipelines

    def _healthz(self, request: Request) -> Any:
        told = {"commit_sha": "0" * 40, "tag_name": self.tag, "multi_user": self.multi_user}
        return {key: value for key, value in told.items() if value is not None}

    def _list_pipelines(self, request: Request) -> Any:
        shared = [one for one in self.pipelines.values() if not one.get("namespace")]
        named = self._ours(request, self.pipelines) if request.query.get("namespace") else shared
        return self._page(request, named, "pipelines", "V2beta1ListPipelinesResponse")

    def _create_pipeline(self, request: Request) -> Any:
        body = self._body(request, "V2beta1Pipeline")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", body.get("name", "")):
            raise Refuse(400, "Invalid input error: name is required")
        if self.multi_user and not body.get("namespace"):
            raise Refuse(403, "Failed to create a pipeline due to authorization error")
        if any(
            one["name"] == body["name"] and self._space(one) == body.get("namespace", "")
            for one in self.pipelines.values()
        ):
            raise Refuse(409, f"Already exist error: The name {body['name']} already exist")
        made, moment = self._new("pipeline")
        self.pipelines[made] = {**body, "pipeline_id": made, "created_at": moment}
        return self._answer(self.pipelines[made], "V2beta1Pipeline")

    def _upload_version(self, request: Request) -> Any:
        known = {"name", "display_name", "pipelineid", "description"} | (
            {"tags"} if "2.17" in str(self.tag) else set()
        )
        if unknown := set(request.query) - known:
            raise Refuse(400, f"unknown query parameters {unknown}")
        pipeline, name = request.query.get("pipelineid", ""), request.query.get("name", "")
        if pipeline not in self.pipelines:
            raise Refuse(404, f"ResourceNotFoundError: Pipeline {pipeline} not found")
        if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
            raise Refuse(400, f"the version's name {name!r} is not one that Kubernetes takes")
        if any(one["pipeline_id"] == pipeline and one["name"] == name for one in self.versions.values()):
            raise Refuse(409, f"Already exist error: The name {name} already exist")
        if not isinstance(request.body, dict) or "uploadfile" not in request.body:
            raise Refuse(400, "Failed to find the file uploadfile")
        documents = list(yaml.load_all(request.body["uploadfile"], Loader=_LOADER))
        self._check_spec(documents)
        made, moment = self._new("version")
        answer = {
            "pipeline_id": pipeline,
            "pipeline_version_id": made,
            "name": name,
            "display_name": name,
            "created_at": moment,
            "pipeline_spec": documents[0],
        }
        self.versions[made], self.documents[made] = answer, documents
        return self._answer(answer, "V2beta1PipelineVersion")

    def _check_spec(self, documents: list[Any]) -> None:
        spec = documents[0]
        executors = spec.get("deploymentSpec", {})
        self._message({**spec, "deploymentSpec": {}}, "ml_pipelines.PipelineSpec", "pipeline_spec")
        self._message(executors, "ml_pipelines.PipelineDeploymentConfig", "deploymentSpec")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", spec["pipelineInfo"]["name"]):
            raise Refuse(400, f"invalid pipeline name {spec['pipelineInfo']['name']}")
        for document in documents[1:]:
            config = document.get("platforms", {}).get("kubernetes", {}).get("pipelineConfig", {})
            self._message(config, "ml_pipelines.PipelineConfig", "pipelineConfig")

    def _list_versions(self, request: Request, pipeline: str) -> Any:
        found = [one for one in self.versions.values() if one["pipeline_id"] == pipeline]
        return self._page(request, found, "pipeline_versions", "V2beta1ListPipelineVersionsResponse")

    def _get_version(self, request: Request, pipeline: str, version: str) -> Any:
        found = self.versions.get(version)
        if found is None or found["pipeline_id"] != pipeline:
            raise Refuse(404, f"ResourceNotFoundError: PipelineVersion {version} not found")
        spec, *platform = self.documents[version]
        whole = {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec
        return self._answer({**found, "pipeline_spec": whole}, "V2beta1PipelineVersion")

    def _list_experiments(self, request: Request) -> Any:
        found = self._ours(request, self.experiments)
        return self._page(request, found, "experiments", "V2beta1ListExperimentsResponse")

    def _create_experiment(self, request: Request) -> Any:
        body = self._body(request, "V2beta1Experiment")
        if not body.get("display_name"):
            raise Refuse(400, "Experiment name is empty")
        if bool(body.get("namespace")) != self.multi_user:
            raise Refuse(400, "a namespace goes with multi-user mode, and only with it")
        if any(
            one["display_name"] == body["display_name"] and self._space(one) == body.get("namespace", "")
            for one in self.experiments.values()
        ):
            raise Refuse(409, f"Already exist error: {body['display_name']}")
        made, moment = self._new("experiment")
        self.experiments[made] = {**body, "experiment_id": made, "created_at": moment}
        return self._answer(self.experiments[made], "V2beta1Experiment")

    # Runs

    def _fits(self, body: dict[str, Any]) -> list[Any]:
        """Refuse what could not start: version, experiment, parameters, the platform's part."""
        if not body.get("display_name"):
            raise Refuse(400, "The name is empty")
        if body.get("experiment_id") not in self.experiments:
            raise Refuse(404, f"ResourceNotFoundError: Experiment {body.get('experiment_id')} not found")
        reference = body.get("pipeline_version_reference") or {}
        version = self.versions.get(reference.get("pipeline_version_id"))
        if version is None or version["pipeline_id"] != reference.get("pipeline_id"):
            raise Refuse(404, f"ResourceNotFoundError: PipelineVersion {reference} not found")
        documents = self.documents[version["pipeline_version_id"]]
        self._check_parameters(documents[0], (body.get("runtime_config") or {}).get("parameters") or {})
        for document in documents[1:]:
            kubernetes = document.get("platforms", {}).get("kubernetes", {})
            for name, config in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
                self._message(config, "kfp_kubernetes.KubernetesExecutorConfig", name)
        return documents

    def _check_parameters(self, spec: dict[str, Any], given: dict[str, Any]) -> None:
        wanted = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        for name, value in given.items():
            if name not in wanted:
                raise Refuse(400, f"Invalid input error: unknown parameter {name}")
            kind = wanted[name]["parameterType"]
            right = isinstance(value, _TYPES[kind]) and (kind == "BOOLEAN" or not isinstance(value, bool))
            self._want(right, f"parameter {name}", kind)
        for name, definition in wanted.items():
            if name not in given and "defaultValue" not in definition and not definition.get("isOptional"):
                raise Refuse(400, f"Invalid input error: parameter {name} is missing")

    def _create_run(self, request: Request) -> Any:
        body = self._body(request, "V2beta1Run")
        self._fits(body)
        made, moment = self._new("run")
        self.runs[made] = {**body, "run_id": made, "created_at": moment, "state": "PENDING"}
        return self._answer(self.runs[made], "V2beta1Run")

    def _list_runs(self, request: Request) -> Any:
        return self._page(request, self._ours(request, self.runs), "runs", "V2beta1ListRunsResponse")

    def _run(self, run: str) -> dict[str, Any]:
        if run not in self.runs:
            raise Refuse(404, f"ResourceNotFoundError: Run {run} not found")
        return self.runs[run]

    def _get_run(self, request: Request, run: str) -> Any:
        found = self._run(run)
        if self.play and found["state"] != "CANCELED":
            at = self._asked.get(run, 0)
            self._asked[run] = at + 1
            frame = self.play[min(at, len(self.play) - 1)]
            found["state"] = frame.state
            found["run_details"] = {"task_details": list(self._nodes(run, frame))}
            if frame.error:
                found["error"] = {"code": 13, "message": frame.error}
        ended = found["state"] in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
        now = self._moments.setdefault((run, "", "ended"), self._now()) if ended else "1970-01-01T00:00:00Z"
        found["finished_at"] = now
        return self._answer(found, "V2beta1Run")

    def _nodes(self, run: str, frame: Frame) -> Iterator[dict[str, Any]]:
        """The nodes of the workflow: for each task the DAG, its driver, and the executor."""
        now = self._now()

        def node(name: str, state: str) -> dict[str, Any]:
            ended = state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
            began = self._moments.setdefault((run, name, "began"), now)
            return {
                "run_id": run,
                "task_id": f"{run}-{name}",
                "display_name": name,
                "create_time": began,
                "start_time": began,
                "end_time": (
                    self._moments.setdefault((run, name, "ended"), now) if ended else "1970-01-01T00:00:00Z"
                ),
                "state": state,
            }

        yield node("root", frame.state)
        yield node("root-driver", "SUCCEEDED")
        for name, state in frame.tasks.items():
            yield node(f"{name}-driver", "SUCCEEDED")
            yield node(name, state)
            yield {**node("executor", state), "task_id": f"{run}-{name}-executor"}

    def _terminate(self, request: Request, run: str) -> Any:
        self._run(run)["state"] = "CANCELED"
        return {}

    # Schedules

    def _create_schedule(self, request: Request) -> Any:
        body = self._body(request, "V2beta1RecurringRun")
        self._fits(body)
        trigger = body.get("trigger") or {}
        if len(trigger) != 1:
            raise Refuse(400, "exactly one of cron_schedule and periodic_schedule is needed")
        if not 1 <= int(body.get("max_concurrency") or 0) <= 10:
            raise Refuse(400, "The max concurrency of a recurring run must be at least 1 and at most 10")
        fields = trigger.get("cron_schedule", {}).get("cron", "").split()
        if wrong := _wrong_in_cron(fields):
            raise Refuse(400, f"Schedule cron is not a supported format ({wrong})")
        if body.get("mode") not in ("ENABLE", "DISABLE"):
            raise Refuse(400, "The mode is not given")
        made, moment = self._new("schedule")
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        self.schedules[made] = {
            **body,
            "max_concurrency": str(body["max_concurrency"]),
            "recurring_run_id": made,
            "created_at": moment,
            "status": status,
        }
        return self._answer(self.schedules[made], "V2beta1RecurringRun")

    def _list_schedules(self, request: Request) -> Any:
        found = self._ours(request, self.schedules)
        return self._page(request, found, "recurringRuns", "V2beta1ListRecurringRunsResponse")

    def _switch_schedule(self, request: Request, schedule: str, what: str) -> Any:
        if schedule not in self.schedules:
            raise Refuse(404, f"ResourceNotFoundError: Job {schedule} not found")
        self.schedules[schedule] |= {"mode": what.upper(), "status": f"{what.upper()}D"}
        return {}

    def _delete_schedule(self, request: Request, schedule: str) -> Any:
        if self.schedules.pop(schedule, None) is None:
            raise Refuse(404, f"ResourceNotFoundError: Job {schedule} not found")
        return {}


def _wrong_in_cron(fields: list[str]) -> str:
    """What robfig/cron, by which the server reads schedules, says of an expression with seconds; empty: nothing."""
    if len(fields) != len(_CRON):
        return f"Expected 6 fields, found {len(fields)}"
    for text, (name, (low, high)) in zip(fields, _CRON.items(), strict=True):
        values = {str(number): number for number in range(low, high + 1)}
        values |= {word: low + number for number, word in enumerate(_CRON_NAMES.get(name, []))}
        for part in text.lower().split(","):
            found = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/0*([1-9]\d*))?", part)
            if found is None:
                return f"Failed to parse {name} {part}"
            ends = [end.lstrip("0") or "0" for end in found.groups()[:2] if end]
            if any(end not in values for end in ends):
                return f"{name} {part} is not within {low}-{high}"
            if [values[end] for end in ends] != sorted(values[end] for end in ends):
                return f"Beginning of range is beyond its end: {name} {part}"
    return ""


def _multipart(kind: str, raw: bytes) -> dict[str, bytes]:
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
        for part in message.iter_parts()
    }
