"""The same through a real MLflow server, which several machines share and no file lock protects."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtrec import tracking
from tests.mlflow_server import Server

LINEAGE = {"data_version": "0" * 32 + ".dir", "code_revision": "abc", "parameters_hash": "123", "image": "local"}
SCRIPT = """
import json, sys, time
from pathlib import Path
from mtrec import tracking
from mtrec.config import load_scenario
import mlflow.pyfunc, mtrec.serving.predictor
given = json.loads(sys.argv[1])
Path(given["ready"]).touch()
while not Path(given["go"]).exists():
    time.sleep(0.002)
done = tracking.register(
    Path(given["model"]), scenario=load_scenario(given["scenario"]), lineage=given["lineage"],
    tracking_uri=given["uri"], **{k: Path(v) for k, v in given["judged"].items()},
)
print(json.dumps([done.version, done.champion, done.champion_version]))
"""


@pytest.fixture
def server(prepared_store: Path, tmp_path: Path) -> Iterator[str]:
    shutil.copy(prepared_store, tmp_path / "server.db")
    found = Server(tmp_path)
    found.start()
    yield found.uri
    found.stop()


@pytest.mark.slow
def test_two_machines_register_the_same_lineage_on_one_server(
    server: str, tiny_model: Path, judged: Callable[..., dict[str, Path]], repository: Path, tmp_path: Path
) -> None:
    files = {key: str(path) for key, path in judged().items()}
    processes = []
    for name in ("a", "b"):
        given = {
            "ready": str(tmp_path / f"ready-{name}"),
            "go": str(tmp_path / "go"),
            "model": str(tiny_model),
            "scenario": str(repository / "scenarios" / "ecommerce.yaml"),
            "lineage": LINEAGE | {"pipeline_run": name},
            "uri": server,
            "judged": files,
        }
        (tmp_path / name).mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, json.dumps(given)],
                cwd=tmp_path / name,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.05)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1].decode()
    assert [json.loads(out) for out, _ in outputs] == [["1", True, "1"]] * 2
    listed = {(row.name, row.version): row.aliases for row in tracking.list_models(server)}
    assert listed == {("ecommerce", "1"): ("champion",), ("ecommerce-candidate", "1"): ("candidate",)}
    kept = {path.name for path in tmp_path.glob("[ab]/.mtrec/*")}
    assert kept <= {"locks"}, "a server needs no local state"

    champion = tracking.download_champion("ecommerce", tmp_path / "champion", server)
    assert champion is not None
    fetched = {path.name: path.read_bytes() for path in champion.folder.glob("*.safetensors")}
    assert fetched == {path.name: path.read_bytes() for path in tiny_model.glob("*.safetensors")}
    code = (
        "import mlflow.pyfunc; (answer,) = mlflow.pyfunc.load_model('models:/ecommerce@champion')"
        ".predict([{'num_items': 2}]); print(len(answer.item_ids))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "2"
