"""The committed manifests are what kustomize makes of k8s/, and what Kubernetes takes."""

import configparser
import copy
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from components.images import IMAGE
from tests.k8s.render import ROOT, golden, render, renderer

Documents = list[dict[str, Any]]
KUBERNETES = ("1.29", "1.37")
"""The oldest version that the manifests are for, and the newest whose schemas are at hand."""

needs_renderer = pytest.mark.skipif(renderer() is None, reason="neither kustomize nor kubectl 1.27 is installed")


@needs_renderer
def test_the_committed_manifests_are_those_of_the_sources(overlay: str) -> None:
    rendered = render(ROOT / "k8s" / "overlays" / overlay)
    assert rendered == golden(overlay).read_text(encoding="utf-8"), "run 'make golden' and read the difference"


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(manifests: Documents, check: ModuleType, version: str) -> None:
    for document in manifests:
        if document["kind"] != "TrainingRuntime":
            kubernetes_validate.validate(document, version, strict=True)
    for document in manifests:  # also what lies inside of a kind that is not Kubernetes' own
        for template in check.templates(document):
            pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
            kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_field_that_kubernetes_does_not_know_is_found(dev: Documents, version: str) -> None:
    (server,) = [d for d in dev if d["kind"] == "Deployment" and d["metadata"]["name"] == "mlflow"]
    server["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(server, version, strict=True)


def test_the_trainer_knows_every_field_of_its_runtime(manifests: Documents) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="the kubeflow SDK is not installed")
    (runtime,) = [d for d in manifests if d["kind"] == "TrainingRuntime"]
    read = models.TrainerV1alpha1TrainingRuntime.from_dict(runtime)
    kept = read.to_dict()
    assert kept["spec"]["mlPolicy"] == runtime["spec"]["mlPolicy"]
    (job,) = kept["spec"]["template"]["spec"]["replicatedJobs"]
    (given,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert set(job["template"]["spec"]["template"]["spec"]) == set(given["template"]["spec"]["template"]["spec"])


def test_the_runtime_is_one_that_the_sdk_takes(manifests: Documents) -> None:
    (runtime,) = [d for d in manifests if d["kind"] == "TrainingRuntime"]
    assert runtime["metadata"]["labels"]["trainer.kubeflow.org/framework"] == "torch"
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"
    assert job["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"


def test_names_are_there_once(manifests: Documents, check: ModuleType) -> None:
    names = [check.name_of(document) for document in manifests]
    assert len(names) == len(set(names))


def _mlflow_hosts(manifests: Documents) -> tuple[set[str], list[str]]:
    called = {urlsplit(url).netloc for url in re.findall(r"https?://mlflow[\w.:-]*", yaml.safe_dump_all(manifests))}
    (settings,) = [
        d["data"] for d in manifests if d["kind"] == "ConfigMap" and "MLFLOW_SERVER_ALLOWED_HOSTS" in d["data"]
    ]
    return called, settings["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_mlflow_answers_under_every_name_by_which_it_is_called(manifests: Documents) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    called, allowed = _mlflow_hosts(manifests)
    assert {"mlflow:5000", "mlflow.mlflow.svc.cluster.local:5000"} <= called
    for host in called:
        assert is_allowed_host_header(allowed, host), host
        assert is_allowed_host_header(allowed, host.split(":")[0]), host
    assert not is_allowed_host_header(allowed, "evil.example.com")


def test_the_images_are_those_that_the_code_names(dev: Documents, check: ModuleType) -> None:
    images = {c["image"] for d in dev for t in check.templates(d) for c in check.containers(t["spec"])}
    assert IMAGE in images
    built = (ROOT / "mlflow" / "Dockerfile").read_text()
    (server,) = {image for image in images if image.startswith("mtrec/mlflow:")}
    assert f"mlflow[auth]=={server.split(':')[1]}" in built
    assert f"-t {server}" in built


def test_the_server_starts_as_its_image_would_but_with_logins(dev: Documents, repository: Path) -> None:
    (server,) = [d for d in dev if d["kind"] == "Deployment" and d["metadata"]["name"] == "mlflow"]
    (container,) = server["spec"]["template"]["spec"]["containers"]
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", (repository / "mlflow" / "Dockerfile").read_text(), re.M)
    command = [word for word in container["command"] if word not in ("--app-name", "basic-auth")]
    assert command == yaml.safe_load(entry)
    logins = configparser.ConfigParser()
    logins.read(repository / "mlflow" / "auth.ini")
    assert logins["mlflow"]["default_permission"] == "READ"
    assert logins["mlflow"]["database_uri"] == "postgresql://", "no password in a file that is committed"


def test_nobody_but_the_leases_gets_write_rights_on_what_he_does_not_make(manifests: Documents) -> None:
    """Least privilege, as a list to be read: every right that is given, by role."""
    rights = {
        document["metadata"]["name"]: {
            (resource, *rule.get("resourceNames", [])): sorted(rule["verbs"])
            for rule in document["rules"]
            for resource in rule["resources"]
        }
        for document in manifests
        if document["kind"] in ("Role", "ClusterRole")
    }
    assert rights == {
        "mtrec-trainer": {
            ("configmaps", "kfp-launcher"): ["get"],
            ("secrets", "mlpipeline-minio-artifact"): ["get"],
            ("workflowtaskresults",): ["create", "patch"],
            ("trainjobs",): ["create", "delete", "get", "list", "watch"],
            ("trainingruntimes",): ["get", "list"],
            ("pods",): ["get", "list", "watch"],
            ("pods/log",): ["get", "list", "watch"],
            ("events",): ["get", "list", "watch"],
        },
        "mtrec-leases": {("leases",): ["create", "get", "list", "update"]},
        "mtrec-scheduler": {
            ("pipelines",): ["create", "get", "list"],
            ("pipelines/versions",): ["create", "get", "list"],
            ("experiments",): ["create", "get", "list"],
            ("jobs",): ["create", "delete", "disable", "enable", "get", "list"],
            ("serviceaccounts", "mtrec-trainer"): ["use"],
        },
    }
    assert not [d for d in manifests if d["kind"] == "ClusterRoleBinding"]
    bound = {
        d["roleRef"]["name"]: {s["name"] for s in d["subjects"]} for d in manifests if d["kind"] == "RoleBinding"
    }
    assert bound == {
        "mtrec-trainer": {"mtrec-trainer"},
        "mtrec-leases": {"mtrec-trainer", "mtrec-approver"},
        "mtrec-scheduler": {"mtrec-scheduler"},
    }
    accounts = {d["metadata"]["name"] for d in manifests if d["kind"] == "ServiceAccount"}
    assert set().union(*bound.values()) <= accounts


def test_runs_may_call_what_they_need_and_nobody_calls_them(manifests: Documents) -> None:
    policies = {d["metadata"]["name"]: d["spec"] for d in manifests if d["kind"] == "NetworkPolicy"}
    runs = policies["mtrec-runs"]
    ours = {"app.kubernetes.io/part-of": "mtrec"}
    assert runs["podSelector"] == {"matchLabels": ours}, "a single-user KFP runs everybody's pipelines there"
    assert runs["ingress"] == []
    ports = {port["port"] for rule in runs["egress"] for port in rule.get("ports", [])}
    assert {53, 5000, 443, 5432} <= ports
    everything = policies["nothing"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    home = next(d["metadata"]["namespace"] for d in manifests if d["metadata"]["name"] == "mtrec-runs")
    allowed = policies["mlflow"]["ingress"][0]["from"][1:]
    assert [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in allowed] == [
        home
    ] * 2


def test_draining_waits_for_steps_of_mtrec_and_no_pod_has_two_budgets(
    manifests: Documents, check: ModuleType
) -> None:
    """Of a pod in two budgets the API server refuses every eviction."""
    ours = {"app.kubernetes.io/part-of": "mtrec"}
    pods = {
        "a step": ({**ours, "pipeline/runid": "1"}, ["mtrec-runs"]),
        "a node": ({**ours, "app.kubernetes.io/name": "mtrec-node"}, ["mtrec-nodes"]),
        "another's step, or a driver of KFP": ({"pipeline/runid": "1"}, []),
        "a Job": (ours, []),
    }
    budgets = [d for d in manifests if d["kind"] == "PodDisruptionBudget"]
    for pod, (labels, names) in pods.items():
        assert [b["metadata"]["name"] for b in budgets if check.selects(b, "selector", labels)] == names, pod
