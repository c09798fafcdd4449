"""What an older Kubeflow Pipelines server refuses, found before a run is sent to it.

The SDK writes what its own server knows. An older one takes the upload and refuses the run, hours later if the run
is a scheduled one. Differences are those between the published packages of 2.14 and 2.17; whatever lies between
them is taken for 2.14.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtrec.errors import ConfigError

Version = tuple[int, int]
MINIMUM: Version = (2, 14)
FULL: Version = (2, 17)
"""From here on nothing is left out."""
SETS_USER = "steps set a security context (take run_as_user out of the cluster file)"
_OPTIONAL = ("secretAsEnv", "configMapAsEnv")


def parse_version(tag: str) -> Version | None:
    """The version in a server's tag name (2.14.3, v2.17.0-rc.1); None where it holds none."""
    found = re.match(r"v?(\d+)\.(\d+)", tag.strip())
    return (int(found[1]), int(found[2])) if found else None


def adapt(documents: Sequence[Mapping[str, Any]], version: Version | None) -> list[dict[str, Any]]:
    """A compiled pipeline as a server of that version takes it.

    Args:
        documents: the YAML documents of the compiled file: the pipeline, and the platform's part.
        version: the server's; None counts as the oldest that is supported.

    Raises:
        ConfigError: the pipeline uses what the server does not know; the message lists all of it.
    """
    adapted = [copy.deepcopy(dict(document)) for document in documents]
    for _, config in _executors(adapted):
        for kind in _OPTIONAL:
            for entry in config.get(kind, []):
                if entry.get("optional") is False:  # the SDK writes the default, which 2.14 does not know
                    del entry["optional"]
    if (version or MINIMUM) < FULL and (problems := list(_newer(adapted))):
        told = "; ".join(dict.fromkeys(problems))
        raise ConfigError(f"the pipeline needs Kubeflow Pipelines {version_text(FULL)}: {told}")
    return adapted


def _newer(documents: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for name, config in _executors(documents):
        if "securityContext" in config:
            yield SETS_USER
        for kind in _OPTIONAL:
            if any(entry.get("optional") for entry in config.get(kind, [])):
                yield f"{name} has an optional {kind}"
        if any(mount.get("subPath") for mount in config.get("pvcMount", [])):
            yield f"{name} mounts a part of a claim (subPath)"
    for document in documents:
        config = document.get("platforms", {}).get("kubernetes", {}).get("pipelineConfig", {})
        if newer := sorted(set(config) - {"workspace"}):
            yield f"it sets {', '.join(newer)}"
        for name, component in document.get("components", {}).items():
            if component.get("taskConfigPassthroughs"):
                yield f"{name} takes the task's configuration"


def _executors(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents:
        kubernetes = document.get("platforms", {}).get("kubernetes", {})
        yield from kubernetes.get("deploymentSpec", {}).get("executors", {}).items()


def too_old(tag: str, host: str) -> str:
    """What to tell people whose server is older than `MINIMUM`."""
    needed = version_text(MINIMUM)
    return f"Kubeflow Pipelines {tag} at {host} is older than {needed}, which mtrec needs: upgrade the server"


def version_text(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))
