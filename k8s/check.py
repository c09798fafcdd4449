"""Refuse rendered manifests that break the house's rules, one line per reason.

    kubectl kustomize k8s/overlays/dev | python k8s/check.py
    kubectl kustomize my-overlay | python k8s/check.py --prod && kubectl apply -k my-overlay

Rules: Pod Security "restricted", no root, a read-only root file system, requests and limits, probes on what stays,
a NetworkPolicy and a disruption budget for each pod, nothing referred to that is not there, cluster files included,
cluster files and scenarios without a wrong key. With --prod also: images by digest, and secrets only by reference;
those to be made by you are listed.
Exit codes: 0 nothing is wrong, 1 something is, 2 no manifests.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

import yaml

from mtrec.config import parse, parse_scenario, read_yaml
from mtrec.errors import ConfigError
from pipelines.cluster_config import COMPONENTS, Cluster

Document = dict[str, Any]

DIGEST = re.compile(r"^[^@\s]+@sha256:[0-9a-f]{64}$")
SAFE_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY", re.IGNORECASE)
NOT_OURS = {"default", "default-editor", "default-viewer", "pipeline-runner"}
"""Service accounts that Kubernetes and Kubeflow make."""
RUNS_ON = ("Deployment", "StatefulSet", "DaemonSet")


def problems(documents: list[Document], *, prod: bool = False) -> list[str]:
    """Everything that is wrong, in the documents' order."""
    found = []
    for document in documents:
        where = name_of(document)
        for template in templates(document):
            found += [f"{where}: {line}" for line in pod_problems(document, template, documents, prod=prod)]
        if document["kind"] == "Service":
            found += [f"{where}: {line}" for line in service_problems(document, documents)]
        if document["kind"] == "ConfigMap":
            found += [f"{where}: {line}" for line in cluster_problems(document, documents, prod=prod)]
            found += [f"{where}: {line}" for line in scenario_problems(document, documents)]
        if prod:
            found += [f"{where}: {line}" for line in literal_secrets(document)]
    return found


def cluster_file(document: Document) -> Cluster | None:
    """The cluster file in a ConfigMap, or None where it has none.

    Raises:
        ConfigError: it is wrong.
    """
    text = (document.get("data") or {}).get("cluster.yaml")
    return None if text is None else parse(Cluster, read_yaml(text) or {}, "cluster.yaml")


def cluster_problems(document: Document, documents: list[Document], *, prod: bool) -> Iterator[str]:
    """What is wrong in the cluster file of a ConfigMap, and what it names that is not there."""
    try:
        cluster = cluster_file(document)
    except (ConfigError, yaml.YAMLError) as error:
        yield " ".join(str(error).split())
        return
    if cluster is None:
        return
    if all(document["metadata"].get("namespace") != cluster.namespace for document in documents):
        yield f"cluster.yaml: namespace {cluster.namespace} has nothing of these manifests: name that of the runs"
    else:
        for kind, name, key in dict.fromkeys(named_by(cluster)):
            there = find(documents, kind, name, cluster.namespace)
            if there is None and kind != "Secret":  # see wanted_secrets
                yield f"cluster.yaml: {kind} {name} is not there, in namespace {cluster.namespace}"
            elif there is not None and key and key not in {**there.get("data", {}), **there.get("stringData", {})}:
                yield f"cluster.yaml: {kind} {name} has no key {key}"
    if prod:
        for image in sorted({cluster.step(name).image or cluster.image for name in COMPONENTS}):
            if not DIGEST.match(image):
                yield f"cluster.yaml: image {image} is not pinned: name it by digest"


def named_by(cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    """Kind, name and key (or nothing) of what a cluster file names in its namespace."""
    if cluster.service_account and cluster.service_account not in NOT_OURS:
        yield "ServiceAccount", cluster.service_account, ""
    if cluster.storage is not None:
        yield "PersistentVolumeClaim", cluster.storage.claim, ""
    if cluster.elsewhere:
        yield "TrainingRuntime", cluster.train_job.runtime, ""
    for name in cluster.image_pull_secrets:
        yield "Secret", name, ".dockerconfigjson"
    for step in map(cluster.step, COMPONENTS):
        for kind, given in (("ConfigMap", step.config_maps), ("Secret", step.secrets)):
            for name, keys in given.items():
                for key in keys:
                    yield kind, name, key


def scenario_problems(document: Document, documents: list[Document]) -> Iterator[str]:
    """What is wrong in the scenario of a ConfigMap, and whether the trainer's permissions are about it."""
    text = (document.get("data") or {}).get("scenario.yaml")
    if text is None:
        return
    try:
        name = parse_scenario(read_yaml(text) or {}, "scenario.yaml").name
    except (ConfigError, yaml.YAMLError) as error:
        yield " ".join(str(error).split())
        return
    for job in documents:
        if (job["kind"], job["metadata"]["name"]) == ("Job", "mlflow-permissions"):
            given = job["spec"]["template"]["spec"]["containers"][0].get("args") or []
            if name not in given:
                told = f"is not among the args of {name_of(job)} ({', '.join(given)})"
                yield f"scenario.yaml: name {name} {told}: the trainer could promote its models; name it there"


def name_of(document: Document) -> str:
    """As in a message: Deployment mlflow/mlflow."""
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def templates(document: Document) -> Iterator[Document]:
    """The pod templates (metadata and spec) of any kind of workload."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Pod":
        yield document
    elif kind in (*RUNS_ON, "Job", "ReplicaSet"):
        yield spec["template"]
    elif kind == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]
    elif kind in ("TrainingRuntime", "ClusterTrainingRuntime"):
        for job in spec["template"]["spec"]["replicatedJobs"]:
            yield job["template"]["spec"]["template"]


def containers(pod: Document) -> list[Document]:
    """Every container of a pod's spec, those that run before included."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def pod_problems(document: Document, template: Document, documents: list[Document], *, prod: bool) -> Iterator[str]:
    """What is wrong with one pod template."""
    pod = template["spec"]
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is on"
    for volume in pod.get("volumes", []):
        if kinds := set(volume) - {"name"} - SAFE_VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(kinds)}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false; nothing here asks the Kubernetes API"
    for container in containers(pod):
        for line in container_problems(container, pod.get("securityContext", {}), prod=prod):
            yield f"container {container['name']}: {line}"
        if document["kind"] in RUNS_ON and container in pod["containers"]:
            for probe in ("readinessProbe", "livenessProbe"):
                if probe not in container:
                    yield f"container {container['name']}: no {probe}"
    namespace = document["metadata"].get("namespace")
    labels = template.get("metadata", {}).get("labels", {})
    for kind, name, key in references(pod):
        if kind == "Secret" and prod:
            continue  # they are the user's, see wanted_secrets
        there = find(documents, kind, name, namespace)
        if there is None:
            yield f"{kind} {name} is not there"
        elif key and key not in {**there.get("data", {}), **there.get("stringData", {})}:
            yield f"{kind} {name} has no key {key}"
    if namespace != "mlflow" and labels.get("sidecar.istio.io/inject") != "false":
        yield 'no label sidecar.istio.io/inject: "false": in a Profile the sidecar would keep it from ending'
    selecting = [
        d["spec"] for d in of_kind(documents, "NetworkPolicy", namespace) if selects(d, "podSelector", labels)
    ]
    for direction in ("Ingress", "Egress"):
        if not any(direction in policy["policyTypes"] for policy in selecting):
            yield f"no NetworkPolicy limits its {direction.lower()}"
    ends = document["kind"] in ("Job", "CronJob") or (document["kind"] == "Pod" and "activeDeadlineSeconds" in pod)
    if not ends and not any(
        selects(d, "selector", labels) for d in of_kind(documents, "PodDisruptionBudget", namespace)
    ):
        yield "no PodDisruptionBudget"


def container_problems(container: Document, pod_context: Document, *, prod: bool) -> Iterator[str]:
    """What is wrong with one container; its own security context counts before the pod's."""
    own = container.get("securityContext", {})
    context = pod_context | own
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not context.get("runAsUser"):
        yield "runAsUser is root or not named"
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccompProfile"
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are not dropped"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "the root file system can be written"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort is used"
    for kind in ("requests", "limits"):
        if missing := {"cpu", "memory"} - set(container.get("resources", {}).get(kind, {})):
            yield f"no {kind} of {' and '.join(sorted(missing))}"
    image = container["image"]
    if prod and not DIGEST.match(image):
        plain = image.split("@")[0] if ":" not in image.rsplit("/", 1)[-1] else image.rsplit(":", 1)[0]
        yield f"image {image} is not pinned: name {plain} by newName and digest under images: in your own overlay"
    elif prod and image.startswith("registry.invalid/"):
        yield f"image {image} has a digest and no registry: give newName under images: in your own overlay"
    elif ":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest"):
        yield f"image {image} changes under its name"
    for variable in container.get("env", []):
        if prod and str(variable.get("value", "")).startswith("registry.invalid/"):
            yield f"{variable['name']} names no image of yours: copy it with replacements: in your own overlay"
        if prod and "value" in variable and SECRET_NAME.search(variable["name"]) and not is_path(variable):
            yield f"{variable['name']} is written out: take it from a Secret"


def is_path(variable: Document) -> bool:
    """A variable that tells where a secret lies, and is none."""
    return variable["name"].endswith(("_PATH", "_FILE"))


def references(pod: Document) -> Iterator[tuple[str, str, str]]:
    """Kind, name and key (or nothing) of what a pod needs in its namespace."""
    if account := pod.get("serviceAccountName"):
        yield "ServiceAccount", account, ""
    for volume in pod.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"], ""
        for projected in volume.get("projected", {}).get("sources", []):
            if "configMap" in projected:
                yield "ConfigMap", projected["configMap"]["name"], ""
        for kind, source in (("ConfigMap", volume.get("configMap")), ("Secret", volume.get("secret"))):
            if source:
                for item in source.get("items", [{"key": ""}]):
                    yield kind, source.get("name") or source["secretName"], item["key"]
    for container in containers(pod):
        for source in container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield kind, source[key]["name"], ""
        for variable in container.get("env", []):
            for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if key in variable.get("valueFrom", {}):
                    yield kind, variable["valueFrom"][key]["name"], variable["valueFrom"][key]["key"]


def wanted_secrets(documents: list[Document]) -> dict[str, set[str]]:
    """Secrets that pods and steps refer to and that are not among the documents, with the keys they need."""
    wanted: dict[str, set[str]] = {}
    for document in documents:
        namespace = document["metadata"].get("namespace")
        named = [found for template in templates(document) for found in references(template["spec"])]
        if document["kind"] == "ConfigMap" and (cluster := cluster_file(document)) is not None:
            namespace, named = cluster.namespace, list(named_by(cluster))
        for kind, name, key in named:
            if kind == "Secret" and find(documents, kind, name, namespace) is None:
                wanted.setdefault(f"{namespace}/{name}", set()).add(key)
    return wanted


def service_problems(service: Document, documents: list[Document]) -> Iterator[str]:
    """A service that leads nowhere."""
    namespace, spec = service["metadata"].get("namespace"), service["spec"]
    ports = [
        {port.get("name") for container in template["spec"]["containers"] for port in container.get("ports", [])}
        for document in documents
        if document["metadata"].get("namespace") == namespace
        for template in templates(document)
        if spec["selector"].items() <= template.get("metadata", {}).get("labels", {}).items()
    ]
    if not ports:
        yield "no pod has the labels it selects"
    for port in spec["ports"]:
        if any(port["targetPort"] not in names for names in ports):
            yield f"no port of its pods is called {port['targetPort']}"


def literal_secrets(document: Document) -> Iterator[str]:
    """Passwords in the manifests themselves."""
    if document["kind"] == "Secret" and (document.get("data") or document.get("stringData")):
        yield "a secret is written out: make it on the cluster, and only refer to it here"
    if document["kind"] == "ConfigMap":
        for key, value in document.get("data", {}).items():
            if SECRET_NAME.fullmatch(key) or re.search(r"://[^/\s:@]+:[^/\s@]+@", str(value)):
                yield f"{key} holds a password: take it from a Secret"


def of_kind(documents: list[Document], kind: str, namespace: str | None) -> list[Document]:
    """The documents of a kind in a namespace."""
    return [d for d in documents if d["kind"] == kind and d["metadata"].get("namespace") == namespace]


def find(documents: list[Document], kind: str, name: str, namespace: str | None) -> Document | None:
    """One document, or None."""
    return next((d for d in of_kind(documents, kind, namespace) if d["metadata"]["name"] == name), None)


def selects(document: Document, key: str, labels: dict[str, str]) -> bool:
    """Whether a policy or budget is about pods with these labels."""
    selector = document["spec"].get(key, {})
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if expression["operator"] == "Exists" and value is None:
            return False
        if expression["operator"] == "In" and value not in expression["values"]:
            return False
    return True


def main() -> int:
    """Read the rendered manifests from standard input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prod", action="store_true", help="also what only production has to keep")
    prod = parser.parse_args().prod
    try:
        documents = [document for document in yaml.safe_load_all(sys.stdin.buffer) if document]
        for document in documents:
            name_of(document)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        print(f"mtrec: standard input: no manifests as kubectl kustomize renders them ({why})", file=sys.stderr)
        return 2
    if not documents:
        print("mtrec: standard input is empty; did kubectl kustomize fail?", file=sys.stderr)
        return 2
    found = problems(documents, prod=prod)
    for line in dict.fromkeys(found):
        print(f"mtrec: {line}", file=sys.stderr)
    if found:
        return 1
    print(f"{len(documents)} documents, nothing wrong")
    for name, keys in sorted(wanted_secrets(documents).items()):
        print(f"yours to make: Secret {name} with {', '.join(sorted(filter(None, keys)))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
