"""What a cluster lacks is told line by line, by a check that only looks."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrec import kube
from pipelines.cli import main
from pipelines.cluster_check import Line, Wanted, check_cluster, wanted_by
from pipelines.cluster_config import load_cluster
from tests import kube_server
from tests.kube_server import KubeServer

DEFINITIONS = (
    "workflows.argoproj.io",
    "scheduledworkflows.kubeflow.org",
    "trainjobs.trainer.kubeflow.org",
    "trainingruntimes.trainer.kubeflow.org",
    "clustertrainingruntimes.trainer.kubeflow.org",
)
PASSWORD = base64.b64encode(b"a password").decode()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeServer]:
    """A cluster that has everything."""
    with kube_server.cluster(tmp_path, monkeypatch) as server:
        furnish(server)
        yield server


def health(tag: str = "2.17.0", *, multi_user: bool = True) -> tuple[int, str]:
    """What Kubeflow Pipelines says of itself."""
    return 200, json.dumps({"tag_name": tag, "multi_user": multi_user})


def furnish(server: KubeServer) -> None:
    for namespace in ("kubeflow", "kubeflow-system", "mlflow"):
        server.add("namespaces", namespace)
    server.add("namespaces", "mtrec", metadata={"labels": {"pod-security.kubernetes.io/enforce": "restricted"}})
    for name in DEFINITIONS:
        server.add("customresourcedefinitions", name)
    server.add("services", "ml-pipeline", "kubeflow")
    server.proxied["kubeflow", "ml-pipeline"] = health()
    defaults = "spec:\n  templateDefaults:\n    retryStrategy: {limit: 0, retryPolicy: Always}\n"
    server.add("configmaps", "workflow-controller-configmap", "kubeflow", data={"workflowDefaults": defaults})
    trainer = {"kubeflow_trainer_version": "v2.3.1"}
    server.add("configmaps", "kubeflow-trainer-public", "kubeflow-system", data=trainer)
    labels = {"trainer.kubeflow.org/framework": "torch"}
    server.add("trainingruntimes", "mtrec-torch", "mtrec", metadata={"labels": labels})
    for name in Wanted().accounts:
        server.add("serviceaccounts", name, "mtrec")
    for name, keys in Wanted().secrets.items():
        server.add("secrets", name, "mtrec", data=dict.fromkeys(keys, PASSWORD))
    for name, keys in Wanted().config_maps.items():
        server.add("configmaps", name, "mtrec", data=dict.fromkeys(keys, "1"))
    bound = {"phase": "Bound", "capacity": {"storage": "100Gi"}}
    server.add(
        "persistentvolumeclaims", "mtrec-work", "mtrec", spec={"accessModes": ["ReadWriteMany"]}, status=bound
    )
    for number in range(2):
        taints = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
        allocatable = {"cpu": "7910m", "memory": "64Gi", "nvidia.com/gpu": "4"}
        metadata = {"labels": {"nvidia.com/gpu.present": "true"}}
        status = {"allocatable": allocatable}
        server.add("nodes", f"node-{number}", metadata=metadata, spec={"taints": taints}, status=status)
    server.add("services", "mlflow", "mlflow")
    server.proxied["mlflow", "mlflow"] = (200, "OK")
    hosts = "mlflow.mlflow:5000,mlflow.mlflow.svc.cluster.local:5000"
    server.add("configmaps", "mlflow-server", "mlflow", data={"MLFLOW_SERVER_ALLOWED_HOSTS": hosts})
    server.forbidden |= {("delete", "leases"), ("list", "secrets"), ("create", "pods/exec")}


def lines(**wanted: Any) -> list[Line]:
    return list(check_cluster(kube.api_client(), Wanted(**wanted)))


def wrong(**wanted: Any) -> list[Line]:
    return [line for line in lines(**wanted) if line.verdict != "ok"]


def only(**wanted: Any) -> Line:
    (line,) = wrong(**wanted)
    return line


def test_a_whole_cluster_lacks_nothing_and_is_not_changed(
    server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(server.objects)
    main_code(["cluster", "check", "--nodes", "2", "--gpus", "4"], 0)
    said = capsys.readouterr().out
    assert all(line.startswith("ok ") for line in said.splitlines()[:-1]), said
    assert said.endswith(" ok, 0 warning, 0 missing, 0 unknown\n")
    assert server.objects == before
    assert {r.method for r in server.seen} == {"GET", "POST"}
    kept = [r for r in server.seen if r.method == "POST" and "accessreviews" not in r.path]
    assert [(r.resource, r.query) for r in kept] == [("leases", {"dryRun": "All"})]


def main_code(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert (left.value.code or 0) == code


def test_an_empty_cluster_is_told_all_of_it_at_once(server: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.objects.clear()
    main_code(["cluster", "check", "--nodes", "2", "--gpus", "4"], 1)
    said = capsys.readouterr()
    missing = [
        line.removeprefix("missing ").strip() for line in said.out.splitlines() if line.startswith("missing")
    ]
    for what in (
        "namespace mtrec:", "Kubeflow Pipelines in kubeflow:", "resource workflows.argoproj.io:",
        "resource trainjobs.trainer.kubeflow.org:", "service account mtrec-trainer:", "secret mtrec-mlflow:",
        "claim mtrec-work:", "4 × nvidia.com/gpu:", "Lease objects:", "MLflow at mlflow.mlflow:",
    ):  # fmt: skip
        assert sum(line.startswith(what) for line in missing) == 1, (what, said.out)
    assert all("; to mend it: " in line for line in missing)
    assert said.err.startswith("mtrec: the cluster lacks what runs need (")
    assert len(said.err.splitlines()) == 1


def test_values_of_secrets_are_told_to_nobody(server: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.change("secrets", "mtrec-object-store", "mtrec", data={"secret-key": None})
    main_code(["cluster", "check"], 1)
    said = capsys.readouterr()
    assert "missing  secret mtrec-object-store: lacks secret-key: pods that refer to it do not start" in said.out
    assert not {PASSWORD, "a password"} & set((said.out + said.err).replace(",", " ").split())


@pytest.mark.parametrize(
    ("resource", "name", "namespace", "verdict", "what", "why"),
    [
        ("services", "ml-pipeline", "kubeflow", "missing", "Kubeflow Pipelines in kubeflow", "no service"),
        ("configmaps", "workflow-controller-configmap", "kubeflow", "warning", "retries after lost pods", "lost"),
        ("configmaps", "kubeflow-trainer-public", "kubeflow-system", "unknown", "Kubeflow Trainer", "not tell"),
        ("trainingruntimes", "mtrec-torch", "mtrec", "warning", "training runtime mtrec-torch", "not in mtrec"),
        ("serviceaccounts", "mtrec-node", "mtrec", "missing", "service account mtrec-node", "are refused"),
        ("secrets", "mtrec-studies", "mtrec", "missing", "secret mtrec-studies", "do not start"),
        ("persistentvolumeclaims", "mtrec-work", "mtrec", "missing", "claim mtrec-work", "have no place"),
        ("services", "mlflow", "mlflow", "missing", "MLflow at mlflow.mlflow", "there is no service"),
        ("customresourcedefinitions", "scheduledworkflows.kubeflow.org", "", "missing",
         "resource scheduledworkflows.kubeflow.org", "schedules"),
    ],
)  # fmt: skip
def test_each_thing_that_is_not_there(
    server: KubeServer, resource: str, name: str, namespace: str, verdict: str, what: str, why: str
) -> None:
    server.remove(resource, name, namespace)
    found = only()
    assert (found.verdict, found.what) == (verdict, what)
    assert why in found.why
    assert found.fix


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("retryStrategy: {limit: 0, retryPolicy: Always}", "is not tried again; KFP asks for failed steps only"),
        ("templateDefaults: {retryStrategy: {limit: 0}}", "is not tried again; KFP asks for failed steps only"),
        ("templateDefaults: {retryStrategy: {limit: 0, retryPolicy: OnError}}", "for want of memory"),
        ("templateDefaults: {retryStrategy: {limit: 2, retryPolicy: Always}}", "begun again as a whole, 2 times"),
        ("templateDefaults: {retryStrategy: {retryPolicy: Always}}", "with no limit: .* without end"),
    ],
)
def test_retries_that_do_not_fit(server: KubeServer, spec: str, why: str) -> None:
    data = {"workflowDefaults": f"spec: {{{spec}}}"}
    server.change("configmaps", "workflow-controller-configmap", "kubeflow", data=data)
    found = only()
    assert (found.verdict, found.what) == ("warning", "retries after lost pods")
    assert re.search(why, found.why)
    assert "spec.templateDefaults.retryStrategy: {limit: 0, retryPolicy: Always}" in found.fix


def test_versions_that_are_too_old(server: KubeServer) -> None:
    server.version = "v1.27.9-gke.1"
    server.proxied["kubeflow", "ml-pipeline"] = health("2.5.0")
    old = {"kubeflow_trainer_version": "v2.1.0"}
    server.change("configmaps", "kubeflow-trainer-public", "kubeflow-system", data=old)
    found = wrong(nodes=2)
    assert [(line.verdict, line.what) for line in found] == [
        ("warning", "Kubernetes API server"),
        ("missing", "Kubeflow Pipelines in kubeflow"),
        ("missing", "Kubeflow Trainer"),
    ]
    server.version = "v1.33.0"
    server.proxied["kubeflow", "ml-pipeline"] = health("unknown")
    assert [line.verdict for line in wrong()] == ["unknown", "warning", "warning"]


def test_services_that_do_not_answer(server: KubeServer) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = (502, "bad gateway")
    del server.proxied["mlflow", "mlflow"]
    pipelines, mlflow = wrong()
    assert (pipelines.verdict, mlflow.verdict) == ("missing", "missing")
    assert "502" in pipelines.why
    assert 'no endpoints available for service "mlflow"' in mlflow.why


def test_what_may_not_be_looked_at_is_unknown_and_nothing_else_suffers(
    server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.forbidden |= {("get", "secrets"), ("get", "services/proxy"), ("create", "subjectaccessreviews")}
    found = wrong()
    assert {line.verdict for line in found} == {"unknown"}
    assert [line.what for line in found] == [
        "Kubeflow Pipelines in kubeflow", "rights of mtrec-trainer", "rights of mtrec-approver",
        "secret mtrec-mlflow", "secret mtrec-object-store", "secret mtrec-studies", "MLflow at mlflow.mlflow",
    ]  # fmt: skip
    assert all("403" in line.why and "cannot" in line.why for line in found)
    main_code(["cluster", "check"], 0)
    assert capsys.readouterr().out.endswith(" 0 warning, 0 missing, 7 unknown\n")


def test_rights_that_are_lacking_or_too_many(server: KubeServer) -> None:
    trainer = "system:serviceaccount:mtrec:mtrec-trainer"
    server.forbidden |= {("update", "leases", "", trainer), ("delete", "trainjobs", "", trainer)}
    server.forbidden -= {("list", "secrets")}
    found = wrong()
    assert [(line.verdict, line.what) for line in found] == [
        ("missing", "rights of mtrec-trainer"),
        ("missing", "rights of mtrec-trainer"),
        ("warning", "rights of mtrec-trainer"),
    ]
    assert "may not update leases: leases are renewed" in found[0].why
    assert "may list secrets" in found[2].why


def test_an_account_of_any_name_is_looked_at(server: KubeServer, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("service_account: pipeline-runner\n")
    expected = wanted_by(load_cluster(file))
    assert (expected.accounts["pipeline-runner"], expected.service_account) == ("trainer", "pipeline-runner")
    server.add("serviceaccounts", "pipeline-runner", "mtrec")
    user = "system:serviceaccount:mtrec:pipeline-runner"
    lacking = [("list", "trainjobs"), ("get", "trainingruntimes"), ("list", "pods"), ("list", "events")]
    server.forbidden |= {(*rule, "", user) for rule in lacking}
    found = [
        line for line in check_cluster(kube.api_client(), expected) if line.what == "rights of pipeline-runner"
    ]
    assert [line.why.partition(":")[0] for line in found] == [f"may not {' '.join(rule)}" for rule in lacking]


@pytest.mark.parametrize(("multi_user", "own"), [(True, "default-editor"), (False, "pipeline-runner")])
def test_where_none_is_named_the_servers_own_account_is_looked_at(
    server: KubeServer, tmp_path: Path, multi_user: bool, own: str
) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health(multi_user=multi_user)
    (tmp_path / "mine.yaml").write_text("namespace: mtrec\n")
    found = list(check_cluster(kube.api_client(), wanted_by(load_cluster(tmp_path / "mine.yaml"))))
    assert f"service account {own}" in {line.what for line in found if line.verdict == "missing"}
    assert f"rights of {own}" in {line.what for line in found}
    assert not [line for line in found if "mtrec-trainer" in line.what]
    (account,) = [line for line in found if line.what == f"service account {own}"]
    assert "not made by mtrec's manifests" in account.fix
    server.forbidden.add(("get", "deployments"))
    again = list(check_cluster(kube.api_client(), wanted_by(load_cluster(tmp_path / "mine.yaml"))))
    assert f"rights of {own}" in {line.what for line in again}


def test_an_account_of_the_command_line_is_that_of_runs(
    server: KubeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("serviceaccounts", "runner", "mtrec")
    server.forbidden.add(("update", "leases", "", "system:serviceaccount:mtrec:runner"))
    main_code(["cluster", "check", "--account", "runner"], 1)
    assert "missing  rights of runner: may not update leases" in capsys.readouterr().out


def test_several_processes_of_a_node_are_a_trainjob(server: KubeServer) -> None:
    server.remove("trainingruntimes", "mtrec-torch", "mtrec")
    assert only().verdict == "warning"
    assert [line.verdict for line in wrong(processes=2)] == ["missing"]


def test_training_in_its_own_pod_needs_no_trainer(server: KubeServer) -> None:
    for name in (one for one in DEFINITIONS if "trainer" in one):
        server.remove("customresourcedefinitions", name)
    trainer = "system:serviceaccount:mtrec:mtrec-trainer"
    server.forbidden |= {(verb, "trainjobs", "", trainer) for verb in ("create", "get", "list", "delete")}
    assert "missing" in {line.verdict for line in wrong(gpus=4)}
    assert wrong(gpus=4, runtime="local") == []


def test_a_server_for_one_user_runs_pods_in_its_own_namespace(server: KubeServer) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health(multi_user=False)
    found = only()
    assert (found.verdict, found.what) == ("missing", "namespace of the pods")
    assert "runs pods in kubeflow only, not in mtrec" in found.why
    assert "namespace: kubeflow" in found.fix
    assert "namespace of the pods" not in {line.what for line in lines(namespace="kubeflow")}


@pytest.mark.parametrize(
    ("tag", "allowed", "verdicts"),
    [
        ("2.17.0", None, []),
        ("2.17.1", None, ["warning"]),
        ("3.0.0", None, ["warning"]),
        ("2.18.0", "other, mtrec-trainer", []),
        ("2.18.0", "mtrec-trainer-2,other", ["missing"]),
        ("2.17.0", "", ["missing"]),
    ],
)
def test_accounts_that_the_server_gives_runs(
    server: KubeServer, tag: str, allowed: str | None, verdicts: list[str]
) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health(tag)
    env = [] if allowed is None else [{"name": "ALLOWEDSERVICEACCOUNTS", "value": allowed}]
    api_server(server, env)
    found = wrong()
    assert [line.verdict for line in found] == verdicts
    assert {line.what for line in found} <= {"runs as mtrec-trainer"}
    assert all("ALLOWEDSERVICEACCOUNTS" in line.why + line.fix for line in found)
    assert not [line for line in wrong(service_account="") if line.what.startswith("runs as")]


def api_server(server: KubeServer, env: list[dict[str, Any]]) -> None:
    spec = {"template": {"spec": {"containers": [{"name": "ml-pipeline-api-server", "env": env}]}}}
    server.add("deployments", "ml-pipeline", "kubeflow", spec=spec)


def test_the_servers_own_account_and_a_list_kept_elsewhere(server: KubeServer) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health("2.18.0")
    kept = {"name": "ALLOWEDSERVICEACCOUNTS", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    api_server(server, [kept, {"name": "DEFAULTPIPELINERUNNERSERVICEACCOUNT", "value": "own"}])
    assert (only().verdict, only().what) == ("unknown", "runs as mtrec-trainer")
    assert wrong(service_account="own") == []


@pytest.mark.parametrize(("tag", "verdict"), [("2.17.0", "warning"), ("2.18.0", "missing")])
def test_accounts_that_the_caller_may_not_use(server: KubeServer, tag: str, verdict: str) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health(tag)
    api_server(server, [{"name": "ALLOWEDSERVICEACCOUNTS", "value": "mtrec-trainer"}])
    server.forbidden.add(("use", "serviceaccounts", "mtrec-trainer"))
    assert (only().verdict, only().what) == (verdict, "runs as mtrec-trainer")
    assert "the caller may not use" in only().why
    server.proxied["kubeflow", "ml-pipeline"] = health(tag, multi_user=False)
    assert not [line for line in wrong() if line.what.startswith("runs as")]


def test_leases_that_may_not_be_made(server: KubeServer) -> None:
    server.forbidden.add(("create", "leases"))
    found = wrong()
    assert {line.verdict for line in found} == {"missing"}
    assert found[-1].what == "Lease objects"
    assert "a trial was refused: 403" in found[-1].why


def test_a_claim_that_does_not_fit(server: KubeServer) -> None:
    server.change("persistentvolumeclaims", "mtrec-work", "mtrec", spec={"accessModes": ["ReadWriteOnce"]})
    assert only().verdict == "warning"
    assert "training is on 2" in only(nodes=2).why
    server.change("persistentvolumeclaims", "mtrec-work", "mtrec", status={"phase": "Pending"})
    assert only().why.startswith("Pending")


def test_gpus_and_taints(server: KubeServer) -> None:
    assert "the most on one is 4" in only(gpus=8).why
    assert "2 of 2 nodes have so many, 3 needed" in only(gpus=4, nodes=3).why
    server.change("nodes", "node-1", spec={"taints": [{"key": "team-a", "effect": "NoSchedule"}]})
    taints = only(gpus=4)
    assert (taints.verdict, taints.why) == ("warning", "team-a")
    for tolerated in ("team-a", ""):
        assert not [line for line in lines(gpus=4, tolerated=[tolerated]) if line.verdict != "ok"]


def asks(tmp_path: Path, text: str) -> Wanted:
    """What a cluster file wants."""
    (tmp_path / "mine.yaml").write_text(text)
    return wanted_by(load_cluster(tmp_path / "mine.yaml"))


def about(wanted: Wanted, what: str) -> list[Line]:
    """The lines about something."""
    return [line for line in check_cluster(kube.api_client(), wanted) if what in line.what]


def test_gpus_of_a_search_are_looked_for(server: KubeServer, tmp_path: Path) -> None:
    (line,) = about(asks(tmp_path, "steps: {search_settings: {gpus: 8}}"), "8 × ")
    assert (line.verdict, line.what) == ("missing", "8 × nvidia.com/gpu for search_settings")
    assert line.fix.endswith("ask for fewer in the cluster file")


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ({"spec": {"unschedulable": True}}, "cordoned"),
        ({"metadata": {"labels": {"pool": None}}}, "without label pool=a"),
        ({"metadata": {"labels": {"pool": "b"}}}, "without label pool=a"),
        ({"status": {"allocatable": {"cpu": "3920m"}}}, "with less cpu than 4"),
        ({"status": {"allocatable": {"memory": "16000000Ki"}}}, "with less memory than 16Gi"),
        ({"status": {"allocatable": {"memory": None}}}, "with less memory than 16Gi"),
    ],
)
@pytest.mark.parametrize("step", ["fine_tune_model", "search_settings"])
def test_only_nodes_that_can_run_it_count(
    server: KubeServer, tmp_path: Path, step: str, node: dict[str, Any], why: str
) -> None:
    asked = "{gpus: 1, cpu: 4, cpu_limit: 9, memory: 16Gi, memory_limit: 99Gi, node_selector: {pool: a}}"
    wanted = asks(tmp_path, f"steps: {{{step}: {asked}}}")
    for number in range(2):
        server.change("nodes", f"node-{number}", metadata={"labels": {"pool": "a"}})
    server.change("nodes", "node-0", **node)
    assert [(line.verdict, line.why) for line in about(wanted, "1 × ")] == [("ok", "1 nodes")]
    server.change("nodes", "node-1", **node)
    (line,) = about(wanted, "1 × ")
    assert line.verdict == "missing"
    assert "the cluster file" in line.fix
    assert line.what.endswith(" for search_settings") == (step == "search_settings")
    assert line.why == f"0 of 2 nodes with so many can run it, 1 needed: 2 {why}"


def test_nodes_of_a_trainjob_are_asked_for_limits_and_what_the_runtime_says(
    server: KubeServer, tmp_path: Path
) -> None:
    step = "{gpus: 2, cpu: 1, cpu_limit: 16, memory_limit: 8Gi, node_selector: {of: step}}"
    wanted = asks(tmp_path, f"storage: {{claim: a}}\nsteps: {{fine_tune_model: {step}}}")
    pod = {"template": {"spec": {"template": {"spec": {"nodeSelector": {"of": "runtime"}}}}}}
    spec = {"template": {"spec": {"replicatedJobs": [pod]}}}
    server.change("trainingruntimes", "mtrec-torch", "mtrec", spec=spec)
    (line,) = about(wanted, "2 × ")
    assert line.why.endswith("1 needed: 2 without label of=runtime; 2 with less cpu than 16")
    assert "training runtime mtrec-torch" in line.fix


@pytest.mark.parametrize(("tag", "verdicts"), [("2.16.2", ["missing"]), ("unknown", ["missing"]), ("2.17.0", [])])
def test_a_user_that_the_server_does_not_know_how_to_give(
    server: KubeServer, tag: str, verdicts: list[str]
) -> None:
    server.proxied["kubeflow", "ml-pipeline"] = health(tag)
    found = [line for line in lines(run_as_user=10001) if line.what == "runs as user 10001"]
    assert [line.verdict for line in found] == verdicts
    assert all("take run_as_user out of the cluster file" in line.why for line in found)
    assert not [line for line in lines() if line.what.startswith("runs as user")]


def test_logins_of_a_registry_are_a_secret_of_their_own_type(server: KubeServer, tmp_path: Path) -> None:
    wanted = asks(tmp_path, "image_pull_secrets: [login]")
    (line,) = about(wanted, "secret login")
    make = "create secret generic login --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=FILE"
    assert (line.verdict, line.why) == ("missing", "images of its registry are not pulled")
    assert line.fix == f"kubectl -n mtrec {make}"
    server.add("secrets", "login", "mtrec", type="Opaque", data={".dockerconfigjson": PASSWORD})
    (line,) = about(wanted, "secret login")
    assert (line.verdict, line.why.split(",")[0]) == ("missing", "is of type Opaque")
    assert line.fix.endswith(f"delete secret login && kubectl -n mtrec {make}")
    server.change("secrets", "login", "mtrec", type="kubernetes.io/dockerconfigjson")
    assert [line.verdict for line in about(wanted, "secret login")] == ["ok"]


def test_what_the_manifests_make_is_made_by_them(server: KubeServer) -> None:
    server.change("configmaps", "mtrec-env", "mtrec", data={"DO_NOT_TRACK": None})
    assert only().fix.startswith("kubectl apply -k")
    server.remove("configmaps", "mtrec-env", "mtrec")
    assert only().fix.startswith("kubectl apply -k")


def test_images_by_tag(server: KubeServer) -> None:
    pinned = "registry.example/python@sha256:" + "a" * 64
    found = only(images=[pinned, "registry.example/python:1"])
    assert (found.verdict, found.what) == ("warning", "image registry.example/python:1")


def test_a_namespace_without_pod_security(server: KubeServer) -> None:
    server.change("namespaces", "mtrec", metadata={"labels": {"pod-security.kubernetes.io/enforce": "baseline"}})
    assert (only().verdict, only().what) == ("warning", "Pod Security of mtrec")
    assert only().fix.index("/warn=restricted") < only().fix.index("/enforce=restricted")


def test_pod_security_is_left_alone_where_kubeflow_pipelines_itself_lives(server: KubeServer) -> None:
    said = [line for line in lines(namespace="kubeflow") if line.what == "Pod Security of kubeflow"]
    assert [(line.verdict, line.fix) for line in said] == [("ok", "")]
    assert "would refuse KFP's own pods" in said[0].why
    said = [line for line in lines(namespace="mlflow") if line.what == "Pod Security of mlflow"]
    assert [line.verdict for line in said] == ["warning"]


def test_a_name_by_which_mlflow_refuses_to_be_called(server: KubeServer) -> None:
    hosts = {"MLFLOW_SERVER_ALLOWED_HOSTS": "localhost"}
    server.change("configmaps", "mlflow-server", "mlflow", data=hosts)
    assert "mlflow.mlflow.svc.cluster.local:5000 is not among" in only().why


def test_an_api_server_that_is_away_is_one_line(server: KubeServer, capsys: pytest.CaptureFixture[str]) -> None:
    with server.gone():
        main_code(["cluster", "check"], 1)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert said.out.startswith("missing  Kubernetes API server: http://127.0.0.1:")


def test_wrong_input(
    server: KubeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, given, said in (
        ("--secret", "mlflow", "--secret mlflow: not of the form NAME:KEY,KEY"),
        ("--mlflow", "mlflow:5000", "--mlflow mlflow:5000: not of the form NAMESPACE/SERVICE:PORT"),
        ("--context", "elsewhere", "no Kubernetes cluster to use: "),
    ):
        main_code(["cluster", "check", option, given], 2)
        assert capsys.readouterr().err.startswith(f"mtrec: {said}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    kube.api_client.cache_clear()
    main_code(["cluster", "check"], 2)
    assert capsys.readouterr().err.startswith("mtrec: no Kubernetes cluster to use: ")


def test_names_of_ones_own(server: KubeServer) -> None:
    found = lines(
        namespace="kubeflow",
        accounts={"runner": "trainer"},
        secrets={"own": ["key"]},
        claims=["disk"],
        mlflow="kubeflow/m:80",
    )
    missing = {line.what for line in found if line.verdict == "missing"}
    assert {"service account runner", "secret own", "claim disk", "MLflow at m.kubeflow"} <= missing


def test_what_the_cluster_file_names_is_looked_for(server: KubeServer, repository: Path, tmp_path: Path) -> None:
    file = load_cluster(repository / "k8s" / "cluster" / "cluster.yaml")
    assert wanted_by(file) == Wanted(
        secrets={
            "mtrec-mlflow": ["password", "username"],
            "mtrec-object-store": ["access-key", "secret-key"],
            "mtrec-studies": ["url"],
        },
        config_maps={"mtrec-env": sorted(Wanted().config_maps["mtrec-env"])},
        claims=["mtrec-work"],
        gpus=1,
        run_as_user=10001,
        tolerated=["nvidia.com/gpu"],
        training=file.step("fine_tune_model"),
        search=file.step("search_settings"),
        images=["mtrec/python-cuda:0.1.0", "mtrec/python:0.1.0"],
    )
    own = tmp_path / "mine.yaml"
    own.write_text("namespace: shops\nsteps: {gate_model: {secrets: {own: {key: KEY}}}}\n")
    wanted = wanted_by(load_cluster(own))
    assert (wanted.namespace, wanted.secrets, wanted.claims) == ("shops", {"own": ["key"]}, [])
    main_code(["cluster", "check", "--cluster", str(own)], 1)
    main_code(["cluster", "check", "--cluster", str(repository / "k8s" / "cluster" / "cluster.yaml")], 0)
