"""Two processes under torchrun train what one process trains, and go on where one stopped."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mtrec.config import Scenario, parse_scenario
from mtrec.serving.predictor import Predictor
from mtrec.stages import preprocess
from mtrec.training.distributed import Examples, Processes
from tests.unit.champions import register_champion
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables
from tests.unit.training import torchrun_worker

RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"training": {"parallel": "fsdp"}},
    "in pieces": {"training": {"texts_at_once": 2, "accumulate": 2, "epochs": 1}},
    "fewer windows than processes": {"training": {"batch_size": 1, "epochs": 1}},
    "dropout": {"model": {"dropout": 0.2}},
}
"""All but the last without dropout, so that two processes must do the same as one."""
MORE: dict[str, dict[str, Any]] = {
    "cagrad": {"training": {"balancing": "cagrad", "epochs": 1}},
    "fsdp, upgrad": {"training": {"balancing": "upgrad", "parallel": "fsdp", "epochs": 1}},
    "uncertainty": {"training": {"balancing": "uncertainty", "epochs": 1}},
    "second passes": {"training": {"r_drop": 1.0, "adversarial": 0.1, "text_augmentation": 0.2, "epochs": 1}},
    "fsdp, in pieces": {"training": {"texts_at_once": 2, "accumulate": 2, "parallel": "fsdp", "epochs": 1}},
    "from the champion": {"training": {"start": "champion", "epochs": 1}},
    "from the champion, fsdp": {"training": {"start": "champion", "parallel": "fsdp", "epochs": 1}},
}
"""Only for the slow tests."""
ALL = [*RUNS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """The runs by one process and then, in folders that end in 2, by two, which also take up those of one."""
    folder = tmp_path_factory.mktemp("distributed")
    scenario = without_dropout(shop_scenario(tiny_bert), folder)
    (folder / "scenario.json").write_text(json.dumps(scenario.as_dict()))
    shop_tables(DIALS)[0].write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), scenario
    )
    train(folder, RUNS, resumed=["ddp", "fsdp"])
    return folder


@pytest.fixture(scope="module")
def many(few: Path, prepared_store: Path) -> Path:
    """More runs in the same folder; the model of "ddp" is the champion."""
    shutil.copy(prepared_store, few / "mlflow.db")
    scenario = parse_scenario(json.loads((few / "scenario.json").read_text()))
    store: dict[str, Any] = {"uri": f"sqlite:///{few}/mlflow.db", "dvc": few / "dvc"}
    register_champion(scenario, few / "ddp" / "model", few / "tables", **store)
    train(few, MORE)
    return few


@pytest.fixture
def folder(name: str, request: pytest.FixtureRequest) -> Path:
    """Where the run `name` of a parametrized test is."""
    found: Path = request.getfixturevalue("many" if name in MORE else "few")
    return found


def train(folder: Path, runs: dict[str, dict[str, Any]], resumed: Sequence[str] = ()) -> None:
    for name, settings in runs.items():
        torchrun_worker.run(folder, name, settings)
    wishes = [{"name": f"{name}2", "settings": settings} for name, settings in runs.items()]
    wishes += [{"name": f"{name} resumed2", "settings": runs[name], "resume": name} for name in resumed]
    done = torchrun(folder, *wishes, timeout=240)
    assert done.returncode == 0, done.stderr
    for name in resumed:
        torchrun_worker.run(folder, f"{name} resumed", runs[name], resume=f"{name}2")


def without_dropout(scenario: Scenario, folder: Path) -> Scenario:
    from transformers import AutoModel, AutoTokenizer

    name = scenario.model.encoder.name
    encoder = AutoModel.from_pretrained(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder.save_pretrained(folder / "encoder")
    AutoTokenizer.from_pretrained(name).save_pretrained(folder / "encoder")
    change = {"dropout": 0.0, "encoder": scenario.model.encoder.model_copy(update={"name": f"{folder}/encoder"})}
    return scenario.model_copy(update={"model": scenario.model.model_copy(update=change)})


def torchrun(folder: Path, *wishes: dict[str, Any], timeout: float) -> subprocess.CompletedProcess[str]:
    return launch([torchrun_worker.__file__, str(folder), json.dumps(wishes)], timeout)


def launch(arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the processes said to people."""
    return [line for line in done.stderr.splitlines() if line.startswith("mtrec: ")]


def history(folder: Path, name: str, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / name / "losses.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def check_equal(folder: Path, one: str, two: str) -> None:
    """Loss curves, skills and weights agree, but for the order in which numbers are added up."""
    for kind, part in (("train", "losses"), ("valid", "metrics")):
        a, b = history(folder, one, kind), history(folder, two, kind)
        assert [line["step"] for line in a] == [line["step"] for line in b]
        for first, second in zip(a, b, strict=True):
            assert second[part] == pytest.approx(first[part], rel=1e-3, abs=1e-3)
    for first, second in zip(history(folder, one, "tasks"), history(folder, two, "tasks"), strict=True):
        np.testing.assert_allclose(second["cosines"], first["cosines"], atol=2e-3)
        np.testing.assert_allclose(second["norms"], first["norms"], rtol=2e-3, atol=1e-5)
    a, b = (load_file(folder / name / "model" / "model.safetensors") for name in (one, two))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", [name for name in ALL if name != "dropout"])
def test_two_processes_train_what_one_trains(name: str, folder: Path) -> None:
    check_equal(folder, name, f"{name}2")


def test_with_dropout_they_learn_as_much(few: Path) -> None:
    lines = [history(few, name, "train") for name in ("ddp", "dropout", "dropout2")]
    without, one, two = ({t: np.mean([r["losses"][t] for r in run]) for t in run[0]["losses"]} for run in lines)
    assert one != pytest.approx(without, rel=1e-4), "dropout makes a difference"
    assert two != pytest.approx(one, rel=1e-4), "and is drawn by each process for itself"
    assert two == pytest.approx(one, rel=0.05, abs=0.05)
    skills = [history(few, name, "valid")[-1]["metrics"].values() for name in ("dropout", "dropout2")]
    assert np.mean([*skills[1]]) == pytest.approx(np.mean([*skills[0]]), abs=0.05)


@pytest.mark.parametrize("name", ALL)
def test_the_processes_have_the_same_weights_to_the_last_bit(name: str, folder: Path) -> None:
    a, b = (load_file(folder / f"{name}2" / f"rank{rank}.safetensors") for rank in (0, 1))
    assert len(a) > 20
    assert [key for key in a if not a[key].equal(b[key])] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["from the champion", "from the champion, fsdp"])
def test_they_start_from_the_champion(name: str, folder: Path) -> None:
    training = json.loads((folder / f"{name}2" / "model" / "training.json").read_text())
    assert training["started_from"]["champion"] == "tiny-shop/1"


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(name: str, folder: Path) -> None:
    for resumed in (f"{name} resumed", f"{name} resumed2"):
        fractions = [float(line) for line in (folder / resumed / "heard").read_text().split()]
        assert min(fraction for fraction in fractions if fraction) > 0.5, "the first epoch was not trained again"
        check_equal(folder, name, resumed)


def test_the_model_of_two_processes_serves(few: Path) -> None:
    predictor = Predictor.load(few / "fsdp2" / "model")
    assert len(predictor.recommend(history=predictor.item_ids[:2], num_items=5)) == 5


def test_only_the_first_process_writes_and_shows_progress(few: Path) -> None:
    fractions = [float(line) for line in (few / "ddp2" / "heard").read_text().split()]
    assert fractions == [float(line) for line in (few / "ddp" / "heard").read_text().split()]
    names = {path.name for path in (few / "ddp2").iterdir() if not path.name.startswith("rank")}
    assert names == {"model", "losses.jsonl", "checkpoints", "first", "heard"}, "nothing half-written is left"


# ------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", "another process was lost, killed or out of memory"),
        ("error", "the disk of the second machine is full"),
        ("differ", "the 2 processes do not have the same data"),
    ],
)
def test_one_process_that_fails_ends_all_with_one_line(how: str, message: str, tmp_path: Path) -> None:
    clock = time.monotonic()
    done = torchrun(tmp_path, {"fail": how}, timeout=120)
    assert done.returncode != 0
    assert time.monotonic() - clock < 60
    lines = said(done)
    # torchrun may be faster than the process that notices the loss, and ends it.
    assert len(lines) == 1 or (how == "kill" and not lines), done.stderr
    assert all(message in line for line in lines)
    assert how != "kill" or "SIGKILL" in done.stderr


def test_the_stage_runs_as_a_module_and_says_its_summary_once(few: Path, tmp_path: Path) -> None:
    arguments = ["-m", "mtrec.stages", "fine_tune", "--scenario", str(tmp_path / "scenario.yaml")]
    (tmp_path / "scenario.yaml").write_text((few / "scenario.json").read_text())
    outputs = ["--output", f"model={tmp_path}/model", "--output", f"losses={tmp_path}/losses.jsonl"]
    done = launch([*arguments, "--input", f"dataset={few}/dataset", *outputs], timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 2
    assert (tmp_path / "losses.jsonl").is_file()


# ------------------------------------------------------------------------------------------------ one process


def test_one_process_takes_everything_as_it_is() -> None:
    alone = Processes()
    rows_BT, keep_B, jacobian_KD = np.zeros((3, 4), int), torch.ones(3), torch.randn(2, 5)
    assert alone.windows(rows_BT, keep_B) == (rows_BT, keep_B)
    assert alone.part(keep_B) is keep_B
    assert alone.jacobian(jacobian_KD, 2) is jacobian_KD
    loss = Examples(mean=torch.tensor(2.0), mask=torch.ones(3))
    assert alone.means({"rating": loss})["rating"] is loss.mean
    assert alone.from_lead(lambda: 5) == 5
