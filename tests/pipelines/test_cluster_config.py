import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from mtrec.errors import ConfigError
from mtrec.training.nodes import Place
from pipelines import placing
from pipelines.cluster_config import COMPONENTS, Cluster, Step, Toleration, load_cluster
from pipelines.cluster_reference import cluster_reference
from pipelines.scenario_reference import describe, walk

STORAGE = {"claim": "mtrec-work"}


def read(tmp_path: Path, content: Any, **changes: Any) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_cluster(path, **changes)


def test_every_component_gets_something_without_a_word(tmp_path: Path) -> None:
    cluster = read(tmp_path, {})
    assert len(COMPONENTS) >= 10
    for name in COMPONENTS:
        step = cluster.step(name)
        assert (step.cpu, step.cpu_limit, step.memory, step.memory_limit) == ("500m", "2", "1Gi", "4Gi")
    assert cluster.trainer() == ""
    assert cluster.parameters() == {}


def test_a_step_is_laid_over_the_defaults_and_these_over_the_standard(tmp_path: Path) -> None:
    given = {
        "defaults": {"memory": "3Gi", "secrets": {"mlflow": {"password": "P"}}, "tolerations": [{"key": "spot"}]},
        "steps": {
            "fine_tune_model": {
                "cpu": "2",
                "gpus": 1,
                "secrets": {"store": {"key": "K"}},
                "tolerations": [{"key": "spot"}, {"key": "gpu", "effect": "NoSchedule"}],
            }
        },
    }
    cluster = read(tmp_path, given)
    step = cluster.step("fine_tune_model")
    assert (step.cpu, step.cpu_limit, step.memory, step.memory_limit, step.gpus) == ("2", "2", "3Gi", "4Gi", 1)
    assert step.secrets == {"mlflow": {"password": "P"}, "store": {"key": "K"}}
    assert step.tolerations == [Toleration(key="spot"), Toleration(key="gpu", effect="NoSchedule")]
    assert cluster.step("gate_model").secrets == {"mlflow": {"password": "P"}}
    assert cluster.step("gate_model").gpus is None


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"stepps": {}}, ["stepps: unknown key; did you mean steps?"]),
        ({"steps": {"fine_tune": {}}}, ["steps: fine_tune: no such component (known: decide_retraining, "]),
        ({"steps": {"gate_model": {"cpus": 1}}}, ["steps.gate_model.cpus: unknown key; did you mean"]),
        ({"defaults": {"memory": "2GB"}}, ["defaults.memory: no amount of memory: write 2G or 2Gi (got '2GB')"]),
        ({"defaults": {"memory": "512m"}}, ["no amount of memory: write 512M or 512Mi (got '512m')"]),
        ({"defaults": {"memory": "much"}}, ["no amount of memory: write 512Mi or 2Gi (got 'much')"]),
        (
            {"defaults": {"memory": 2048}},
            ["defaults.memory: less than 1Mi: write the amount with its unit, as 512Mi"],
        ),
        ({"tmp_size": "0"}, ["tmp_size: less than 1Mi"]),
        ({"defaults": {"cpu": 0}}, ["defaults.cpu: no number of processors: write 2, 0.5 or 500m (got 0)"]),
        ({"defaults": {"cpu": "0m"}}, ["no number of processors"]),
        ({"defaults": {"cpu": "two"}}, ["no number of processors"]),
        ({"defaults": {"shared_memory": "5Gi"}}, ["defaults: shared_memory 5Gi is more than memory_limit 4Gi"]),
        ({"defaults": {"cpu": "3"}}, ["defaults: cpu 3 is more than cpu_limit 2"]),
        (
            {"steps": {"gate_model": {"memory": "8Gi"}}},
            ["steps.gate_model: memory 8Gi is more than memory_limit 4Gi"],
        ),
        ({"retries": {}}, ["retries need storage"]),
        ({"train_job": {"nodes": 2}}, ["several nodes or GPUs needs storage"]),
        ({"steps": {"fine_tune_model": {"gpus": 2}}}, ["several nodes or GPUs needs storage"]),
        (
            {"storage": {"claim": "a", "mount": "mtrec"}},
            ["storage.mount: no folder for a volume: write an absolute"],
        ),
        ({"storage": {"claim": "a", "mount": "/"}}, ["storage.mount: no folder"]),
        ({"storage": {"claim": "a", "mount": "/a/../tmp"}}, ["storage.mount: no folder"]),
        ({"storage": {"claim": "a", "mount": "/tmp"}}, ["storage.mount: a pod has its own /tmp, /dev"]),
        ({"storage": {"claim": "a", "mount": "/tmp/work/"}}, ["storage.mount: a pod has its own"]),
        ({"storage": {"claim": "a", "mount": "/dev/shm"}}, ["storage.mount: a pod has its own"]),
        ({"defaults": {"tolerations": [{"key": "a", "operator": "Equal"}]}}, ["value goes with operator: Equal"]),
        (
            {"defaults": {"tolerations": [{}]}},
            ["defaults.tolerations.0: name the key of the taint, or write operator"],
        ),
        ({"defaults": {"tolerations": [{"effect": "NoSchedule"}]}}, ["tolerations.0: name the key of the taint"]),
        ({"defaults": {"tolerations": [{"operator": "Equal", "value": "a"}]}}, ["name the key of the taint"]),
        ({"defaults": {"tolerations": [{"key": "no key"}]}}, ["tolerations.0.key: at most 63 letters"]),
        ({"defaults": {"tolerations": ["gpu"]}}, ["tolerations.0: a mapping of keys is expected (got 'gpu')"]),
        (
            {"defaults": {"node_selector": {"a/b/c": "d"}}},
            ["defaults.node_selector: 'a/b/c' is no label: at most 63"],
        ),
        (
            {"defaults": {"node_selector": {"a": True}}},
            ['node_selector.a: text is expected: write it in quotes, as "true"'],
        ),
        ({"defaults": {"labels": {"a": "b c"}}}, ["defaults.labels.a: at most 63 letters", "(got 'b c')"]),
        ({"defaults": {"labels": {"a": "b" * 64}}}, ["defaults.labels.a: at most 63 letters"]),
        (
            {"steps": {"gate_model": {"labels": {"app.kubernetes.io/part-of": "shop"}}}},
            ["steps.gate_model.labels: app.kubernetes.io/part-of stays mtrec: the NetworkPolicies find"],
        ),
        (
            {"namespace": "Mine", "shards": 0},
            ["namespace: small letters, digits and '-'", "shards: Input should be gr"],
        ),
        ({"namespace": "n" * 64}, ["namespace: longer than 63 characters"]),
        (
            {"service_account": "Me"},
            [
                "yaml: service_account: small letters, digits, '-' and '.' are allowed, with a letter or digit "
                "first and last (got 'Me')"
            ],
        ),
        ({"defaults": {"secrets": {"a": {"b": "not a var"}}}}, ["defaults.secrets.a.b: no environment variable"]),
        (
            {"defaults": {"secrets": {"MTREC_x": {"b": "B"}}}},
            ["defaults.secrets: 'MTREC_x' is no name: small letters"],
        ),
        ({"defaults": {"secrets": {"a": {"b c": "B"}}}}, ["defaults.secrets.a: 'b c' is no key of a secret"]),
        (
            {
                "defaults": {"secrets": {"a": {"k": "V"}}},
                "steps": {"gate_model": {"config_maps": {"b": {"k": "V"}}}},
            },
            ["yaml: steps.gate_model: V would come from k of secret a and k of ConfigMap b: take it from one"],
        ),
        (
            {"defaults": {"config_maps": {"a": {"k": "MTREC_LEASES"}}}},
            ["defaults: MTREC_LEASES is set by mtrec itself: take it out of k of ConfigMap a"],
        ),
        ({"defaults": {"gpu_type": "nvidia"}}, ["defaults.gpu_type: no resource of nodes: write domain/name"]),
        ({"lease_hours": float("inf")}, ["lease_hours: Input should be less than or equal to 720"]),
        ({"image": "foo bar"}, ["image: no image: write registry/name:tag or"]),
        ({"image": "ghcr.io/Me/python:1"}, ["image: no image", "the name in small letters"]),
        ({"image": "Me/python:1"}, ["image: no image"]),
        ({"image": "me/python@sha256:1"}, ["image: no image"]),
        ({"pipeline_root": "bucket/path"}, ["pipeline_root: no URI: write it as s3://bucket/path"]),
        ({"storage": {"claim": "a", "dvc_root": "../x"}}, ["storage.dvc_root: no folder below the mount"]),
        ({"storage": {"claim": "a", "dvc_root": "x/../../y"}}, ["storage.dvc_root: no folder below the mount"]),
        (
            {
                "storage": STORAGE,
                "train_job": {"nodes": 2, "runtime": "local"},
                "steps": {"fine_tune_model": {"gpus": 1}},
            },
            ["train_job with steps.fine_tune_model: runtime local: nodes on one machine would share its GPUs"],
        ),
        ("", ["a cluster's configuration is a mapping of keys, found nothing"]),
        ([], ["a cluster's configuration is a mapping of keys, found list"]),
        ("a: [", ["cluster.yaml:", "not valid YAML"]),
        ("image: a\nimage: b\n", ["cluster.yaml:2: not valid YAML (key 'image' is there twice, first in line 1)"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_every_place(tmp_path: Path, given: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, given)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "cluster.yaml"))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_number_is_a_quantity(tmp_path: Path) -> None:
    step = read(tmp_path, {"defaults": {"cpu": 2, "cpu_limit": 2.5}}).step("gate_model")
    assert (step.cpu, step.cpu_limit) == ("2", "2.5")


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("1.5Gi", "1536Mi"),
        ("2.0Gi", "2Gi"),
        ("0.1Gi", "107374183"),
        ("1.5G", "1500M"),
        ("5000k", "5M"),
        ("3G", "3G"),
    ],
)
def test_memory_is_handed_on_as_a_whole_number(tmp_path: Path, given: str, whole: str) -> None:
    step = read(tmp_path, {"defaults": {"memory": given}}).step("gate_model")
    assert step.memory == whole  # KFP takes no other
    assert parse_quantity(whole) == math.ceil(parse_quantity(given))


def test_one_wrong_value_is_one_part_of_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, {"service_account": "Me", "defaults": {"cpu": "x", "secrets": {"Me": {"b": "B"}}}})
    assert len(str(caught.value).split("; ")) == 3


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "localhost:5000/python",
        "Registry.Example.com:443/team/sub_team/my--python:1.0-RC1",
        "host:5000/a/b@sha256:" + "a" * 64,
        "a/python:1@sha256:" + "a" * 64,
    ],
)
def test_images_by_every_kind_of_name(tmp_path: Path, image: str) -> None:
    assert read(tmp_path, {"image": image}).image == image


def test_what_kubernetes_takes_is_taken(tmp_path: Path) -> None:
    step = {
        "tolerations": [{"operator": "Exists"}, {"key": "a.b/c", "operator": "Equal", "value": ""}],
        "node_selector": {"nvidia.com/gpu.present": "true", "empty": ""},
        "labels": {"app.kubernetes.io/part-of": "mtrec"},
        "secrets": {"a": {"k": "V"}},
        "shared_memory": "4Gi",
    }
    given = {"defaults": step, "steps": {"gate_model": {"secrets": {"a": {"other": "V"}}}}}
    cluster = read(tmp_path, given | {"service_account": "", "storage": {"claim": "a", "mount": "/tmp-of-mine"}})
    assert cluster.step("gate_model").tolerations[0] == Toleration(operator="Exists")
    assert cluster.step("gate_model").secrets == {"a": {"other": "V"}}


def test_variables_that_steps_are_given_are_nobody_elses() -> None:
    for name in (placing.NODE, placing.FAILURES, "MTREC_LEASES"):
        assert any(name in line for line in Step(secrets={"a": {"k": name}}).problems())


def test_no_file_names_one_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere.yaml: no such file; k8s/cluster/cluster.yaml is one to begin with"
    ):
        load_cluster(tmp_path / "nowhere.yaml")


def test_what_is_given_beside_the_file_counts(tmp_path: Path) -> None:
    assert read(tmp_path, {"image": "a/python:1"}, image="b/python:2").image == "b/python:2"
    assert read(tmp_path, {"image": "a/python:1"}, image=None).image == "a/python:1"


def test_training_on_several_nodes_is_told_where_they_are(tmp_path: Path) -> None:
    given = {
        "namespace": "shops",
        "storage": STORAGE,
        "train_job": {"nodes": 2, "runtime": "fast"},
        "steps": {
            "fine_tune_model": {"image": "cuda/python:1", "gpus": 4, "cpu_limit": "8", "timeout_minutes": 90}
        },
    }
    place = json.loads(read(tmp_path, given).trainer())
    assert place == {
        "num_nodes": 2,
        "gpus_per_node": 4,
        "gpu_type": "nvidia.com/gpu",
        "image": "cuda/python:1",
        "runtime": "fast",
        "namespace": "shops",
        "work": "/mtrec/training",
        "cpu": "8",
        "memory": "4Gi",
        "deadline_seconds": 5400,
    }
    assert Place.from_text(json.dumps(place)).distributed
    assert read(tmp_path, given | {"train_job": {}, "steps": {}}).trainer() == ""


def test_paths_are_below_the_mount_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    cluster = read(tmp_path, {"storage": STORAGE | {"mount": "/data/", "checkpoints": ""}})
    assert cluster.parameters() == {"dvc_root": "/data/dvc", "text_cache": "/data/texts"}


def test_the_file_in_the_repository_is_right(repository: Path) -> None:
    cluster = load_cluster(repository / "k8s" / "cluster" / "cluster.yaml")
    assert cluster.step("fine_tune_model").gpus == 1
    assert cluster.step("ingest_data").secrets.keys() == {"mtrec-mlflow", "mtrec-object-store"}
    assert cluster.step("gate_model").secrets.keys() == {"mtrec-mlflow"}
    assert cluster.retries is not None


def test_the_file_of_the_overlay_for_development_is_right(repository: Path) -> None:
    overlay = repository / "k8s" / "overlays" / "dev"
    cluster = load_cluster(overlay / "cluster.yaml")
    assert f"namespace: {cluster.namespace}\n" in (overlay / "runs" / "kustomization.yaml").read_text()
    assert not cluster.distributed
    assert cluster.step("fine_tune_model").gpus is None


def test_nothing_of_a_step_is_lost_when_it_is_laid_over_another() -> None:
    step = Step(cpu="1", shared_memory="1Gi", node_selector={"a": "b"}, labels={"c": "d"})
    assert step.over(Step()) == step
    assert Step().over(step) == step


def test_the_reference_is_up_to_date(repository: Path) -> None:
    page = (repository / "docs" / "cluster-file.md").read_text(encoding="utf-8")
    assert page == cluster_reference(), "the configuration's models changed: run `make docs`"
    for model in (Cluster, *(model for _, model in walk(Cluster))):
        for name in model.model_fields:
            assert describe(model, name), f"{model.__name__}.{name} is not described"
