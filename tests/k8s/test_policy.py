"""The rules of k8s/check.py hold for what is committed, and each is noticed when it is broken."""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mtrec.config import load_scenario, parse
from pipelines.cli import app
from pipelines.cluster_config import Cluster
from tests.k8s.render import ROOT, documents, golden, render, renderer

Documents = list[dict[str, Any]]


def test_dev_keeps_every_rule(dev: Documents, check: ModuleType) -> None:
    assert check.problems(dev) == []
    assert check.wanted_secrets(dev) == {}


def test_dev_is_nothing_for_production(dev: Documents, check: ModuleType) -> None:
    found = check.problems(dev, prod=True)
    assert "Secret mlflow/mlflow-admin" in " ".join(re.sub(r"-[0-9a-z]{10}:", ":", line) for line in found)
    assert any("image mtrec/mlflow:3.17.2 is not pinned" in line for line in found)


def test_prod_is_refused_until_the_images_are_named_by_digest() -> None:
    command = [sys.executable, str(ROOT / "k8s" / "check.py"), "--prod"]
    text = golden("prod").read_text(encoding="utf-8")
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 1
    first, *others = done.stderr.splitlines()
    assert first == (
        "mtrec: Deployment mlflow/mlflow: container mlflow: image registry.invalid/mtrec/mlflow:name-it-by-digest "
        "is not pinned: name registry.invalid/mtrec/mlflow by newName and digest under images: in your own overlay"
    )
    assert all("is not pinned" in line for line in others), done.stderr
    pinned = re.sub(
        r"registry\.invalid/(\S+):name-it-by-digest", rf"registry.example.com/\1@sha256:{'1' * 64}", text
    )
    done = subprocess.run(command, input=pinned, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "yours to make: Secret mlflow/mlflow-admin with flask-key, password\n" in done.stdout


@pytest.mark.skipif(renderer() is None, reason="neither kustomize nor kubectl 1.27 is installed")
def test_an_overlay_of_ones_own_is_accepted_with_its_schedule(check: ModuleType, tmp_path: Path) -> None:
    own = documents(render(ROOT / "tests" / "k8s" / "own"))
    assert check.problems(own, prod=True) == []
    assert check.wanted_secrets(own) == {
        "mlflow/mlflow-database": {"host", "port", "database", "user", "password"},
        "mlflow/mlflow-object-store": {"access-key", "secret-key"},
        "mlflow/mlflow-admin": {"password", "flask-key"},
        "mlflow/mlflow-users": {"trainer", "approver"},
        "mtrec/mtrec-mlflow": {"username", "password"},
        "mtrec/mtrec-object-store": {"access-key", "secret-key"},
        "mtrec/mtrec-studies": {"url"},
    }
    (settings,) = [d["data"] for d in own if "MLFLOW_ARTIFACTS_DESTINATION" in d.get("data", {})]
    assert settings["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://my-bucket/mlflow"
    assert "mlflow.mlflow.svc.cluster.local:5000" in settings["MLFLOW_SERVER_ALLOWED_HOSTS"]
    (job,) = [d for d in own if (d["kind"], d["metadata"]["name"]) == ("Job", "mlflow-permissions")]
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["my-shop"]
    guide = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")
    for part in ("replacements:", "configMapGenerator:", "patches:"):
        shown = (ROOT / "tests" / "k8s" / "own" / "kustomization.yaml").read_text(encoding="utf-8")
        assert shown[shown.index(part) :].splitlines()[:3] == guide[guide.index(part) :].splitlines()[:3]
    (job,) = [d for d in own if d["metadata"]["name"] == "mtrec-monitor"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mtrec", "schedule", "create", "monitoring"]
    assert container["image"].startswith("registry.example.com/mtrec/python@sha256:")
    assert {"name": "STEPS_IMAGE", "value": container["image"]} in container["env"]
    assert "--scenario=/etc/mtrec/scenario.yaml" in container["args"]
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    mounted = [source["configMap"]["name"] for source in volumes["settings"]["projected"]["sources"]]
    assert mounted == ["mtrec-cluster", "mtrec-scenario"]
    (shop,) = [d["data"]["scenario.yaml"] for d in own if d["metadata"]["name"] == "mtrec-scenario"]
    (tmp_path / "scenario.yaml").write_text(shop, encoding="utf-8")
    assert load_scenario(str(tmp_path / "scenario.yaml")).name == "my-shop"
    (file,) = [d["data"]["cluster.yaml"] for d in own if d["metadata"]["name"] == "mtrec-cluster"]
    cluster = parse(Cluster, yaml.safe_load(file), "cluster.yaml")
    assert cluster.image == container["image"]
    assert "@sha256:" in (cluster.step("fine_tune_model").image or "")
    job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "registry.invalid/mtrec/python:x"
    (left,) = check.problems(own, prod=True)
    assert "STEPS_IMAGE names no image of yours" in left


@pytest.mark.skipif(renderer() is None, reason="neither kustomize nor kubectl 1.27 is installed")
def test_an_overlay_without_a_schedule_needs_nothing_of_it(check: ModuleType, tmp_path: Path) -> None:
    assert "leave out `../mtrec/k8s/schedule`, `replacements`" in (ROOT / "k8s" / "README.md").read_text()
    for folder in ("k8s", "mlflow", "scenarios"):
        shutil.copytree(ROOT / folder, tmp_path / "mtrec" / folder)
    own = yaml.safe_load((ROOT / "tests" / "k8s" / "own" / "kustomization.yaml").read_text(encoding="utf-8"))
    own["resources"] = ["../mtrec/k8s/overlays/prod"]
    del own["replacements"]
    own["configMapGenerator"] = [one for one in own["configMapGenerator"] if one["name"] == "mlflow-server"]
    (tmp_path / "my-overlay").mkdir()
    (tmp_path / "my-overlay" / "kustomization.yaml").write_text(yaml.safe_dump(own))
    assert check.problems(documents(render(tmp_path / "my-overlay")), prod=True) == []


@pytest.mark.skipif(renderer() is None, reason="neither kustomize nor kubectl 1.27 is installed")
def test_the_overlay_of_the_guide_for_a_single_user_is_accepted(check: ModuleType, tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(# my-overlay/runs.*?)```", guide, flags=re.DOTALL)
    for folder in ("k8s", "mlflow", "scenarios"):
        shutil.copytree(ROOT / folder, tmp_path / "mtrec" / folder)
    runs, mlflow, rest = block.split("---\n")
    for part in (runs, mlflow):
        path = tmp_path / part.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True)
        path.write_text(part)
    own = (ROOT / "tests" / "k8s" / "own" / "kustomization.yaml").read_text(encoding="utf-8")
    assert "resources: [mlflow, runs]" in rest
    own = own.replace("resources: [../../../k8s/overlays/prod, ../../../k8s/schedule]", "resources: [mlflow, runs]")
    assert "namespace: kubeflow for mtrec-cluster and mtrec-scenario" in rest
    own = own.replace("namespace: mtrec", "namespace: kubeflow")
    assert "mtrec/mlflow and mtrec/python-cuda" in rest
    own = own.replace("registry.invalid/mtrec/mlflow", "mtrec/mlflow")
    own = own.replace("registry.invalid/mtrec/python-cuda", "mtrec/python-cuda")
    (tmp_path / "my-overlay" / "kustomization.yaml").write_text(own)
    cluster = (ROOT / "tests" / "k8s" / "own" / "cluster.yaml").read_text(encoding="utf-8")
    cluster = cluster.replace("\nnamespace: mtrec ", "\nnamespace: kubeflow ")
    (tmp_path / "my-overlay" / "cluster.yaml").write_text(cluster)
    shutil.copy(ROOT / "tests" / "k8s" / "own" / "my-shop.yaml", tmp_path / "my-overlay")
    rendered = documents(render(tmp_path / "my-overlay"))
    assert check.problems(rendered, prod=True) == []
    assert {d["metadata"].get("namespace", "") for d in rendered} - {""} == {"mlflow", "kubeflow"}
    assert [d["metadata"]["name"] for d in rendered if d["kind"] == "Namespace"] == ["mlflow"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"hello", "no manifests as kubectl kustomize renders them"),
        (b"- a\n", "no manifests as kubectl kustomize renders them"),
        (b"a: [", "no manifests as kubectl kustomize renders them"),
        (b"kind: Deployment\n", "no manifests as kubectl kustomize renders them"),
        (b"\xff", "no manifests as kubectl kustomize renders them"),
        (b"", "standard input is empty; did kubectl kustomize fail?"),
    ],
)
def test_what_are_no_manifests_is_one_line(given: bytes, said: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "k8s" / "check.py"], input=given, capture_output=True)
    assert done.returncode == 2
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("mtrec: ")
    assert said in line


def test_a_cluster_file_is_read(check: ModuleType) -> None:
    def problems(text: str, *, prod: bool) -> list[str]:
        metadata = {"name": "mtrec-cluster", "namespace": "mtrec"}
        return check.problems(
            [{"kind": "ConfigMap", "metadata": metadata, "data": {"cluster.yaml": text}}], prod=prod
        )

    assert problems("image: mtrec/python:1", prod=False) == []
    (line,) = problems("image: mtrec/python:1", prod=True)
    assert (
        line == "ConfigMap mtrec/mtrec-cluster: cluster.yaml: image mtrec/python:1 is not pinned: name it by digest"
    )
    (line,) = problems("namespce: x", prod=False)
    assert "unknown key; did you mean namespace?" in line


def _settings(name: str, **files: str) -> dict[str, Any]:
    data = {f"{key}.yaml": text for key, text in files.items()}
    return {"kind": "ConfigMap", "metadata": {"name": name, "namespace": "kubeflow"}, "data": data}


CLUSTER = (ROOT / "k8s" / "overlays" / "dev" / "cluster.yaml").read_text(encoding="utf-8")


def test_what_the_cluster_file_of_dev_names_is_there(dev: Documents, check: ModuleType) -> None:
    assert check.problems([*dev, _settings("mtrec-cluster", cluster=CLUSTER)]) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mtrec-work", "work", "PersistentVolumeClaim work is not there, in namespace kubeflow"),
        ("account: mtrec-trainer", "account: me", "ServiceAccount me is not there, in namespace kubeflow"),
        ("mtrec-env:", "env:", "ConfigMap env is not there, in namespace kubeflow"),
        ("DO_NOT_TRACK: ", "TRACK: ", "ConfigMap mtrec-env has no key TRACK"),
        ("{username:", "{user:", "Secret mtrec-mlflow has no key user"),
        (
            "steps:",
            "train_job: {nodes: 2, runtime: fast}\nsteps:",
            "TrainingRuntime fast is not there, in namespace",
        ),
        ("namespace: kubeflow", "namespace: shops", "namespace shops has nothing of these manifests"),
    ],
)
def test_what_a_cluster_file_names_and_nobody_makes(
    dev: Documents, check: ModuleType, old: str, new: str, said: str
) -> None:
    assert old in CLUSTER
    found = check.problems([*dev, _settings("mtrec-cluster", cluster=CLUSTER.replace(old, new, 1))])
    (line,) = set(found)
    assert line.startswith(f"ConfigMap kubeflow/mtrec-cluster: cluster.yaml: {said}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("account: mtrec-trainer", "account: pipeline-runner"),
        ("account: mtrec-trainer", 'account: ""'),
        ("steps:", "train_job: {runtime: nowhere}\nsteps:"),
        ("steps:", "train_job: {nodes: 2, runtime: local}\nsteps:"),
    ],
)
def test_what_a_cluster_file_does_not_use_need_not_be_there(
    dev: Documents, check: ModuleType, old: str, new: str
) -> None:
    assert check.problems([*dev, _settings("mtrec-cluster", cluster=CLUSTER.replace(old, new, 1))]) == []


def test_secrets_of_a_cluster_file_are_told_where_its_runs_are(dev: Documents, check: ModuleType) -> None:
    text = CLUSTER.replace("mtrec-studies", "studies") + "image_pull_secrets: [login]\n"
    document = _settings("mtrec-cluster", cluster=text)
    document["metadata"]["namespace"] = "elsewhere"
    assert check.problems([*dev, document]) == []
    assert check.wanted_secrets([*dev, document]) == {
        "kubeflow/login": {".dockerconfigjson"},
        "kubeflow/studies": {"url"},
    }


def test_the_scenario_of_the_schedule_is_read(dev: Documents, check: ModuleType) -> None:
    text = (ROOT / "k8s" / "schedule" / "scenario.yaml").read_text(encoding="utf-8")
    assert check.problems([*dev, _settings("mtrec-scenario", scenario=text)]) == []
    other = text.replace("name: ecommerce", "name: my-shop")
    (line,) = check.problems([*dev, _settings("mtrec-scenario", scenario=other)])
    assert line == (
        "ConfigMap kubeflow/mtrec-scenario: scenario.yaml: name my-shop is not among the args of Job "
        "mlflow/mlflow-permissions (ecommerce): the trainer could promote its models; name it there"
    )
    (line,) = check.problems([*dev, _settings("mtrec-scenario", scenario=text + "gates: {}\n")])
    assert "scenario.yaml: gates: unknown key; did you mean gate?" in line


def test_the_secrets_that_prod_wants_are_in_the_guide(check: ModuleType) -> None:
    wanted = check.wanted_secrets(documents(golden("prod").read_text(encoding="utf-8")))
    guide = (ROOT / "k8s" / "README.md").read_text(encoding="utf-8")
    for name, keys in wanted.items():
        assert f"`{name}`" in guide
        for key in keys:
            assert key in guide, f"{name}: {key}"


def test_the_scenario_of_the_schedule_is_the_one_that_mtrec_brings() -> None:
    copy = ROOT / "k8s" / "schedule" / "scenario.yaml"  # kustomize takes no file from outside of its folder
    assert copy.read_text(encoding="utf-8") == (ROOT / "scenarios" / "ecommerce.yaml").read_text(encoding="utf-8")


def test_the_command_that_makes_the_schedule_is_one() -> None:
    import typer.main

    (job,) = documents((ROOT / "k8s" / "schedule" / "monitor.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command: Any = typer.main.get_command(app)
    for word in container["command"][1:3]:
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in container["args"]} <= known


def test_pods_are_really_looked_into(manifests: Documents, check: ModuleType, overlay: str) -> None:
    seen = {check.name_of(d): len(list(check.templates(d))) for d in manifests if list(check.templates(d))}
    ours = {"Deployment mlflow/mlflow", "Job mlflow/mlflow-permissions"}
    theirs = {
        "dev": {"StatefulSet mlflow/postgres", "Deployment mlflow/objectstore", "Job mlflow/buckets"},
        "prod": set(),
    }
    home = {"dev": "kubeflow", "prod": "mtrec"}[overlay]
    assert set(seen) == ours | theirs[overlay] | {f"TrainingRuntime {home}/mtrec-torch"}


def test_the_pod_for_people_keeps_the_rules_too(dev: Documents, check: ModuleType) -> None:
    (shell,) = documents((ROOT / "k8s" / "shell" / "pod.yaml").read_text(encoding="utf-8"))
    shell["metadata"]["namespace"] = "kubeflow"  # of kubectl apply
    assert check.problems([*dev, shell]) == []
    del shell["spec"]["activeDeadlineSeconds"]
    assert check.problems([*dev, shell]) == ["Pod kubeflow/mtrec-shell: no PodDisruptionBudget"]
    for version in ("1.29", "1.37"):
        kubernetes_validate.validate(shell, version, strict=True)


def test_the_upgrade_of_the_database_keeps_the_rules_too(check: ModuleType) -> None:
    upgrade = documents((ROOT / "k8s" / "upgrade" / "job.yaml").read_text(encoding="utf-8"))
    prod = documents(golden("prod").read_text(encoding="utf-8"))
    found = [problem for problem in check.problems([*prod, *upgrade], prod=True) if "mlflow-upgrade" in problem]
    assert [problem.partition(" is not pinned")[1] for problem in found] == [" is not pinned"]
    (server,) = [d for d in prod if (d["kind"], d["metadata"]["name"]) == ("Deployment", "mlflow")]
    job, policy = upgrade
    (own,), (theirs,) = (d["spec"]["template"]["spec"]["containers"] for d in (job, server))
    assert own["image"].partition(":")[0] in theirs["image"]
    assert all(variable in theirs["env"] for variable in own["env"])
    assert policy["spec"]["podSelector"]["matchLabels"] == job["spec"]["template"]["metadata"]["labels"]
    for version in ("1.29", "1.37"):
        for document in upgrade:
            kubernetes_validate.validate(document, version, strict=True)


def _pod(change: Callable[[dict[str, Any]], Any]) -> Callable[[Documents], None]:
    return lambda all_: change(_server(all_)["spec"]["template"]["spec"]) and None


def _container(change: Callable[[dict[str, Any]], Any]) -> Callable[[Documents], None]:
    return lambda all_: change(_server(all_)["spec"]["template"]["spec"]["containers"][0]) and None


def _server(all_: Documents) -> dict[str, Any]:
    return next(d for d in all_ if d["kind"] == "Deployment" and d["metadata"]["name"] == "mlflow")


def _without(all_: Documents, kind: str, *names: str) -> None:
    all_[:] = [d for d in all_ if d["kind"] != kind or d["metadata"]["name"] not in names]


def _change(name: str, key: str, value: Any) -> Callable[[Documents], None]:
    def change(all_: Documents) -> None:
        next(d for d in all_ if d["kind"] == name)["data"][key] = value

    return change


BROKEN = {
    "host network": (_pod(lambda p: p.update(hostNetwork=True)), "hostNetwork is on"),
    "host path": (
        _pod(lambda p: p["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
        "volume x is a hostPath",
    ),
    "token": (_pod(lambda p: p.pop("automountServiceAccountToken")), "automountServiceAccountToken is not false"),
    "root": (_pod(lambda p: p["securityContext"].update(runAsUser=0)), "runAsUser is root"),
    "perhaps root": (_pod(lambda p: p["securityContext"].pop("runAsNonRoot")), "runAsNonRoot is not true"),
    "seccomp": (_pod(lambda p: p["securityContext"].pop("seccompProfile")), "no seccompProfile"),
    "account": (_pod(lambda p: p.update(serviceAccountName="who")), "ServiceAccount who is not there"),
    "init container": (
        _pod(lambda p: p.update(initContainers=[{"name": "first", "image": "x:1"}])),
        "container first: allowPrivilegeEscalation is not false",
    ),
    "privileged": (_container(lambda c: c["securityContext"].update(privileged=True)), "mlflow: privileged"),
    "root after all": (_container(lambda c: c["securityContext"].update(runAsUser=0)), "runAsUser is root"),
    "capability": (
        _container(lambda c: c["securityContext"]["capabilities"].update(add=["SYS_ADMIN"])),
        "capabilities are not dropped",
    ),
    "file system": (_container(lambda c: c["securityContext"].pop("readOnlyRootFilesystem")), "can be written"),
    "host port": (_container(lambda c: c["ports"][0].update(hostPort=80)), "hostPort is used"),
    "limits": (_container(lambda c: c["resources"]["limits"].pop("memory")), "no limits of memory"),
    "requests": (_container(lambda c: c["resources"].pop("requests")), "no requests of cpu and memory"),
    "probe": (_container(lambda c: c.pop("livenessProbe")), "no livenessProbe"),
    "latest": (_container(lambda c: c.update(image="mtrec/mlflow:latest")), "changes under its name"),
    "no tag": (_container(lambda c: c.update(image="host:5000/mtrec/mlflow")), "changes under its name"),
    "port": (_container(lambda c: c["ports"][0].update(name="web")), "no port of its pods is called http"),
    "config map": (lambda all_: _without(all_, "ConfigMap", "mtrec-env"), "ConfigMap mtrec-env is not there"),
    "claim": (
        lambda all_: _without(all_, "PersistentVolumeClaim", "mtrec-work"),
        "PersistentVolumeClaim mtrec-work",
    ),
    "secret": (lambda all_: _without(all_, "Secret", "mtrec-mlflow"), "Secret mtrec-mlflow is not there"),
    "budget": (lambda all_: _without(all_, "PodDisruptionBudget", "mlflow"), "no PodDisruptionBudget"),
    "network": (
        lambda all_: _without(all_, "NetworkPolicy", "mlflow", "nothing", "names"),
        "no NetworkPolicy limits its ingress",
    ),
    "password": (_change("ConfigMap", "URL", "postgresql://u:secret@host/db"), "URL holds a password"),
    "sidecar": (
        lambda all_: (
            next(
                t["metadata"]["labels"].pop("sidecar.istio.io/inject")
                for d in all_
                if d["kind"] == "TrainingRuntime"
                for job in d["spec"]["template"]["spec"]["replicatedJobs"]
                for t in [job["template"]["spec"]["template"]]
            )
            and None
        ),
        'no label sidecar.istio.io/inject: "false"',
    ),
    "written out": (
        _container(lambda c: c["env"].append({"name": "MY_PASSWORD", "value": "x"})),
        "MY_PASSWORD is written out",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_named(dev: Documents, check: ModuleType, case: str) -> None:
    change, said = BROKEN[case]
    before = set(check.problems(dev, prod=True))
    changed = copy.deepcopy(dev)
    change(changed)
    new = [line for line in check.problems(changed, prod=True) if line not in before]
    new += [line for line in check.problems(changed) if line not in new]
    assert any(said in line for line in new), new


def test_prod_holds_no_secret_at_all(check: ModuleType) -> None:
    prod = documents(golden("prod").read_text(encoding="utf-8"))
    assert not [d for d in prod if d["kind"] == "Secret"]
    assert "dev-only" not in yaml.safe_dump_all(prod)
    (runtime,) = [d for d in prod if d["kind"] == "TrainingRuntime"]
    (template,) = check.templates(runtime)
    assert template["spec"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert template["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
