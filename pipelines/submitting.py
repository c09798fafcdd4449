"""Send a pipeline to a Kubeflow Pipelines server: compile, upload or reuse the version, start a run."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from mtrec import __version__
from mtrec.config import Scenario
from mtrec.errors import InputError
from mtrec.tracking.deciding import run_lease
from mtrec.training.space import check_space
from pipelines.cluster_config import EXAMPLE, Cluster
from pipelines.compiling import FOR_CLUSTERS
from pipelines.kfp_server import Server
from pipelines.placing import PLAIN, Placing
from pipelines.scenario_text import scenario_text
from pipelines.server_versions import adapt


@dataclass(frozen=True, kw_only=True)
class Order:
    """What shall run, and with what.

    What a cluster's configuration says about tasks goes to the compiler, the rest is in the fields below.
    """

    kind: str
    """One of `FOR_CLUSTERS`."""
    scenario: Scenario
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Of the pipeline, beside the scenario; empty ones keep the pipeline's default."""
    placed: Placing = PLAIN
    experiment: str = ""
    """Empty: named after the scenario."""
    service_account: str = ""
    pipeline_root: str = ""

    def __post_init__(self) -> None:
        if self.kind not in FOR_CLUSTERS:
            raise InputError(f"'{self.kind}': no such pipeline; choose one of {', '.join(FOR_CLUSTERS)}")
        if self.kind == "monitoring" and not self.parameters.get("drop"):
            raise InputError("monitoring needs --data: a data drop, or a folder of drops, as the pods see it")
        if self.kind == "search":
            check_space(self.scenario)
            if not _names_studies(self.placed.cluster):
                raise InputError(
                    "search needs --cluster FILE in which steps.search_settings and steps.report_search have a "
                    f"secret for MTREC_STUDIES, the database of studies; see {EXAMPLE}"
                )

    def compiled(self, path: Path) -> Path:
        """Write the compiled pipeline."""
        return FOR_CLUSTERS[self.kind](path, self.placed)

    @property
    def given(self) -> dict[str, Any]:
        """The run's parameters.

        Raises:
            ConfigError: the scenario is larger than a workflow takes.
        """
        text = scenario_text(self.scenario)
        given = {name: value for name, value in self.parameters.items() if value}
        return {"scenario": text, **parameters_of(self.kind, self.placed.cluster, self.scenario), **given}


def _names_studies(cluster: Cluster | None) -> bool:
    steps = [cluster.step(name) for name in ("search_settings", "report_search")] if cluster else []
    known = [[variable for keys in step.secrets.values() for variable in keys.values()] for step in steps]
    return bool(known) and all("MTREC_STUDIES" in variables for variables in known)


def parameters_of(kind: str, cluster: Cluster | None, scenario: Scenario | None) -> dict[str, str]:
    """The parameters that a cluster's configuration gives: where things are, and the lease of the run.

    A lease is a scenario's: without one there is none.
    """
    if cluster is None:
        return {}
    given = cluster.parameters()
    if kind == "search":  # its models are not kept, and it registers nothing
        return {name: path for name, path in given.items() if name != "checkpoints"}
    if cluster.lease_hours is not None and scenario is not None:
        given["lease"] = run_lease(scenario.name, cluster.namespace, cluster.lease_hours)
    return given


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is on the server before anything runs."""

    pipeline_id: str
    version_id: str
    experiment_id: str
    pipeline: str
    version: str
    uploaded: bool
    """Whether the version is new there."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A run that was started."""

    id: str
    name: str
    prepared: Prepared


def _same_namespace(order: Order, server: Server) -> None:
    """Pods and their leases are in one namespace, which is the server's own where that is for a single user."""
    cluster = order.placed.cluster
    if cluster is not None and not server.multi_user and server.home not in ("", cluster.namespace):
        raise InputError(
            f"Kubeflow Pipelines at {server.host} is for a single user, and runs pods in {server.home} only, not "
            f"in {cluster.namespace}: set namespace: {server.home} in the cluster file and use an overlay for it, "
            "as k8s/overlays/dev is, or install Kubeflow Pipelines for many users"
        )
    if cluster is not None and server.namespace not in ("", cluster.namespace):
        raise InputError(
            f"--namespace {server.namespace}: the cluster file says namespace: {cluster.namespace}; correct one"
        )


def prepare(order: Order, server: Server) -> Prepared:
    """Compile, and have pipeline, version and experiment on the server; what is there is used again.

    A version is named by the digest of what is uploaded, so that the same code, image and server version is one
    version, whoever submits it.

    Raises:
        ConfigError: the pipeline does not compile, or needs a newer server.
        InputError: the server refuses it.
        RunError: the server is away.
    """
    _same_namespace(order, server)
    with tempfile.TemporaryDirectory() as folder:
        compiled = order.compiled(Path(folder, "pipeline.yaml"))
        documents = adapt(list(yaml.safe_load_all(compiled.read_text(encoding="utf-8"))), server.version)
        compiled.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        digest = hashlib.sha256(compiled.read_bytes()).hexdigest()[:12]
        version = re.sub(r"[^a-z0-9]+", "-", f"v{__version__}-{digest}".lower())
        name = str(documents[0]["pipelineInfo"]["name"])
        pipeline_id = server.pipeline_id(name, str(documents[0]["pipelineInfo"].get("description", "")))
        version_id, uploaded = server.version_id(pipeline_id, version, compiled)
    return Prepared(
        pipeline_id=pipeline_id,
        version_id=version_id,
        experiment_id=server.experiment_id(order.experiment or order.scenario.name),
        pipeline=name,
        version=version,
        uploaded=uploaded,
    )


def sent(order: Order, prepared: Prepared, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the server is sent to start or to schedule an order, beside its name.

    Args:
        order: what shall run.
        prepared: what is on the server.
        parameters: `order.given`.
    """
    return {
        "experiment_id": prepared.experiment_id,
        "pipeline_id": prepared.pipeline_id,
        "version_id": prepared.version_id,
        "parameters": parameters,
        "service_account": order.service_account,
        "pipeline_root": order.pipeline_root,
    }


def submit(order: Order, server: Server) -> Started:
    """Start a run.

    Raises:
        InputError: as `prepare`, or the parameters do not fit.
        RunError: the server is away.
    """
    parameters = order.given
    prepared = prepare(order, server)
    name = f"{order.scenario.name}-{order.kind}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:-3]
    run = server.start(name, **sent(order, prepared, parameters))
    return Started(id=run, name=name, prepared=prepared)
