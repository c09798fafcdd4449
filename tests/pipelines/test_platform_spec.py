"""What a cluster is told of each step, read from the compiled file alone."""

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster_config import Cluster, load_cluster
from pipelines.compiling import FOR_CLUSTERS
from pipelines.placing import Placing
from pipelines.server_versions import adapt
from tests.kfp_schema import schema

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = load_cluster(ROOT / "k8s" / "cluster" / "cluster.yaml")
_STEPS = "ingest-data validate-data preprocess-data fine-tune-model evaluate-model gate-model register-model"
TASKS = {"training": {*_STEPS.split(), "record-outcome"}}
TRAIN = {"fine-tune-model": 12, "search-settings": 24}
"""What trains, and the hours that it may take."""
TASKS["monitoring"] = TASKS["training"] | {"monitor-data", "decide-retraining"}
TASKS["search"] = {"ingest-data", "validate-data", "preprocess-data", "search-settings", "report-search"}


Compiled = tuple[dict[str, Any], dict[str, Any]]


@functools.cache
def _compiled(kind: str, cluster: str) -> Compiled:
    with tempfile.TemporaryDirectory() as folder:
        path = FOR_CLUSTERS[kind](Path(folder, "pipeline.yaml"), Placing.on(Cluster.model_validate_json(cluster)))
        spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def compiled(kind: str, **changes: Any) -> Compiled:
    """The pipeline's part of the file, and of the platform's part what is said of each executor."""
    changed = Cluster.model_validate(EXAMPLE.model_dump() | changes)
    return _compiled(kind, changed.model_dump_json())


def steps(spec: dict[str, Any], platform: dict[str, Any]) -> Iterator[tuple[str, dict, dict, dict]]:
    """Every task that runs in a pod: its name, what the graph says of it, its container, the platform's part."""

    def walk(dag: dict[str, Any]) -> Iterator[tuple[str, dict, dict, dict]]:
        for name, task in dag["tasks"].items():
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                yield from walk(component["dag"])
                continue
            label = component["executorLabel"]
            container = spec["deploymentSpec"]["executors"][label]["container"]
            yield name, task, container, platform[label]

    yield from walk(spec["root"]["dag"])


def secrets(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        entry["secretName"]: {key["secretKey"]: key["envVar"] for key in entry["keyToEnv"]}
        for entry in config.get("secretAsEnv", [])
    }


@pytest.mark.parametrize("kind", TASKS)
def test_every_step_has_limits_a_time_limit_storage_and_a_user(kind: str) -> None:
    seen = set()
    for name, _, container, config in steps(*compiled(kind)):
        seen.add(name)
        resources = container["resources"]
        for key in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit"):
            assert resources[f"resource{key}"], (name, key)
        assert int(config["activeDeadlineSeconds"]) == 3600 * TRAIN.get(name, 1)
        assert [(m["constant"], m["mountPath"]) for m in config["pvcMount"]] == [("mtrec-work", "/mtrec")]
        mounts = {m["mountPath"]: m for m in config["emptyDirMounts"]}
        assert mounts["/tmp"]["sizeLimit"] == "4Gi"
        assert config["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
        assert container["env"] == [
            {"name": "MTREC_FAILURES", "value": "/mtrec/failures"},
            {"name": "MTREC_LEASES", "value": "kubernetes:mtrec"},
        ]
        tracking = {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"}
        assert secrets(config)["mtrec-mlflow"] == tracking
        assert config["configMapAsEnv"][0]["configMapName"] == "mtrec-env"
    assert seen == TASKS[kind]


@pytest.mark.parametrize("kind", TASKS)
def test_only_what_trains_asks_for_a_gpu_and_its_nodes(kind: str) -> None:
    for name, _, container, config in steps(*compiled(kind)):
        mounts = {m["mountPath"]: m for m in config["emptyDirMounts"]}
        if name in TRAIN:
            accelerator = container["resources"]["accelerator"]
            assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "1")
            assert container["image"] == "mtrec/python-cuda:0.1.0"
            assert mounts["/dev/shm"] == {
                "medium": "Memory", "mountPath": "/dev/shm", "sizeLimit": "2Gi", "volumeName": "shm"
            }  # fmt: skip
            assert config["nodeSelector"] == {"labels": {"nvidia.com/gpu.present": "true"}}
            assert config["tolerations"] == [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ]
        else:
            assert "accelerator" not in container["resources"], name
            assert container["image"] == "mtrec/python:0.1.0"
            assert set(mounts) == {"/tmp"}
            assert "nodeSelector" not in config
            assert "tolerations" not in config


def test_only_steps_that_use_the_data_remote_see_its_keys() -> None:
    found = {name for name, *_, config in steps(*compiled("monitoring")) if "mtrec-object-store" in secrets(config)}
    assert found == {"ingest-data", "monitor-data", "decide-retraining"}


@pytest.mark.parametrize("kind", TASKS)
def test_every_step_is_tried_again_for_as_long_as_it_may_take_and_knows_which_try_it_is(kind: str) -> None:
    for name, task, _, config in steps(*compiled(kind)):
        policy = task["retryPolicy"]
        assert policy["maxRetryCount"] == 2
        assert policy["backoffDuration"] == "60s"
        assert policy["backoffFactor"] == 2.0
        longest = int(policy["backoffMaxDuration"].removesuffix("s"))
        assert longest >= 3 * int(config["activeDeadlineSeconds"]) + 60 + 120, name
        assert config["fieldPathAsEnv"] == [
            {"name": "MTREC_NODE", "fieldPath": "metadata.annotations['workflows.argoproj.io/node-name']"}
        ]


@pytest.mark.parametrize("kind", TASKS)
def test_without_retries_and_leases_nothing_is_said_of_them(kind: str) -> None:
    for _, task, container, config in steps(*compiled(kind, retries=None, lease_hours=None)):
        assert "retryPolicy" not in task
        assert "fieldPathAsEnv" not in config
        assert "env" not in container


def test_a_training_on_several_nodes_is_started_by_a_pod_without_gpus() -> None:
    spec, platform = compiled("training", train_job={"nodes": 2})
    ((task, container, config),) = [
        rest for name, *rest in steps(spec, platform) if name == "fine-tune-model"
    ]  # fmt: skip
    assert "accelerator" not in container["resources"]
    assert container["resources"]["resourceMemoryLimit"] == "4Gi"
    assert container["image"] == "mtrec/python:0.1.0"
    assert "nodeSelector" not in config
    assert int(config["activeDeadlineSeconds"]) > 12 * 3600
    assert "mtrec-mlflow" in secrets(config)
    place = task["inputs"]["parameters"]["trainer"]["runtimeValue"]["constant"]
    assert '"num_nodes": 2' in place


def test_several_gpus_of_one_pod_need_no_trainjob() -> None:
    changes = {"train_job": {"runtime": "local"}, "steps": {"fine_tune_model": {"gpus": 4}}}
    ((task, container),) = [
        (task, container)
        for name, task, container, _ in steps(*compiled("training", **changes))
        if name == "fine-tune-model"
    ]
    assert container["resources"]["accelerator"]["resourceCount"] == "4"
    assert '"runtime": "local"' in task["inputs"]["parameters"]["trainer"]["runtimeValue"]["constant"]


SHARDS = {"shard-tables", "preprocess-shard", "join-shards"}


def sharded() -> Compiled:
    return compiled("training", shards=3, run_as_user=None)


def test_steps_of_shards_have_what_the_others_have() -> None:
    found = {name: rest for name, *rest in steps(*sharded())}
    assert set(found) == (TASKS["training"] - {"preprocess-data"}) | SHARDS
    for name in SHARDS:
        task, container, config = found[name]
        resources = container["resources"]
        told = [resources[f"resource{key}"] for key in ("CpuRequest", "CpuLimit", "MemoryRequest", "MemoryLimit")]
        assert all(told), name
        assert "accelerator" not in resources
        assert config["activeDeadlineSeconds"] == "3600", name
        assert task["retryPolicy"]["maxRetryCount"] == 2, name
        assert [(m["constant"], m["mountPath"]) for m in config["pvcMount"]] == [("mtrec-work", "/mtrec")], name
        assert [one["name"] for one in config["fieldPathAsEnv"]] == ["MTREC_NODE"], name


@pytest.mark.parametrize("version", ["2.14", "2.17"])
def test_a_server_of_that_version_knows_the_steps_of_shards(version: str) -> None:
    check_words(*sharded(), version)


@pytest.mark.parametrize("version", ["2.14", "2.17"])
@pytest.mark.parametrize("kind", TASKS)
def test_a_server_of_that_version_knows_every_word_of_it(kind: str, version: str) -> None:
    spec, platform = compiled(kind, run_as_user=None if version == "2.14" else 10001)
    check_words(spec, platform, version)


def check_words(spec: dict[str, Any], platform: dict[str, Any], version: str) -> None:
    whole = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}}
    major, minor = map(int, version.split("."))
    assert adapt([spec, whole], (major, minor)) == [spec, whole]  # nothing has to be changed
    messages = schema(version)["messages"]
    (executor,) = [name for name in messages if name.endswith("KubernetesExecutorConfig")]

    def check(value: Any, message: str, where: str) -> None:
        if isinstance(value, list):
            for one in value:
                check(one, message, where)
        elif isinstance(value, dict) and message:
            for key, inner in value.items():
                assert key in messages[message], f"{where}.{key}: {version} does not know it"
                check(inner, messages[message][key], f"{where}.{key}")

    for label, config in platform.items():
        check(config, executor, label)


def test_registry_logins_and_labels_reach_every_pod() -> None:
    changes = {"image_pull_secrets": ["login"], "defaults": {"labels": {"team": "shop"}}}
    for _, _, _, config in steps(*compiled("training", **changes)):
        assert [secret["secretName"] for secret in config["imagePullSecret"]] == ["login"]
        assert config["podMetadata"]["labels"] == {"app.kubernetes.io/part-of": "mtrec", "team": "shop"}
