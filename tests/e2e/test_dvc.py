"""`dvc repro`, `dvc metrics diff`, `dvc plots show` and `dvc push`, in a git checkout of this very tree."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SETTINGS = [
    "source.options={num_users: 60, num_items: 40, num_interactions: 1500}",
    "training.epochs=1",
    "model.width=16",
    "model.encoder.max_length=16",
]
STAGES = ["ingest", "validate", "preprocess", "fine_tune", "evaluate", "gate", "export"]


class Checkout:
    """A git checkout with the `dvc` command of this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str) -> str:
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "state")

    def set(self, settings: list[str]) -> None:
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["run"]["set"] = settings
        path.write_text(yaml.safe_dump(params))


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Checkout:
    folder = tmp_path / "checkout"
    for name in ("src", "scenarios"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(repository / name, folder / name)
    made = Checkout(folder)
    made.run("git", "init", "-q")
    made.set(SETTINGS)
    made.commit()
    return made


def test_the_files_fit_together(checkout: Checkout) -> None:
    assert checkout.dvc("stage", "list", "--name-only").split() == STAGES
    assert checkout.dvc("config", "core.analytics").strip() == "false"
    assert checkout.dvc("remote", "default").strip() == "local"
    lines = checkout.dvc("dag", "--mermaid")
    assert len([line for line in lines.splitlines() if "-->" in line]) >= 8


def test_ingest_and_preprocess_reproduce_and_the_remote_takes_them(checkout: Checkout) -> None:
    said = checkout.dvc("repro", "ingest")
    assert "--set 'source.options={num_users: 60, num_items: 40, num_interactions: 1500}'" in said
    summary = json.loads((checkout.folder / "data/pipeline/ingest.json").read_text())
    assert (summary["num_users"], summary["num_items"]) == (60, 40)
    lock = yaml.safe_load((checkout.folder / "dvc.lock").read_text())
    (tables,) = [out for out in lock["stages"]["ingest"]["outs"] if out["path"].endswith("tables")]
    assert tables["md5"] == summary["data_version"], "the data version in MLflow is not DVC's own"
    assert "up to date" in checkout.dvc("repro", "ingest")
    checkout.commit()
    assert "data/pipeline/tables" not in checkout.run("git", "ls-files")
    checkout.dvc("push", "-q", "ingest")
    shutil.rmtree(checkout.folder / "data/pipeline/tables")
    shutil.rmtree(checkout.folder / ".dvc/cache")
    checkout.dvc("pull", "-q", "ingest")
    code = "from mtrec.data.versioning import directory_hash, restore; from pathlib import Path; import sys\n"
    code += "print(directory_hash(Path('data/pipeline/tables'))); restore(sys.argv[1], Path('again'))"
    assert checkout.run(sys.executable, "-c", code, tables["md5"]).strip() == tables["md5"]
    assert len(list((checkout.folder / "again").iterdir())) == 3


@pytest.mark.slow
def test_the_whole_pipeline(checkout: Checkout) -> None:
    checkout.dvc("repro")
    metrics = checkout.folder / "data/pipeline/metrics.json"
    first = metrics.read_bytes()
    assert {"rating", "purchase", "next_item"} <= json.loads(first).keys()
    checkout.commit()
    assert checkout.run("git", "status", "--short") == ""
    assert "up to date" in checkout.dvc("status")

    for name in ("evaluation.json", "model", "metrics.json", "plots"):
        path = checkout.folder / "data/pipeline" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    checkout.dvc("repro", "--force", "--single-item", "fine_tune", "evaluate", "export")
    assert metrics.read_bytes() == first, "equal inputs gave other metrics"

    checkout.set([*SETTINGS, "training.lr=0.02", "training.seed=1"])
    checkout.dvc("repro")
    changed = json.loads(checkout.dvc("metrics", "diff", "--json"))["data/pipeline/metrics.json"]
    assert changed["rating.rmse"]["new"] != changed["rating.rmse"]["old"]

    checkout.dvc("plots", "show", "-o", "page")
    page = (checkout.folder / "page" / "index.html").read_text()
    for picture in (
        "losses/rating.csv",
        "losses/validation score.csv",
        "metrics/next_item.csv",
        "reliability/purchase.csv",
        "cosines/next_item.csv",
    ):
        assert picture in page, f"no picture of {picture}"
