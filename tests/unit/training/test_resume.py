"""A run that is killed and started again ends exactly like one that never was: for real, with SIGKILL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.progress import Progress, listening
from mtrec.stages import fine_tune, preprocess
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables

VICTIMS = """
import json, os, signal, sys
from pathlib import Path

import sklearn.metrics  # what training imports later; the two victims share it
from transformers import AutoModel, AutoTokenizer, BertModel  # noqa: F401

from mtrec.config import parse_scenario
from mtrec.progress import listening
from mtrec.stages import fine_tune

folder = Path(sys.argv[1])
scenario = parse_scenario(json.loads((folder / "scenario.json").read_text()))

def killer(checkpoints, steps):
    left = steps
    def listen(progress):
        nonlocal left
        if (checkpoints / "state.json").is_file():
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
    return listen

for name, steps in (("after", 0), ("middle", 4)):
    victim = os.fork()
    if victim == 0:
        with listening(killer(folder / name, steps)):
            fine_tune.run(
                fine_tune.Inputs(
                    dataset=folder / "dataset", checkpoints=folder / name, code_revision="a-revision"
                ),
                fine_tune.Outputs(model=folder / f"{name}-model", losses=folder / f"{name}-losses.jsonl"),
                scenario,
            )
        os._exit(0)
    print(name, os.WTERMSIG(os.waitpid(victim, 0)[1]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> Path:
    """A dataset, the end of an unbroken run, and the checkpoints of two that were killed."""
    folder = tmp_path_factory.mktemp("resume")
    shop_tables(DIALS)[0].write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    (folder / "scenario.json").write_text(json.dumps(scenario.as_dict()))
    done = subprocess.run(
        [sys.executable, "-c", VICTIMS, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == [f"{name} {int(signal.SIGKILL)}" for name in ("after", "middle")]
    run(folder, "unbroken", scenario, folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def scenario(tiny_bert: Path) -> Scenario:
    training = {"epochs": 3, "batch_size": 16, "texts_per_step": 8, "precision": "fp32", "device": "cpu"}
    return shop_scenario(tiny_bert, training=training)


def run(folder: Path, name: str, scenario: Scenario, dataset: Path) -> tuple[dict[str, Any], list[Progress]]:
    reports: list[Progress] = []
    with listening(reports.append):
        summary = fine_tune.run(
            fine_tune.Inputs(dataset=dataset, checkpoints=folder / name, code_revision="a-revision"),
            fine_tune.Outputs(model=folder / f"{name}-model", losses=folder / f"{name}-losses.jsonl"),
            scenario,
        )
    return summary, reports


def history(path: Path) -> list[dict[str, Any]]:
    """The loss history without the clock."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("name", ["after", "middle"])
def test_a_killed_run_ends_like_an_unbroken_one(name: str, folder: Path, scenario: Scenario) -> None:
    assert not (folder / f"{name}-model").exists()
    assert not (folder / f"{name}-losses.jsonl").exists()
    state = json.loads((folder / name / "state.json").read_text())
    assert state["progress"]["epoch"] == 1
    summary, reports = run(folder, name, scenario, folder / "dataset")
    # It went on after the first epoch: no step was reported before it.
    fractions = [r.fraction for r in reports if r.fraction]
    assert min(fractions) > 0.25
    assert summary["epochs"] == 3
    for file in ("model.safetensors", "vectors.safetensors"):
        unbroken = load_file(folder / "unbroken-model" / file)
        resumed = load_file(folder / f"{name}-model" / file)
        assert unbroken.keys() == resumed.keys()
        different = [key for key in unbroken if not unbroken[key].equal(resumed[key])]
        assert different == []
        assert (folder / "unbroken-model" / file).read_bytes() == (folder / f"{name}-model" / file).read_bytes()
    assert history(folder / f"{name}-losses.jsonl") == history(folder / "unbroken-losses.jsonl")


def test_nothing_half_written_lies_beside_a_killed_run(folder: Path) -> None:
    left = {path.name for path in folder.iterdir()}
    whole = {"tables", "dataset", "scenario.json", "unbroken", "after", "middle"}
    finished = {f"{n}-{kind}" for n in ("unbroken", "after", "middle") for kind in ("model", "losses.jsonl")}
    assert left <= whole | finished


def test_other_settings_or_data_start_anew(folder: Path, scenario: Scenario, tmp_path: Path) -> None:
    other = scenario.model_copy(update={"training": scenario.training.model_copy(update={"seed": 1, "epochs": 1})})
    _, reports = run(folder, "unbroken", other, folder / "dataset")
    assert any(r.fraction and r.fraction <= 0.2 for r in reports)
    found = history(folder / "unbroken-losses.jsonl")
    assert found[0]["step"] == 0
    # One rating more in the training part: other data.
    tables = Tables.read(folder / "tables")
    more = Tables(users=tables.users, items=tables.items, interactions=tables.interactions.head(-5))
    more.write(tmp_path / "tables")
    preprocess.run(
        preprocess.Inputs(tables=tmp_path / "tables"), preprocess.Outputs(dataset=tmp_path / "dataset"), other
    )
    _, reports = run(folder, "unbroken", other, tmp_path / "dataset")
    assert any(r.fraction and r.fraction <= 0.2 for r in reports)
