"""The door to a Kubernetes API server: which one, with whose token, and how long to wait for it."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.errors import InputError, RunError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TIMEOUT = (5, 15)
"""Seconds to connect and to wait for an answer; the client ignores any `_request_timeout` but whole numbers."""
_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@functools.cache
def api_client(context: str | None = None) -> ApiClient:
    """A client with the rights of the pod's service account, else of the kubeconfig (KUBECONFIG, ~/.kube/config).

    Args:
        context: of the kubeconfig, which then goes before the pod's account; by default the current one.

    Raises:
        InputError: there is neither, or no such context.
    """
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration
    from urllib3 import Retry
    from yaml import YAMLError

    configuration = Configuration()
    try:
        if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and (_POD / "token").exists():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(_kubeconfig(), context=context, client_configuration=configuration)
    except config.ConfigException as error:
        why = " ".join(str(error).split()).removesuffix(".")
        raise InputError(f"no Kubernetes cluster to use: {why}. Set KUBECONFIG, or run in a pod") from error
    except (OSError, YAMLError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise InputError(f"{_kubeconfig()}: not a kubeconfig that can be read ({why})") from error
    # What was sent may have been done: only what never arrived, or was turned away unread, is sent again.
    configuration.retries = Retry(
        total=3,
        connect=2,
        read=0,
        other=0,
        status=3,
        status_forcelist=(429,),
        allowed_methods=None,
        backoff_factor=0.2,
        raise_on_status=False,
    )
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # else each try is told on stderr
    return ApiClient(configuration)


def request(
    client: ApiClient, method: str, path: str, body: Any = None, query: Sequence[tuple[str, str]] = ()
) -> tuple[Any, Mapping[str, str]]:
    """Ask the API server.

    Returns:
        The object that it answers with, and the headers of the answer.

    Raises:
        kubernetes.client.ApiException: it refuses.
        urllib3.exceptions.HTTPError: it cannot be reached.
    """
    answer, _, headers = client.call_api(
        path,
        method,
        query_params=list(query),
        header_params={"Accept": "application/json", "Content-Type": "application/json"},
        body=body,
        auth_settings=["BearerToken"],
        response_type="object",
        _request_timeout=TIMEOUT,
    )
    return answer, headers


def default_namespace() -> str:
    """The namespace of the pod, or else of the kubeconfig's current context, or else `default`."""
    try:
        return (_POD / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        pass
    from kubernetes import config

    try:
        _, current = config.list_kube_config_contexts(_kubeconfig())
    except config.ConfigException:
        return "default"
    return str(current["context"].get("namespace") or "default")


def _kubeconfig() -> str:
    """The client would read the variable only once, when it is imported."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


@contextmanager
def answering(what: str, away: type[RunError] = RunError) -> Iterator[None]:
    """Tell in one line what the API server refused, or that it cannot be reached; 404 and 409 are the caller's.

    Args:
        what: what was asked, e.g. `Lease mtrec/mtrec-shop-training`.
        away: raised where no answer came, or none that says anything about what was asked.

    Raises:
        RunError: refused.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status in (404, 409):
            raise
        kind = away if not error.status or error.status == 429 or error.status >= 500 else RunError
        raise kind(f"{what}: the Kubernetes API server answered {reason(error)}") from error
    except (HTTPError, OSError) as error:
        why = " ".join(str(getattr(error, "reason", None) or error).split())
        raise away(f"{what}: the Kubernetes API server cannot be reached ({why})") from error


def reason(error: Exception) -> str:
    """What the API server said, in one line: its status code and the message of its Status object."""
    import json

    status, body = getattr(error, "status", None), getattr(error, "body", None)
    try:
        message = json.loads(body or "")["message"]
    except (ValueError, TypeError, KeyError):
        message = getattr(error, "reason", None) or str(error)
    return " ".join(f"{status or ''} {message}".split())
