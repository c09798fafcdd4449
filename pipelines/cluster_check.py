"""What a cluster lacks for mtrec's pipelines: one line per thing, with why it is needed and how to mend it.

Everything is asked of the Kubernetes API with the caller's own rights; nothing is changed, and of secrets only
the names of their keys are used. What the caller may not look at is unknown, not wrong.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mtrec.errors import RunError
from mtrec.kube import answering, reason, request
from mtrec.training.nodes import LOCAL
from pipelines.cluster_config import COMPONENTS, TRAINER, Cluster, Step
from pipelines.server_versions import FULL, MINIMUM, SETS_USER, parse_version, version_text

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Verdict = Literal["ok", "warning", "missing", "unknown"]
_KUBERNETES, _KFP, _TRAINER = (1, 29), (2, 14), (2, 3)
_ALLOWED, _DEFAULT_ACCOUNT = "ALLOWEDSERVICEACCOUNTS", "DEFAULTPIPELINERUNNERSERVICEACCOUNT"
"""Variables of Kubeflow Pipelines' server."""
_ANY_ACCOUNT = (2, 17, 0)
"""The newest version that gives runs any account."""
_LOGINS, _LOGINS_TYPE = ".dockerconfigjson", "kubernetes.io/dockerconfigjson"
"""Key and type of a secret with logins of registries."""
_MANIFESTS = "kubectl apply -k makes it, of k8s/overlays/dev or of your own overlay"
_KFP_GUIDE = "install Kubeflow Pipelines 2.14 or newer"
_TRAINER_GUIDE = "install Kubeflow Trainer 2.3 or newer"
_DEFINITIONS = ("workflows.argoproj.io", "scheduledworkflows.kubeflow.org")
_TRAINER_DEFINITIONS = ("trainjobs.trainer.kubeflow.org", "trainingruntimes.trainer.kubeflow.org")


@dataclass(frozen=True)
class Line:
    """One finding."""

    verdict: Verdict
    what: str
    why: str
    """What was found and, where that is not as it should be, what comes of it."""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a cluster is expected to have; the defaults are the names in k8s/."""

    namespace: str = "mtrec"
    """Where runs are."""
    kfp_namespace: str = "kubeflow"
    accounts: Mapping[str, str] = field(
        default_factory=lambda: {
            "mtrec-trainer": "trainer",
            "mtrec-approver": "approver",
            "mtrec-scheduler": "",
            "mtrec-node": "",
        }
    )
    """Service account → whose rights it should have, a key of `_RIGHTS`; empty: they are not looked at. An account
    without a name is the one that Kubeflow Pipelines gives runs by itself."""
    service_account: str = "mtrec-trainer"
    """That runs are given by its name. Empty: the server's own."""
    run_as_user: int | None = None
    """That the cluster file gives pods."""
    secrets: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {
            "mtrec-mlflow": ("username", "password"),
            "mtrec-object-store": ("access-key", "secret-key"),
            "mtrec-studies": ("url",),
        }
    )
    config_maps: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"mtrec-env": ("MLFLOW_TRACKING_URI", "DVC_NO_ANALYTICS", "DO_NOT_TRACK")}
    )
    claims: Sequence[str] = ("mtrec-work",)
    runtime: str = "mtrec-torch"
    mlflow: str = "mlflow/mlflow:5000"
    """Namespace, service and port."""
    nodes: int = 1
    """Of one training."""
    gpus: int = 0
    """Of each node."""
    processes: int = 1
    """Of each node, where so many are asked for."""
    gpu_type: str = "nvidia.com/gpu"
    tolerated: Sequence[str] = ()
    """Keys of taints that training puts up with; an empty one means any."""
    training: Step = field(default_factory=Step)
    """What a cluster file gives training beside that."""
    search: Step = field(default_factory=Step)
    """What a cluster file gives a worker of a search."""
    images: Sequence[str] = ()
    """Images of the steps, where a cluster file names them."""


def wanted_by(cluster: Cluster) -> Wanted:
    """What a cluster's configuration names; for the rest the names in k8s/."""
    standard = Wanted()
    secrets: dict[str, set[str]] = {}
    config_maps: dict[str, set[str]] = {}
    for component in COMPONENTS:
        step = cluster.step(component)
        for given, found in ((step.secrets, secrets), (step.config_maps, config_maps)):
            for name, keys in given.items():
                found.setdefault(name, set()).update(keys)
    for name in cluster.image_pull_secrets:
        secrets.setdefault(name, set()).add(_LOGINS)
    node = cluster.step(TRAINER)
    others = {name: role for name, role in standard.accounts.items() if role != "trainer"}
    return Wanted(
        namespace=cluster.namespace,
        accounts={cluster.service_account: "trainer", **others},
        service_account=cluster.service_account,
        run_as_user=cluster.run_as_user,
        secrets={name: sorted(keys) for name, keys in secrets.items()},
        config_maps={name: sorted(keys) for name, keys in config_maps.items()},
        claims=[cluster.storage.claim] if cluster.storage else [],
        runtime=cluster.train_job.runtime,
        nodes=cluster.train_job.nodes,
        gpus=node.gpus or 0,
        processes=cluster.train_job.processes_per_node or 1,
        gpu_type=node.gpu_type or standard.gpu_type,
        tolerated=_tolerated(node),
        training=node,
        search=cluster.step("search_settings"),
        images=sorted({cluster.step(name).image or cluster.image for name in COMPONENTS}),
    )


def _tolerated(step: Step) -> list[str]:
    """See `Wanted.tolerated`."""
    return [toleration.key or "" for toleration in step.tolerations]


@dataclass(frozen=True)
class _Cluster:
    """What the checks ask; a path that is not there gives None."""

    client: ApiClient
    wanted: Wanted

    def get(self, path: str) -> Any:
        from kubernetes.client import ApiException

        try:
            with answering(path.rpartition("/")[2]):
                return request(self.client, "GET", path)[0]
        except ApiException as error:
            if error.status == 404:
                return None
            raise RunError(reason(error)) from error

    def own(self, resource: str, name: str, namespace: str | None = None) -> Any:
        return self.get(f"/api/v1/namespaces/{namespace or self.wanted.namespace}/{resource}/{name}")

    def definition(self, name: str) -> Any:
        return self.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")

    def through(self, namespace: str, service: str, port: str, path: str) -> str:
        """What a service answers through the API server."""
        answer = request(
            self.client, "GET", f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy/{path}"
        )
        return answer[0] if isinstance(answer[0], str) else json.dumps(answer[0])

    def may(self, verb: str, resource: str, group: str = "", *, account: str = "", name: str = "") -> bool:
        """Whether the caller, or a service account, has a right in the namespace of the runs."""
        kind, _, rest = resource.partition("/")
        asked = {"namespace": self.wanted.namespace, "verb": verb, "group": group, "resource": kind, "name": name}
        spec: dict[str, Any] = {"resourceAttributes": {**asked, "subresource": rest}}
        if account:
            spec["user"] = f"system:serviceaccount:{self.wanted.namespace}:{account}"
        review = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": review, "metadata": {}, "spec": spec}
        with answering(f"rights of {account or 'yours'}"):
            answer, _ = request(self.client, "POST", f"/apis/authorization.k8s.io/v1/{review.lower()}s", body)
        return bool(answer["status"].get("allowed"))


def check_cluster(client: ApiClient, wanted: Wanted) -> Iterator[Line]:
    """Every finding, in the order in which a cluster is set up; after an API server that is away nothing more.

    Args:
        client: with the rights to look with.
        wanted: what is expected.
    """
    cluster = _Cluster(client, wanted)
    first = _asked(_api_server, "Kubernetes API server", cluster)
    for line in first:
        yield line
        if line.verdict in ("missing", "unknown"):
            return
    for what, check in _CHECKS.items():
        yield from _asked(check, what, cluster)


def _asked(check: Callable[[_Cluster], Iterator[Line]], what: str, cluster: _Cluster) -> Iterator[Line]:
    """The findings of a check, with what may not be looked at as unknown."""
    try:
        yield from check(cluster)
    except RunError as error:
        yield Line("unknown", what, str(error), "ask somebody with the rights to look, or have them given to you")


def _api_server(cluster: _Cluster) -> Iterator[Line]:
    what = "Kubernetes API server"
    host = cluster.client.configuration.host
    try:
        found = cluster.get("/version")
    except RunError as error:
        yield Line("missing", what, f"{host}: {error}", "check the kubeconfig, its context, and your network")
        return
    version = found["gitVersion"]
    if (parse_version(version) or _KUBERNETES) >= _KUBERNETES:
        yield Line("ok", what, f"{version} at {host}")
    else:
        yield Line(
            "warning",
            what,
            f"{version}: mtrec's manifests are checked from {version_text(_KUBERNETES)} on",
            "upgrade",
        )


def _namespace(cluster: _Cluster) -> Iterator[Line]:
    name = cluster.wanted.namespace
    what = f"namespace {name}"
    found = cluster.get(f"/api/v1/namespaces/{name}")
    if found is None:
        yield Line("missing", what, "runs have no place", _MANIFESTS)
        return
    yield Line("ok", what, "there")
    level = (found["metadata"].get("labels") or {}).get("pod-security.kubernetes.io/enforce")
    what = f"Pod Security of {name}"
    if level == "restricted":
        yield Line("ok", what, "enforces restricted")
    elif name == cluster.wanted.kfp_namespace:
        yield Line("ok", what, f"enforces {level or 'nothing'}: restricted would refuse KFP's own pods in it")
    else:
        why = f"enforces {level or 'nothing'}: a pod with more rights than mtrec's need could run beside them"
        label = f"kubectl label namespace {name} --overwrite pod-security.kubernetes.io"
        fix = f"{label}/warn=restricted; once a run was warned of no pod of yours, {label}/enforce=restricted"
        yield Line("warning", what, why, fix)


def _kfp(cluster: _Cluster) -> Iterator[Line]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    namespace = cluster.wanted.kfp_namespace
    what = f"Kubeflow Pipelines in {namespace}"
    if cluster.own("services", "ml-pipeline", namespace) is None:
        yield Line("missing", what, "there is no service ml-pipeline", f"{_KFP_GUIDE}, or give --kfp-namespace")
        return
    try:
        health = _health(cluster)
    except (ApiException, HTTPError) as error:
        yield _unreached(what, error, f"kubectl -n {namespace} get pods -l app=ml-pipeline")
        return
    tag, multi_user = str(health.get("tag_name") or ""), bool(health.get("multi_user"))
    version = parse_version(tag)
    if version is None:
        yield Line("unknown", what, f"it answers, with version '{tag}'", "nothing to do if it is 2.14 or newer")
    elif version < _KFP:
        yield Line(
            "missing", what, f"version {tag} is older than {version_text(_KFP)}, which mtrec needs", "upgrade it"
        )
    else:
        yield Line("ok", what, f"version {tag} answers")
    if cluster.wanted.run_as_user is not None and (version or MINIMUM) < FULL:
        why = f"the pipeline needs Kubeflow Pipelines {version_text(FULL)}: {SETS_USER}"
        yield Line("missing", f"runs as user {cluster.wanted.run_as_user}", why, "do that, or upgrade the server")
    if health and not multi_user and cluster.wanted.namespace != namespace:
        why = f"it is for a single user, and runs pods in {namespace} only, not in {cluster.wanted.namespace}"
        fix = (
            f"set namespace: {namespace} in the cluster file and use an overlay for it, as k8s/overlays/dev is, "
            "or install Kubeflow Pipelines for many users"
        )
        yield Line("missing", "namespace of the pods", why, fix)
    account = cluster.wanted.service_account
    if account:
        what = f"runs as {account}"
        yield from _asked(partial(_run_as, account=account, tag=tag, multi_user=multi_user), what, cluster)


def _run_as(cluster: _Cluster, account: str, tag: str, multi_user: bool) -> Iterator[Line]:
    """Whether the server lets runs have the account: newer ones ask for a list, and for a right of the caller."""
    what, namespace, env = f"runs as {account}", cluster.wanted.kfp_namespace, _server_env(cluster)
    if account == _servers_account(env, multi_user):
        return
    version = re.match(r"v?(\d+)\.(\d+)\.(\d+)", tag)
    old = version is not None and tuple(map(int, version.groups())) <= _ANY_ACCOUNT
    said = "servers from autumn 2026 on refuse runs with"
    fix = f"add {account} to {_ALLOWED}, a list with commas, of deployment ml-pipeline in {namespace}"
    allowed = env.get(_ALLOWED)
    if _ALLOWED in env and allowed is None:
        yield Line("unknown", what, f"{_ALLOWED} of ml-pipeline is kept elsewhere", f"see that {account} is in it")
    elif allowed is not None and account not in re.split(r"[\s,]+", allowed):
        yield Line("missing", what, f"{_ALLOWED} of ml-pipeline is without it: runs with it are refused", fix)
    elif allowed is None and not old:
        yield Line("warning", what, f"{said} an account that is not in {_ALLOWED}, and ml-pipeline has none", fix)
    elif allowed is not None:
        yield Line("ok", what, f"{_ALLOWED} of ml-pipeline has it")
    if multi_user and not cluster.may("use", "serviceaccounts", name=account):
        why = f"{said} an account that the caller may not use, and you may not"
        fix = f"have the right to use serviceaccounts {account} given to those who start runs"
        yield Line("warning" if old or version is None else "missing", what, why, fix)


def _health(cluster: _Cluster) -> dict[str, Any]:
    """What Kubeflow Pipelines says of itself."""
    return _json(cluster.through(cluster.wanted.kfp_namespace, "ml-pipeline", "8888", "apis/v2beta1/healthz"))


def _server_env(cluster: _Cluster) -> dict[str, Any]:
    """Variables of Kubeflow Pipelines' server; None for a value that is kept elsewhere."""
    path = f"/apis/apps/v1/namespaces/{cluster.wanted.kfp_namespace}/deployments/ml-pipeline"
    found = cluster.get(path) or {}
    containers = found.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    return {one["name"]: one.get("value") for container in containers for one in container.get("env") or []}


def _servers_account(env: Mapping[str, Any], multi_user: bool) -> str:
    """The account that the server gives runs which name none."""
    return env.get(_DEFAULT_ACCOUNT) or ("default-editor" if multi_user else "pipeline-runner")


def _named_accounts(cluster: _Cluster) -> dict[str, str]:
    """`Wanted.accounts`, each with its name."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    accounts = dict(cluster.wanted.accounts)
    if "" in accounts:
        role, multi_user, env = accounts.pop(""), cluster.wanted.namespace != cluster.wanted.kfp_namespace, {}
        with suppress(ApiException, HTTPError):  # the check of Kubeflow Pipelines tells them
            multi_user = bool(_health(cluster).get("multi_user"))
        with suppress(RunError):  # not everybody may look at deployments there
            env = _server_env(cluster)
        accounts = {_servers_account(env, multi_user): role, **accounts}
    return accounts


def _definitions(cluster: _Cluster) -> Iterator[Line]:
    for name in _DEFINITIONS:
        if cluster.definition(name) is None:
            yield Line("missing", f"resource {name}", "runs and schedules are of this kind", _KFP_GUIDE)
        else:
            yield Line("ok", f"resource {name}", "defined")


def _retries(cluster: _Cluster) -> Iterator[Line]:
    import yaml

    what, name = "retries after lost pods", "workflow-controller-configmap"
    wanted = "spec.templateDefaults.retryStrategy: {limit: 0, retryPolicy: Always}"
    found = cluster.own("configmaps", name, cluster.wanted.kfp_namespace)
    try:
        defaults = yaml.safe_load(((found or {}).get("data") or {}).get("workflowDefaults") or "") or {}
    except yaml.YAMLError as error:
        raise RunError(f"workflowDefaults of {name} cannot be read: {' '.join(str(error).split())}") from error
    strategy = ((defaults.get("spec") or {}).get("templateDefaults") or {}).get("retryStrategy") or {}
    policy, limit = strategy.get("retryPolicy"), strategy.get("limit")
    if policy == "Always" and str(limit) == "0":
        yield Line("ok", what, f"workflowDefaults of {name} has retryPolicy Always")
        return
    why = "a step whose pod is evicted or whose node is lost is not tried again; KFP asks for failed steps only"
    if policy == "OnError":
        why = "retryPolicy OnError: a step that fails, as for want of memory, is not tried again"
    elif policy == "Always":  # Argo gives its defaults to what holds steps together too
        often = "without end" if limit is None else f"{limit} times more"
        why = f"retryPolicy Always with limit {limit}: a run that fails is begun again as a whole, {often}"
    fix = f"set {wanted} in workflowDefaults of {name}; KFP's own limit and waits of each step stay"
    yield Line("warning", what, why.replace("limit None", "no limit"), fix)


def _trainer(cluster: _Cluster) -> Iterator[Line]:
    if cluster.wanted.runtime == LOCAL:
        return
    wanted = cluster.wanted
    needed: Verdict = "missing" if _elsewhere(wanted) else "warning"
    for name in _TRAINER_DEFINITIONS:
        if cluster.definition(name) is None:
            why = "training on several nodes, GPUs or processes starts one; elsewhere it is not needed"
            yield Line(needed, f"resource {name}", why, _TRAINER_GUIDE)
            return
        yield Line("ok", f"resource {name}", "defined")
    public = cluster.own("configmaps", "kubeflow-trainer-public", "kubeflow-system")
    tag = str(((public or {}).get("data") or {}).get("kubeflow_trainer_version") or "")
    version = parse_version(tag)
    if version is None:
        fix = "look at the image of the controller; 2.3 or newer is needed"
        yield Line("unknown", "Kubeflow Trainer", "it does not tell its version", fix)
    elif version < _TRAINER:
        why = f"version {tag}: TrainJobs are written for {version_text(_TRAINER)} and newer"
        yield Line(needed, "Kubeflow Trainer", why, "upgrade it")
    else:
        yield Line("ok", "Kubeflow Trainer", f"version {tag}")
    yield _runtime(cluster, needed)


def _the_runtime(cluster: _Cluster) -> Any:
    name, namespace = cluster.wanted.runtime, cluster.wanted.namespace
    return cluster.get(f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainingruntimes/{name}")


def _runtime(cluster: _Cluster, needed: Verdict) -> Line:
    name, namespace = cluster.wanted.runtime, cluster.wanted.namespace
    found = _the_runtime(cluster)
    what, label = f"training runtime {name}", "trainer.kubeflow.org/framework"
    if found is None:
        return Line(needed, what, f"not in {namespace}, whose TrainJobs refer to it", _MANIFESTS)
    if label not in (found["metadata"].get("labels") or {}):
        fix = f"kubectl -n {namespace} label trainingruntime {name} {label}=torch"
        return Line(needed, what, f"it has no label {label}, without which the SDK refuses it", fix)
    return Line("ok", what, "there, and labelled")


def _accounts(cluster: _Cluster) -> Iterator[Line]:
    for name in _named_accounts(cluster):
        if cluster.own("serviceaccounts", name) is None:
            ours = name in Wanted().accounts
            fix = _MANIFESTS if ours else "it is not made by mtrec's manifests: make it, or name another"
            yield Line("missing", f"service account {name}", "pods that use it are refused", fix)
        else:
            yield Line("ok", f"service account {name}", "there")


_RIGHTS: Mapping[str, Sequence[tuple[str, str, str, str]]] = {
    "": [
        ("list", "pods", "", "mtrec runs show tells the reason of a failure by them"),
        ("get", "pods/log", "", "the reason of a failure stands there"),
        ("create", "leases", "coordination.k8s.io", "mtrec models approve holds a lease"),
        ("get", "leases", "coordination.k8s.io", "mtrec models approve holds a lease"),
        ("update", "leases", "coordination.k8s.io", "mtrec models approve holds a lease"),
    ],
    "trainer": [
        ("create", "leases", "coordination.k8s.io", "one training of a scenario runs at a time"),
        ("get", "leases", "coordination.k8s.io", "one training of a scenario runs at a time"),
        ("list", "leases", "coordination.k8s.io", "deletion waits for trainings"),
        ("update", "leases", "coordination.k8s.io", "leases are renewed"),
    ],
    "trainjobs": [
        ("create", "trainjobs", "trainer.kubeflow.org", "training on several nodes starts one"),
        ("get", "trainjobs", "trainer.kubeflow.org", "training on several nodes follows it"),
        ("list", "trainjobs", "trainer.kubeflow.org", "what a killed step has left running is looked for"),
        ("delete", "trainjobs", "trainer.kubeflow.org", "what a failed training leaves holds its GPUs"),
        ("get", "trainingruntimes", "trainer.kubeflow.org", "training on several nodes is made from one"),
        ("list", "pods", "", "why a training on several nodes waits or fails stands there"),
        ("get", "pods/log", "", "the log of a training on several nodes is handed on"),
        ("list", "events", "", "why a training on several nodes fails stands there"),
    ],
    "approver": [
        ("create", "leases", "coordination.k8s.io", "one decides about a champion at a time"),
        ("get", "leases", "coordination.k8s.io", "one decides about a champion at a time"),
        ("update", "leases", "coordination.k8s.io", "leases are renewed"),
    ],
}  # fmt: skip
_TOO_MUCH = [
    ("delete", "leases", "coordination.k8s.io", "a lease that is made again counts its fencing tokens anew"),
    ("list", "secrets", "", "a step of a run could read every secret of the namespace"),
    ("create", "pods/exec", "", "a step of a run could enter another's pod"),
]
_RIGHTS_FIX = "compare k8s/base/runs/rights.yaml with the roles bound there"


def _rights(cluster: _Cluster) -> Iterator[Line]:
    yield from _asked(partial(_granted, role="", account=""), "your rights", cluster)
    for account, role in _named_accounts(cluster).items():
        if role:
            yield from _asked(partial(_granted, role=role, account=account), f"rights of {account}", cluster)


def _granted(cluster: _Cluster, role: str, account: str) -> Iterator[Line]:
    whose = f"rights of {account}" if account else "your rights"
    needed = list(_RIGHTS[role])
    if role == "trainer" and cluster.wanted.runtime != LOCAL:
        needed += _RIGHTS["trainjobs"]
    denied = [r for r in needed if not cluster.may(r[0], r[1], r[2], account=account)]
    for verb, resource, _, why in denied:
        yield Line("missing", whose, f"may not {verb} {resource}: {why}", _RIGHTS_FIX)
    if not denied:
        yield Line("ok", whose, f"all {len(needed)} that are needed")
    if account and role == "trainer":
        for verb, resource, group, why in _TOO_MUCH:
            if cluster.may(verb, resource, group, account=account):
                yield Line("warning", whose, f"may {verb} {resource}: {why}", f"take it away; {_RIGHTS_FIX}")


def _secrets(cluster: _Cluster) -> Iterator[Line]:
    wanted = cluster.wanted
    for kind, named in (("secret", wanted.secrets), ("configmap", wanted.config_maps)):
        for name, keys in named.items():
            yield from _asked(partial(_keys, kind=kind, name=name, keys=keys), f"{kind} {name}", cluster)


def _keys(cluster: _Cluster, kind: str, name: str, keys: Sequence[str]) -> Iterator[Line]:
    """A secret or a ConfigMap with the keys that pods refer to."""
    what, namespace = f"{kind} {name}", cluster.wanted.namespace
    found = cluster.own(f"{kind}s", name)
    lacking = [key for key in keys if key not in ((found or {}).get("data") or {})]
    logins = kind == "secret" and _LOGINS in keys
    why = "images of its registry are not pulled" if logins else "pods that refer to it do not start"
    generic = "secret generic" if kind == "secret" else kind
    given = " ".join(
        [*([f"--type={_LOGINS_TYPE}"] if logins else []), *(f"--from-file={key}=FILE" for key in keys)]
    )
    make = f"kubectl -n {namespace} create {generic} {name} {given}"
    ours = kind == "configmap" and name in Wanted().config_maps
    if found is None:
        yield Line("missing", what, why, _MANIFESTS if ours else make)
    elif logins and found.get("type") != _LOGINS_TYPE:
        why = f"is of type {found.get('type')}, not {_LOGINS_TYPE}, and passed over: {why}"
        fix = f"a type cannot be changed: kubectl -n {namespace} delete secret {name} && {make}"
        yield Line("missing", what, why, fix)
    elif lacking:
        fix = _MANIFESTS if ours else f"kubectl -n {namespace} edit {kind} {name}"
        yield Line("missing", what, f"lacks {', '.join(lacking)}: {why}", fix)
    else:
        yield Line("ok", what, f"has {', '.join(keys)}")


def _claims(cluster: _Cluster) -> Iterator[Line]:
    for name in cluster.wanted.claims:
        yield _claim(cluster, name)


def _claim(cluster: _Cluster, name: str) -> Line:
    what, found = f"claim {name}", cluster.own("persistentvolumeclaims", name)
    if found is None:
        return Line("missing", what, "data drops, DVC's repository and checkpoints have no place", _MANIFESTS)
    status, spec = found.get("status") or {}, found.get("spec") or {}
    modes, size = spec.get("accessModes") or [], (status.get("capacity") or {}).get("storage")
    if status.get("phase") != "Bound":
        why = (
            f"{status.get('phase', 'not bound')}; a class that binds with the first pod stays so until a run starts"
        )
        return Line("warning", what, why, f"kubectl -n {cluster.wanted.namespace} describe pvc {name}")
    if "ReadWriteMany" in modes:
        return Line("ok", what, f"bound, {size}, ReadWriteMany")
    why = f"bound, {size}, {', '.join(modes)}: only one node can mount it"
    if cluster.wanted.nodes > 1:
        return Line(
            "missing", what, f"{why}, and training is on {cluster.wanted.nodes}", "use a ReadWriteMany class"
        )
    return Line("warning", what, f"{why}, so all steps go to that node", "use a storage class with ReadWriteMany")


def _gpus(cluster: _Cluster) -> Iterator[Line]:
    """Nodes for training and, where it asks for GPUs too, for a worker of a search."""
    wanted = cluster.wanted
    training, search = wanted.training, wanted.search
    if wanted.gpus:
        asked = _Demand(wanted.gpus, wanted.gpu_type, training.cpu, training.memory, training.node_selector)
        place = "the cluster file"
        if _elsewhere(wanted):  # limits are what its nodes ask for, and the rest is the runtime's
            selector = _node_selector(cluster)
            asked = _Demand(wanted.gpus, wanted.gpu_type, training.cpu_limit, training.memory_limit, selector)
            place = f"training runtime {wanted.runtime}"
        yield from _fitting(cluster, asked, wanted.nodes, wanted.tolerated, place)
    if search.gpus:
        gpu_type = search.gpu_type or Wanted().gpu_type
        asked = _Demand(search.gpus, gpu_type, search.cpu, search.memory, search.node_selector)
        yield from _fitting(cluster, asked, 1, _tolerated(search), "the cluster file", " for search_settings")


def _elsewhere(wanted: Wanted) -> bool:
    """Whether training runs outside of the pod of its step."""
    return wanted.runtime != LOCAL and max(wanted.nodes, wanted.gpus, wanted.processes) > 1


def _node_selector(cluster: _Cluster) -> dict[str, str]:
    """That of the pods of the training runtime; empty where there is none, which another check tells."""
    with suppress(RunError):
        found = _the_runtime(cluster) or {}
        for job in found.get("spec", {}).get("template", {}).get("spec", {}).get("replicatedJobs") or []:
            pod = job["template"]["spec"]["template"]["spec"]
            if pod.get("nodeSelector"):
                return dict(pod["nodeSelector"])
    return {}


@dataclass(frozen=True)
class _Demand:
    """What a pod asks of its node."""

    gpus: int
    gpu_type: str
    cpu: str | None
    memory: str | None
    node_selector: Mapping[str, str]

    def lacking(self, node: Mapping[str, Any]) -> list[str]:
        """Why a node cannot run it, in words that stand for all nodes with the same lack."""
        from kubernetes.utils.quantity import parse_quantity

        labels, found = node["metadata"].get("labels") or {}, []
        if (node.get("spec") or {}).get("unschedulable"):
            found.append("cordoned")
        if wrong := [f"{key}={value}" for key, value in self.node_selector.items() if labels.get(key) != value]:
            found.append(f"without label {', '.join(wrong)}")
        for resource, amount in (("cpu", self.cpu), ("memory", self.memory)):
            if amount and parse_quantity(_allocatable(node, resource)) < parse_quantity(amount):
                found.append(f"with less {resource} than {amount}")
        return found


def _fitting(
    cluster: _Cluster, asked: _Demand, needed: int, tolerated: Sequence[str], place: str, whose: str = ""
) -> Iterator[Line]:
    """Whether there are nodes that can run so many pods, and who keeps pods off them."""
    what = f"{asked.gpus} × {asked.gpu_type}{whose}"
    nodes = cluster.get("/api/v1/nodes")["items"]
    enough = [node for node in nodes if _number(node, asked.gpu_type) >= asked.gpus]
    if len(enough) < needed:
        most = max((_number(node, asked.gpu_type) for node in nodes), default=0)
        why = f"{len(enough)} of {len(nodes)} nodes have so many, {needed} needed; the most on one is {most}"
        fewer = "in the cluster file" if whose else "with --gpus"
        yield Line("missing", what, why, f"add GPU nodes and their device plugin, or ask for fewer {fewer}")
        return
    lacks = [asked.lacking(node) for node in enough]
    fitting = [node for node, lack in zip(enough, lacks, strict=True) if not lack]
    if len(fitting) < needed:
        counted = Counter(reason for lack in lacks for reason in lack)
        told = "; ".join(f"{number} {reason}" for reason, number in counted.items())
        why = f"{len(fitting)} of {len(enough)} nodes with so many can run it, {needed} needed: {told}"
        fix = f"label or uncordon nodes, or change what {place} asks for"
        yield Line("missing", what, why, fix)
        return
    yield Line("ok", what, f"{len(fitting)} nodes")
    taints = {
        taint["key"]
        for node in fitting
        for taint in (node.get("spec") or {}).get("taints") or []
        if taint.get("effect") in ("NoSchedule", "NoExecute")
    } - {asked.gpu_type, *tolerated}
    if taints and "" not in tolerated:
        fix = "give tolerations for them in the cluster configuration and the training runtime"
        yield Line("warning", f"taints of nodes with {asked.gpu_type}{whose}", ", ".join(sorted(taints)), fix)


def _images(cluster: _Cluster) -> Iterator[Line]:
    for name in cluster.wanted.images:
        if "@sha256:" in name:
            yield Line("ok", f"image {name}", "by digest")
        else:
            why = "another can take its name: a schedule would run it unseen, and KFP's cache would not notice"
            yield Line(
                "warning", f"image {name}", why, "name it by digest in the cluster file; make images prints it"
            )


def _lease(cluster: _Cluster) -> Iterator[Line]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    namespace, what = cluster.wanted.namespace, "Lease objects"
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "mtrec cluster check", "leaseDurationSeconds": 60, "renewTime": stamp}
    meta = {"name": "mtrec-check", "namespace": namespace}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    try:
        _, headers = request(cluster.client, "POST", path, body, [("dryRun", "All")])
    except (ApiException, HTTPError) as error:
        yield Line("missing", what, f"a trial was refused: {reason(error)}", _RIGHTS_FIX)
        return
    if headers.get("Date"):
        yield Line("ok", what, "a trial creation was accepted, and nothing kept")
    else:
        why = "answers come without a Date, by which leases expire"
        yield Line("missing", what, why, "let no proxy before the API server remove the header")


def _mlflow(cluster: _Cluster) -> Iterator[Line]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    namespace, _, rest = cluster.wanted.mlflow.partition("/")
    service, _, port = rest.partition(":")
    what = f"MLflow at {service}.{namespace}"
    if cluster.own("services", service, namespace) is None:
        yield Line(
            "missing", what, f"there is no service {service} in {namespace}", f"{_MANIFESTS}, or give --mlflow"
        )
        return
    try:
        cluster.through(namespace, service, port, "health")
    except (ApiException, HTTPError) as error:
        yield _unreached(what, error, f"kubectl -n {namespace} get pods")
        return
    yield Line("ok", what, "answers")
    config = cluster.own("configmaps", "mlflow-server", namespace)
    hosts = ((config or {}).get("data") or {}).get("MLFLOW_SERVER_ALLOWED_HOSTS", "")
    name = f"{service}.{namespace}.svc.cluster.local:{port}"
    if hosts and name not in hosts.split(",") and "*" not in hosts.split(","):
        why = f"{name} is not among MLFLOW_SERVER_ALLOWED_HOSTS of mlflow-server: runs that call it so get 403"
        yield Line("missing", "MLflow's allowed hosts", why, f"add {name} there, and start MLflow anew")


def _unreached(what: str, error: Exception, fix: str) -> Line:
    """A service that the API server did not hand an answer of: not asked, or asked in vain."""
    own = _json(getattr(error, "body", None) or "").get("kind") == "Status"
    if own and getattr(error, "status", None) == 403:
        return Line("unknown", what, reason(error), "have the right to get services/proxy given to you")
    return Line("missing", what, f"it does not answer: {reason(error)}", fix)


_CHECKS: Mapping[str, Callable[[_Cluster], Iterator[Line]]] = {
    "namespace": _namespace,
    "Kubeflow Pipelines": _kfp,
    "resources of Kubeflow Pipelines": _definitions,
    "retries after lost pods": _retries,
    "Kubeflow Trainer": _trainer,
    "service accounts": _accounts,
    "rights": _rights,
    "secrets": _secrets,
    "claims": _claims,
    "GPU nodes": _gpus,
    "images": _images,
    "Lease objects": _lease,
    "MLflow": _mlflow,
}


def _number(node: Mapping[str, Any], resource: str) -> int:
    return int(_allocatable(node, resource))


def _allocatable(node: Mapping[str, Any], resource: str) -> str:
    return str(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0"))


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
