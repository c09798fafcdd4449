"""The door to a Kubeflow Pipelines server: kfp's own client, with time-outs, retries and errors of one line.

What kfp.Client does differently, and why it is wrapped: it has no time-outs, asks a server that is away for half a
minute and logs tracebacks, keeps settings in ~/.config/kfp, prints links, drops the server's version, and tells of
network trouble with four kinds of exceptions. The names it is wrapped by are private ones; a test watches them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mtrec.errors import InputError, RunError
from pipelines.kfp_session import Interrupted
from pipelines.port_forward import forwarded
from pipelines.server_versions import MINIMUM, Version, parse_version, too_old

SERVICE = "ml-pipeline"
PORT = 8888
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_EQUALS = "EQUALS"
_PAGE = 100
_LOOKS = (0.0, 2.0, 5.0, 10.0, 15.0)
"""Seconds between looks for a run whose start got no answer."""

T = TypeVar("T")


class Away(RunError):
    """The server did not answer, or said that it cannot now; the same again may work."""


class Refused(InputError):
    """The server does not let this user in, or not do that."""


class Missing(InputError):
    """The server knows no such thing."""


class Exists(InputError):
    """The server has one of that name already."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where the server is, and who asks. Secrets are read from files, again for every request."""

    host: str = ""
    """Address. Empty: in a pod the service of its cluster, else a port forward by the kubeconfig."""
    namespace: str = ""
    """The user's namespace on a server for many users; empty on one for a single user."""
    usual: str = ""
    """Taken on a server for many users where no namespace is given: that of the cluster file."""
    installed: str = "kubeflow"
    """The namespace that Kubeflow Pipelines itself is in."""
    token_file: Path | None = None
    cookies_file: Path | None = None
    context: str = ""
    """Of the kubeconfig; empty for the current one."""
    ca_file: Path | None = None
    ui: str = ""
    """Address of the pages, for links. Empty: that of the server, unless it is only forwarded."""
    connect_s: int = 5
    read_s: int = 30


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """One task of a run as the server tells it; on a cluster every node of the workflow is one."""

    name: str
    state: str
    started: datetime | None = None
    ended: datetime | None = None
    error: str = ""
    pod: str = ""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the server tells it."""

    id: str
    name: str
    state: str
    """PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELING, CANCELED, PAUSED, or what a newer server says."""
    created: datetime | None
    ended: datetime | None
    error: str
    tasks: tuple[TaskView, ...]
    schedule: str
    """Id of the schedule that started it; empty for none."""
    parameters: Mapping[str, Any]
    version: tuple[str, str] = ("", "")
    """Ids of its pipeline and of the version of that."""


@dataclass(frozen=True, kw_only=True)
class ScheduleView:
    """A recurring run as the server tells it."""

    id: str
    name: str
    cron: str
    enabled: bool
    created: datetime | None
    error: str
    data: str = ""
    """What its runs are given: a path or a data version; empty where the scenario simulates."""


@contextmanager
def connect(access: Access) -> Iterator[Server]:
    """Reach the server and look at its version.

    Raises:
        InputError: a file of the access cannot be read, or the server does not let the user in.
        RunError: the server is away, or older than mtrec needs.
    """
    with ExitStack() as stack:
        at, ui, token = access.host or os.environ.get("KF_PIPELINES_ENDPOINT", ""), access.ui, access.token_file
        host, proxied = at, False
        ui = ui if "://" in ui or not ui else f"https://{ui}"
        if at:
            host = at if "://" in at else f"https://{at}"
            ui = ui or host
        elif _POD.exists():
            host = f"http://{SERVICE}.{access.installed}.svc.cluster.local:{PORT}"
            mounted = Path(os.environ.get("KF_PIPELINES_SA_TOKEN_PATH", _POD_TOKEN))
            token = token or (mounted if mounted.exists() else None)
        elif shutil.which("kubectl"):
            host = stack.enter_context(forwarded(SERVICE, PORT, namespace=access.installed, context=access.context))
        else:
            proxied = True
        server = Server(access, host.rstrip("/"), ui.rstrip("/"), token, proxied=proxied)
        server.home = _home(at) if at else access.installed
        server.look()
        yield server


class Server:
    """A Kubeflow Pipelines server. Made by `connect`; every method raises Away, Refused, Missing or InputError."""

    version: Version | None = None
    """None where the server does not tell."""
    tag = ""
    multi_user = False
    home = ""
    """The namespace that it is in itself; empty where it was found by an address that does not name it."""

    def __init__(self, access: Access, host: str, ui: str, token: Path | None, *, proxied: bool = False) -> None:
        self.namespace = access.namespace
        self.access = access
        self._ui = ui
        self._client = _client(access, host, token, proxied=proxied)
        self.host: str = self._client._existing_config.host

    def look(self) -> None:
        """Ask for the version, and refuse a server that is too old or wants a namespace that nobody names.

        Raises:
            RunError: it is older than `MINIMUM`.
            InputError: it serves many users and no namespace is given.
        """
        try:
            health = self._call(self._health)
        except Missing:
            raise RunError(
                f"{self.host} does not answer as Kubeflow Pipelines 2 does (404): check --host"
            ) from None
        self.tag = str(health.get("tag_name") or "unknown")
        self.version, self.multi_user = parse_version(self.tag), bool(health.get("multi_user"))
        if self.version is not None and self.version < MINIMUM:
            raise RunError(too_old(self.tag, self.host))
        if self.multi_user and not self.namespace:
            if not self.access.usual:
                raise InputError(
                    f"Kubeflow Pipelines at {self.host} serves many users: give yours with --namespace"
                )
            self.namespace = self.access.usual
            self.access = replace(self.access, namespace=self.namespace)

    def _health(self) -> dict[str, Any]:
        quick = (self.access.connect_s, min(self.access.connect_s, self.access.read_s))
        api = self._client._healthz_api  # the SDK's own answer lacks the version
        answer = api.healthz_service_get_healthz(_preload_content=False, _request_timeout=quick)
        try:
            health: dict[str, Any] = json.loads(answer.data)
        except ValueError:
            health = {}
        if not isinstance(health, dict) or not health.keys() & {"tag_name", "commit_sha", "multi_user"}:
            page = "it may be a login page: give --token-file or --cookies-file"
            raise Refused(f"{self.host} does not answer as Kubeflow Pipelines does; {page}")
        return health

    def run_link(self, run_id: str) -> str:
        """The page of a run; empty where it is not known."""
        return f"{self._ui}/#/runs/details/{run_id}" if self._ui else ""

    def schedule_link(self, schedule_id: str) -> str:
        """The page of a schedule; empty where it is not known."""
        return f"{self._ui}/#/recurringrun/details/{schedule_id}" if self._ui else ""

    def pipeline_id(self, name: str, description: str = "") -> str:
        """The id of a pipeline, which is made where there is none."""
        if found := self._pipeline(name):
            return found
        import kfp_server_api as api

        body = api.V2beta1Pipeline(
            name=name, display_name=name, description=description, namespace=self.namespace or None
        )
        try:
            return str(self._call(self._client._pipelines_api.pipeline_service_create_pipeline, body).pipeline_id)
        except Exists:  # somebody else was faster
            return self._pipeline(name)

    def _pipeline(self, name: str) -> str:
        page = self._call(
            self._client.list_pipelines, filter=_named(name), namespace=self.namespace or None, page_size=_PAGE
        )
        return next((str(found.pipeline_id) for found in page.pipelines or []), "")

    def version_id(self, pipeline_id: str, name: str, compiled: Path) -> tuple[str, bool]:
        """The id of a pipeline's version, which is uploaded where there is none; and whether it was."""
        if found := self._version(pipeline_id, name):
            return found, False
        try:
            made = self._call(
                self._client.upload_pipeline_version, str(compiled), name, pipeline_id=pipeline_id, description=""
            )
        except Exists:
            return self._version(pipeline_id, name), False
        return str(made.pipeline_version_id), True

    def _version(self, pipeline_id: str, name: str) -> str:
        page = self._call(self._client.list_pipeline_versions, pipeline_id, filter=_named(name), page_size=_PAGE)
        return next((str(found.pipeline_version_id) for found in page.pipeline_versions or []), "")

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is made where there is none."""
        made = self._call(self._client.create_experiment, name, namespace=self.namespace or None)
        return str(made.experiment_id)

    def start(
        self,
        name: str,
        *,
        experiment_id: str,
        pipeline_id: str,
        version_id: str,
        parameters: Mapping[str, Any],
        service_account: str = "",
        pipeline_root: str = "",
    ) -> str:
        """Start a run, once: where the answer got lost, the run is looked for by its name.

        Raises:
            Interrupted: the user stopped it before the answer was there; the run may have begun.
        """
        look = f"before you try again, look with 'mtrec runs list' whether {name} has begun after all"
        try:
            made = self._call(
                self._client.run_pipeline,
                experiment_id,
                name,
                params=dict(parameters),
                pipeline_id=pipeline_id,
                version_id=version_id,
                service_account=service_account or None,
                pipeline_root=pipeline_root or None,
            )
        except Away as error:
            try:
                found = self._begun(name)
            except KeyboardInterrupt:
                raise Interrupted(f"stopped looking for the run; {look}") from error
            if not found:
                raise Away(f"{error}; {look}") from error
            return found
        except KeyboardInterrupt as error:
            raise Interrupted(f"stopped while the run was being started; {look}") from error
        return str(made.run_id)

    def _begun(self, name: str) -> str:
        """The id of a run that the server may have started; empty where it does not come up."""
        for pause in _LOOKS:
            time.sleep(pause)
            if found := self._runs(1, _named(name)):
                return found[0].id
        return ""

    def run(self, run_id: str) -> RunView:
        """A run with its tasks."""
        try:
            return _run_view(self._call(self._client.get_run, run_id))
        except Missing:
            raise Missing(f"run {run_id}: no such run on {self.host}; 'mtrec runs list' shows them") from None

    def spec(self, run: RunView) -> Mapping[str, Any]:
        """What the pipeline of a run is, as it was uploaded; empty where the server does not know it any more."""
        if not all(run.version):
            return {}
        try:
            found = self._call(self._client.get_pipeline_version, *run.version).pipeline_spec or {}
        except Missing:
            return {}
        spec: Mapping[str, Any] = found.get("pipeline_spec", found)  # deeper where the file has a platform's part
        return spec

    def runs(self, number: int) -> list[RunView]:
        """The newest runs, without their tasks."""
        return self._runs(number, "")

    def _runs(self, number: int, filtered: str) -> list[RunView]:
        return [
            _run_view(run)
            for run in self._pages(self._client.list_runs, "runs", number, "created_at desc", filtered)
        ]

    def stop(self, run_id: str) -> None:
        """Ask a run to stop; its pods get their time to end."""
        try:
            self._call(self._client.terminate_run, run_id)
        except Missing:
            raise Missing(f"run {run_id}: no such run on {self.host}; 'mtrec runs list' shows them") from None

    def schedules(self, name: str = "") -> list[ScheduleView]:
        """The schedules, newest first; with a name those of it alone."""
        found = self._pages(
            self._client.list_recurring_runs,
            "recurring_runs",
            1000,
            "created_at desc",
            _named(name) if name else "",
        )
        return [_schedule_view(schedule) for schedule in found]

    def schedule(
        self,
        name: str,
        cron: str,
        *,
        experiment_id: str,
        pipeline_id: str,
        version_id: str,
        parameters: Mapping[str, Any],
        service_account: str = "",
        pipeline_root: str = "",
        description: str = "",
        enabled: bool = True,
    ) -> str:
        """Make a schedule: one run at a time, and what was missed is not made up for; paused unless enabled.

        Raises:
            Interrupted: the user stopped it before the answer was there; the schedule may be made.
        """
        look = f"before you try again, look with 'mtrec schedule list' whether {name} is made after all"
        try:
            made = self._call(
                self._client.create_recurring_run,
                experiment_id,
                name,
                description=description or None,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=dict(parameters),
                pipeline_id=pipeline_id,
                version_id=version_id,
                enabled=enabled,
                service_account=service_account or None,
                pipeline_root=pipeline_root or None,
            )
        except Away as error:
            raise Away(f"{error}; {look}") from error
        except KeyboardInterrupt as error:
            raise Interrupted(f"stopped while the schedule was being made; {look}") from error
        return str(made.recurring_run_id)

    def pause(self, schedule_id: str) -> None:
        """Let a schedule start nothing until it is resumed."""
        self._call(self._client.disable_recurring_run, schedule_id)

    def resume(self, schedule_id: str) -> None:
        """Let a schedule go on."""
        self._call(self._client.enable_recurring_run, schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Remove a schedule; the runs that it started stay."""
        self._call(self._client.delete_recurring_run, schedule_id)

    def _pages(
        self, method: Callable[..., Any], field: str, number: int, sort_by: str, filtered: str
    ) -> Iterator[Any]:
        token, left = "", number
        while left > 0:
            page = self._call(
                method,
                page_token=token,
                page_size=min(left, _PAGE),
                sort_by=sort_by,
                filter=filtered or None,
                namespace=self.namespace or None,
            )
            found = (getattr(page, field) or [])[:left]
            yield from found
            left -= len(found)
            token = page.next_page_token or ""
            if not token or not found:
                return

    def _call(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        with _told(self.host, self.access), contextlib.redirect_stdout(io.StringIO()):  # kfp prints links
            return method(*arguments, **named)


def _home(address: str) -> str:
    """The namespace of the service that an address within the cluster names; empty for any other address."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    found = re.match(rf"{SERVICE}(?:-ui)?\.([a-z0-9-]+)\.svc(?:\.|$)", host)
    return found[1] if found else ""


def _client(access: Access, host: str, token: Path | None, *, proxied: bool) -> Any:
    """A kfp.Client that keeps no file, asks nothing when made, and has time-outs and retries."""
    import urllib3
    from kfp.client import Client
    from kfp_server_api import Configuration, rest

    for file, option in ((token, "--token-file"), (access.cookies_file, "--cookies-file")):
        if file is not None:
            _secret(file, option)
    if access.ca_file is not None and not access.ca_file.is_file():
        raise InputError(f"--ca-file {access.ca_file}: no such file")

    class Patient(rest.RESTClientObject):
        def request(self, *arguments: Any, _request_timeout: Any = None, **named: Any) -> Any:
            # an int or a tuple: kfp_server_api takes no notice of a float and waits for ever
            timeout = _request_timeout or (access.connect_s, access.read_s)
            return super().request(*arguments, _request_timeout=timeout, **named)

    class Quiet(Client):
        def _load_config(self, *_: Any, **__: Any) -> Any:
            configuration = Configuration()
            if proxied:
                _by_kubeconfig(configuration, access, self._KUBE_PROXY_PATH.format(access.installed).rstrip("/"))
            else:
                configuration.host = host
            configuration.ssl_ca_cert = str(access.ca_file) if access.ca_file else configuration.ssl_ca_cert
            configuration.retries = urllib3.Retry(
                connect=3,
                read=1,
                status=3,
                other=0,
                redirect=0,
                status_forcelist={429, 502, 503, 504},
                allowed_methods={"GET", "DELETE", "HEAD"},
                backoff_factor=0.5,
                raise_on_status=False,
            )
            if token is not None:
                configuration.api_key["authorization"] = ""  # the hook is asked only where there is a key
                configuration.api_key_prefix["authorization"] = "Bearer"
                configuration.refresh_api_key_hook = lambda made: made.api_key.update(
                    authorization=_secret(token, "--token-file")
                )
            return configuration

        def _load_context_setting_or_default(self) -> None:
            self._context_setting = {"namespace": access.namespace}

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            from kfp_server_api import V2beta1GetHealthzResponse

            return V2beta1GetHealthzResponse(multi_user=False)  # asked by `Server.look`

    cookies = _secret(access.cookies_file, "--cookies-file") if access.cookies_file else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Quiet(host=host, cookies=cookies)
    client._run_api.api_client.rest_client = Patient(client._existing_config)
    return client


def _by_kubeconfig(configuration: Any, access: Access, path: str) -> None:
    import kubernetes

    try:
        kubernetes.config.load_kube_config(client_configuration=configuration, context=access.context or None)
    except Exception as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"no way to Kubeflow Pipelines: no --host, no kubectl, and no kubeconfig ({why})"
        ) from error
    configuration.host = f"{configuration.host.rstrip('/')}/{path}"
    host, renew = configuration.host, configuration.refresh_api_key_hook

    def renewed(made: Any) -> None:  # the kubeconfig's own hook sets both back to its own
        renew(made)
        made.host, made.refresh_api_key_hook = host, renewed

    if renew is not None:
        configuration.refresh_api_key_hook = renewed


def _secret(file: Path, option: str) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{option} {file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not text or "\n" in text:
        raise InputError(f"{option} {file}: one line is expected")
    return text


@contextmanager
def _told(host: str, access: Access) -> Iterator[None]:
    """Turn what kfp's client raises into mtrec's errors."""
    from kfp_server_api import ApiException, OpenApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise _of_status(error, host) from error
    except HTTPError as error:
        raise Away(f"Kubeflow Pipelines at {host} {_network(error, access)}") from error
    except AttributeError as error:  # the client tries to decode the body of an error that has none
        if isinstance(error.__context__, ApiException):
            reason = " ".join(str(error.__context__.reason).split())
            raise Away(f"Kubeflow Pipelines at {host}: {reason}; --ca-file names the authority") from error
        raise
    except (OpenApiException, ValueError) as error:
        what = " ".join(str(error).split())[:300]
        raise RunError(f"Kubeflow Pipelines at {host} answers in a way that kfp does not know: {what}") from error


def _network(error: Exception, access: Access) -> str:
    reason = getattr(error, "reason", None) or error
    names = {kind.__name__ for kind in type(reason).__mro__}
    if "ReadTimeoutError" in names:
        return "took the request and did not answer in time"
    if "NameResolutionError" in names:
        return "cannot be reached: no such name; check --host"
    if "ConnectTimeoutError" in names and "NewConnectionError" not in names:
        return f"cannot be reached within {access.connect_s} s; check --host"
    if "SSLError" in names:
        return f"has a certificate that is not trusted ({' '.join(str(reason).split())[:200]}); give --ca-file"
    return f"cannot be reached ({' '.join(str(reason).rpartition(': ')[2].split())[:200]}); check --host"


def _of_status(error: Any, host: str) -> Exception:
    said = _message(error)
    at = f"Kubeflow Pipelines at {host}"
    if error.status == 401:
        return Refused(f"{at} does not know who asks (401): give --token-file or --cookies-file, or renew it")
    if error.status == 403:
        return Refused(f"{at} does not allow it (403): {said}")
    if error.status == 404:
        return Missing(f"{at} does not know it (404): {said}")
    if error.status == 409:
        return Exists(f"{at} has it already (409): {said}")
    if error.status in (408, 429) or (error.status >= 500 and "InvalidInput" not in said):
        return Away(f"{at} cannot answer now ({error.status}): {said}")
    if 300 <= error.status < 400:
        return Refused(f"{at} sends to another page ({error.status}): give --token-file or --cookies-file")
    return InputError(f"{at} refuses the request ({error.status}): {said}")


def _message(error: Any) -> str:
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body or ""
    with contextlib.suppress(ValueError, AttributeError):
        content = json.loads(body)
        body = content.get("message") or content.get("error") or body
    return " ".join(str(body).split())[:400] or str(error.reason)


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": _EQUALS, "key": "display_name", "stringValue": name}]})


def _run_view(run: Any) -> RunView:
    tasks = (run.run_details.task_details if run.run_details else None) or []
    return RunView(
        id=str(run.run_id),
        name=str(run.display_name or ""),
        state=str(run.state or "PENDING"),
        created=run.created_at,
        ended=_time(run.finished_at),
        error=_error(run.error),
        tasks=tuple(
            TaskView(
                name=str(task.display_name or ""),
                state=str(task.state or "PENDING"),
                started=_time(task.start_time),
                ended=_time(task.end_time),
                error=_error(task.error),
                pod=str(task.pod_name or ""),
            )
            for task in tasks
        ),
        schedule=str(run.recurring_run_id or ""),
        parameters=(run.runtime_config.parameters if run.runtime_config else None) or {},
        version=_version_of(run),
    )


def _version_of(run: Any) -> tuple[str, str]:
    reference = run.pipeline_version_reference
    return (str(reference.pipeline_id or ""), str(reference.pipeline_version_id or "")) if reference else ("", "")


def _schedule_view(schedule: Any) -> ScheduleView:
    trigger = schedule.trigger
    cron = trigger.cron_schedule.cron if trigger and trigger.cron_schedule else ""
    given = (schedule.runtime_config.parameters if schedule.runtime_config else None) or {}
    return ScheduleView(
        id=str(schedule.recurring_run_id),
        name=str(schedule.display_name or ""),
        cron=str(cron or ""),
        enabled=schedule.mode == "ENABLE" if schedule.mode else schedule.status == "ENABLED",
        created=schedule.created_at,
        error=_error(schedule.error),
        data=str(given.get("drop") or given.get("data") or ""),
    )


def _time(moment: datetime | None) -> datetime | None:
    return moment if moment is not None and moment.year > 1970 else None  # what has not ended is 1970 to the server


def _error(status: Any) -> str:
    return " ".join(str(status.message).split()) if status is not None and status.message else ""
