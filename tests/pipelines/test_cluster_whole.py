"""Submit, follow, registered: the stand-in's run is the uploaded file, executed by kfp's local runner."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import following_cluster
from pipelines.cli import main
from pipelines.steps import Steps, plain
from tests.kfp_stand_in import Frame, Request, StandIn

pytestmark = pytest.mark.usefixtures("small_stages")

EXECUTE = """
import json, sys
from kfp import components, local

file, root, parameters = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
components.load_component_from_file(file)(**json.loads(parameters))
"""
_TOLD = {"running": "RUNNING", "done": "SUCCEEDED", "failed": "FAILED"}


class Executing(StandIn):
    """A stand-in whose runs do run, on this machine, from what was uploaded."""

    def __init__(self, folder: Path) -> None:
        super().__init__("2.17")
        self.folder = folder
        self.log = ""
        self.threads: list[threading.Thread] = []
        self.play = [Frame("PENDING")]

    def _create_run(self, request: Request) -> Any:
        answer = super()._create_run(request)
        documents = self.documents[answer["pipeline_version_reference"]["pipeline_version_id"]]
        arguments = (documents, answer["runtime_config"]["parameters"])
        self.threads.append(threading.Thread(target=self._execute, args=arguments))
        self.threads[-1].start()
        return answer

    def _execute(self, documents: list[Any], parameters: dict[str, Any]) -> None:
        file = self.folder / "uploaded.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        command = [sys.executable, "-c", EXECUTE, str(file), str(self.folder / "root"), json.dumps(parameters)]
        steps = Steps(following_cluster.STEPS)
        steps.changed = lambda step: self._tell("RUNNING", steps)
        with subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                self.log += line
                steps.read(plain(line))
        steps.changed = lambda step: None
        self._tell("FAILED" if child.returncode else "SUCCEEDED", steps)

    def _tell(self, state: str, steps: Steps) -> None:
        tasks = {
            name.replace("_", "-"): _TOLD[step.state] for name, step in steps.steps.items() if step.state in _TOLD
        }
        self.play = [Frame(state, tasks)]


def submitted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code, and what the runner said."""
    monkeypatch.setattr(following_cluster, "_FIRST_S", 0.1)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "not/there")
    (folder / "rows.csv").write_text("some rows")
    stand_in = Executing(folder)
    given = ["--data", str(folder / "rows.csv"), "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    for option in ("checkpoints", "dvc-root", "text-cache"):
        given += [f"--{option}", str(folder / option)]
    with stand_in.running(), pytest.raises(SystemExit) as ended:
        main(["submit", "training", "--host", stand_in.url, "--image", "local/python", "--follow", *given])
    for thread in stand_in.threads:
        thread.join()
    return int(ended.value.code or 0), stand_in.log


@pytest.mark.slow
def test_what_is_submitted_runs_to_a_registered_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, log = submitted(tmp_path, monkeypatch)
    assert code == 0, log
    out = capsys.readouterr().out
    assert "fine_tune_model  done" in out
    assert out.splitlines()[-1] == "registered"


@pytest.mark.slow
def test_a_step_that_fails_there_fails_the_command(
    small_stages: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_stages("validate=explain")
    code, log = submitted(tmp_path, monkeypatch)
    said = capsys.readouterr()
    assert code == 1, log
    assert "validate_data    failed" in said.out
    assert "mtrec: validate_data failed; the server does not tell why" in said.err
