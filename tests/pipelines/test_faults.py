"""The fault table: whatever dies wherever, champion and data are intact, and the same command again succeeds.

Real runs in processes of their own, against a real MLflow server where it is the server that goes away. Each fault
has data of its own, so that each makes a new candidate; they share a champion.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from mtrec.data.versioning import restore
from mtrec.tracking import RegisteredVersion, list_models
from tests.mlflow_server import Server
from tests.unit.tiny_shop import DIALS, save_bert, shop_tables, words

pytestmark = pytest.mark.slow
FAULTS = Path(__file__).parent / "faults"
STAGES = ("ingest", "validate", "preprocess", "fine_tune", "evaluate", "gate", "register")


@dataclass(kw_only=True)
class Place:
    """A working directory with a champion."""

    folder: Path
    uri: str | None = None
    """MLflow; None: the store in the folder."""
    seed: int = 10
    before: list[RegisteredVersion] = field(default_factory=list)

    def run(self, fault: str = "", *, wait: bool = True) -> subprocess.Popen[str]:
        """`mtrec run` on the data of the present seed, in a session of its own that can be killed as a whole."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        paths = [str(FAULTS), environment.get("PYTHONPATH", "")]
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "FAULT": fault}
        if self.uri:
            environment |= {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        settings = ["--set", f"source.options.seed={self.seed}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "run", "--scenario", "shop.yaml", *settings],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if wait:
            self.out, self.err = process.communicate(timeout=300)
        return process

    def models(self) -> list[RegisteredVersion]:
        return list_models(self.uri or f"sqlite:///{self.folder}/.mtrec/mlflow.db")

    def champion(self) -> RegisteredVersion:
        (found,) = [model for model in self.models() if "champion" in model.aliases]
        return found

    def new_data(self) -> None:
        """Data that no run has seen yet."""
        self.seed += 1
        self.before = self.models()

    def assert_intact(self, tmp_path: Path) -> None:
        """The champion is the same, and so is its data, byte for byte."""
        champion = self.champion()
        assert champion in self.before
        restore(champion.tags["data_version"], tmp_path / f"back-{time.time_ns()}", self.folder / ".mtrec" / "dvc")

    def assert_succeeds(self, tmp_path: Path) -> None:
        """The same command again registers just one candidate more."""
        assert self.run().returncode == 0, self.err
        self.assert_intact(tmp_path)
        new = [model for model in self.models() if model not in self.before]
        new = [model for model in new if model.name.endswith("-candidate") and "candidate" in model.aliases]
        assert len(new) == 1
        numbers = [m for m in self.models() if m.name == new[0].name]
        lineages = [m.tags["lineage"] for m in numbers if "lineage" in m.tags]
        assert len(lineages) == len(set(lineages)) == len(numbers)


def scenario_file(folder: Path) -> None:
    tables = shop_tables(DIALS)[0]
    texts = [*tables.items["title"].drop_nulls(), *tables.items["description"].drop_nulls()]
    encoder = {"name": str(save_bert(folder / "bert", words(texts))), "max_length": 24}
    raw = {
        "name": "shop",
        "source": {"type": "simulated", "options": DIALS},
        "items": {"text": "{title}. {description}", "categorical": ["brand", "category"]},
        "events": ["view", "cart", "purchase", "rating"],
        "rating_range": [1, 5],
        "tasks": {
            "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
            "next_item": {"type": "next_item", "events": ["view", "cart", "purchase"]},
        },
        "model": {"encoder": encoder, "width": 16},
        "training": {"epochs": 2, "batch_size": 16, "texts_per_step": 8, "precision": "fp32", "device": "cpu"},
        "gate": {"must_improve": False, "max_regression": 10.0, "floors": {"rating.rmse": 100.0}},
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(raw))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(folder=tmp_path_factory.mktemp("place"))
    scenario_file(found.folder)
    assert found.run().returncode == 0, found.err
    return found


@pytest.mark.parametrize(
    "fault",
    [f"before {STAGES[0]}", *(f"after {stage}" for stage in STAGES), "during fine_tune"],
)
def test_the_machine_dies(place: Place, fault: str, tmp_path: Path) -> None:
    """The process group is killed: the run, and the step that it waits for."""
    place.new_data()
    assert place.run(fault).returncode == -signal.SIGKILL
    place.assert_intact(tmp_path)
    place.assert_succeeds(tmp_path)
    if fault in ("during fine_tune", "after fine_tune", "after evaluate"):
        assert "Going on with run" in place.out


@pytest.mark.parametrize(
    ("fault", "said"),
    [("full fine_tune", "the disk is full"), ("lost register", "closed before the answer came")],
)
def test_a_write_fails(place: Place, fault: str, said: str, tmp_path: Path) -> None:
    place.new_data()
    assert place.run(fault).returncode == 1
    assert place.err.count("\n") == 1, "one line"
    assert said in place.err
    place.assert_intact(tmp_path)
    place.assert_succeeds(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Server]]:
    folder = tmp_path_factory.mktemp("served")
    scenario_file(folder)
    server = Server(folder)
    server.start()
    found = Place(folder=folder, uri=server.uri)
    try:
        assert found.run().returncode == 0, found.err
        yield found, server
    finally:
        server.stop()


@pytest.mark.parametrize("step", ["", "fine_tune_model", "register_model"])
def test_the_mlflow_server_goes_away(served: tuple[Place, Server], step: str, tmp_path: Path) -> None:
    """At the start of the run, in the middle, at the end."""
    place, server = served
    place.new_data()
    if not step:
        server.stop()
    run = place.run(wait=False)
    assert run.stdout is not None
    assert run.stderr is not None
    if step:
        for line in run.stdout:
            if line.startswith(f"{step} ") and "started" in line:
                break
        server.stop()
    run.stdout.read()
    said = run.stderr.read()
    assert run.wait(300) == 1, said
    assert "MLflow" in said.splitlines()[-1]
    server.start()
    place.assert_intact(tmp_path)
    place.assert_succeeds(tmp_path)


def test_two_at_once_end_with_one_run_and_one_clear_message(place: Place, tmp_path: Path) -> None:
    """Two folders share one store: what keeps them apart is the lease beside it."""
    place.new_data()
    other = Place(folder=tmp_path, uri=f"sqlite:///{place.folder}/.mtrec/mlflow.db", seed=place.seed)
    (tmp_path / "shop.yaml").write_text((place.folder / "shop.yaml").read_text())
    both = [one.run(wait=False) for one in (place, other)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    (refused,) = filter(None, said)
    assert refused.startswith("mtrec: training of shop is under way already (")
    assert refused.count("\n") == 1


def test_decisions_are_as_json_says(place: Place) -> None:
    """What a killed run leaves behind in its folder is whole."""
    for path in (place.folder / ".mtrec" / "runs").glob("*/run.json"):
        assert json.loads(path.read_text())["state"] in ("finished", "failed", "running")
