import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtrec.errors import ConfigError
from mtrec.training.nodes import Job, Place, job_name, run_label

NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
RUNS = ("shop-20261123-ab12", "Shop Ärger 2026/11", "x" * 200, "é", "7", "", "-", "a" * 39 + "-b")


def test_a_place_is_read_from_the_text_that_it_makes() -> None:
    place = Place(num_nodes=2, gpus_per_node=8, work=Path("/mtrec/training"), cpu="500m", memory="64Gi")
    assert Place.from_text(place.as_text()) == place
    assert Place.from_text('{"work": "/mtrec"}') == Place(work=Path("/mtrec"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "trainer: Invalid JSON"),
        ("[]", "trainer: Input should be an object"),
        ("{}", "trainer: work: Field required"),
        ('{"work": "/w", "num_nodes": 0}', "num_nodes: Input should be greater than or equal to 1 (got 0)"),
        ('{"work": "/w", "num_nodes": "2"}', "num_nodes: Input should be a valid integer (got '2')"),
        ('{"work": "/w", "memory": "much"}', "memory: String should match pattern"),
        ('{"work": "/w", "nodes": 2}', "nodes: unknown key (known: num_nodes, gpus_per_node, "),
        ('{"work": "here"}', "trainer: work: here is no absolute path"),
        ('{"work": "/w", "runtime": "local", "num_nodes": 2, "gpus_per_node": 1}', "would share its GPUs"),
    ],
)
def test_a_wrong_place_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Place.from_text(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_wrong_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"num_nodes: .*; cpu: .*; nodes: .*"):
        Place.from_text('{"work": "/w", "num_nodes": 0, "cpu": "two", "nodes": 2}')


@pytest.mark.parametrize(
    ("settings", "processes", "distributed"),
    [
        ({}, 1, False),
        ({"gpus_per_node": 1}, 1, False),
        ({"gpus_per_node": 4}, 4, True),
        ({"num_nodes": 2}, 1, True),
        ({"processes_per_node": 2}, 2, True),
        ({"gpus_per_node": 4, "processes_per_node": 1}, 1, True),
    ],
)
def test_what_needs_more_than_one_process(settings: dict[str, Any], processes: int, distributed: bool) -> None:
    place = Place(work=Path("/w"), **settings)
    assert (place.processes, place.distributed) == (processes, distributed)


@pytest.mark.parametrize("run", RUNS)
def test_names_are_what_kubernetes_takes(run: str) -> None:
    name = job_name(run, "key")
    assert NAME.fullmatch(name)
    assert len(f"{name}-node-0-1000-abcde") <= 63, "its pods' names"
    assert len(run_label(run)) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", run_label(run))


def test_names_follow_the_run_and_what_is_trained() -> None:
    assert len({job_name(run, key) for run in RUNS for key in ("a", "b")}) == 2 * len(RUNS)
    assert len({run_label(run) for run in RUNS}) == len(RUNS)
    assert job_name("shop", "a") == job_name("shop", "a")


def test_the_digest_is_of_all_that_the_nodes_are_told() -> None:
    given: dict[str, Any] = {"name": "n", "label": "l", "place": Place(work=Path("/w")), "arguments": ("a",)}
    jobs = [
        Job(**given),
        Job(**given | {"arguments": ("b",)}),
        Job(**given | {"place": Place(work=Path("/w"), num_nodes=2)}),
        Job(**given, env={"A": "1"}),
    ]
    assert len({job.digest for job in jobs}) == 4
    assert Job(**given).digest == jobs[0].digest


def test_a_place_needs_neither_torch_nor_the_kubeflow_sdk() -> None:
    modules = "mtrec.training.nodes, mtrec.training.trainjob, mtrec.training.torchrun"
    code = f"import sys, {modules}; print({{'torch', 'kubeflow', 'kubernetes'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"
