"""The slim image, really built, and a component of the compiled pipeline that really runs in it.

It wants an engine that answers (ENGINE, else podman) and a base: that of components/Dockerfile where a registry can
be reached, else BASE and TORCH_INDEX as for `make images`. MTREC_IMAGE names an image that is built already.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.images import IMAGE
from mtrec.data.contract import Tables

ENGINE = os.environ.get("ENGINE", "podman")
pytestmark = pytest.mark.timeout(3600)  # 3 GB of libraries are fetched and copied


def _engine(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def image(repository: Path) -> str:
    """Name of an image of this code."""
    if shutil.which(ENGINE) is None or _engine("info").returncode != 0:
        pytest.skip(f"images are NOT built here: {ENGINE} is not there or does not answer")
    if given := os.environ.get("MTREC_IMAGE"):
        return given
    built = subprocess.run(
        [repository / "components" / "build_images.sh"],
        env=os.environ | {"ENGINE": ENGINE, "TARGETS": "slim"},
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and not os.environ.get("BASE") and "FROM" in built.stdout + built.stderr:
        base = (repository / "components" / "Dockerfile").read_text().split("ARG BASE=")[1].split()[0]
        if _engine("pull", base).returncode:
            pytest.skip("images are NOT built here: the base cannot be fetched from its registry; give BASE")
    assert built.returncode == 0, built.stdout + built.stderr
    return IMAGE


def _in(image: str, *command: str, mount: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run as a cluster with "restricted" would: no root, no network, nothing writable but /tmp and the mount."""
    volume = ["-v", f"{mount}:/data"] if mount else []
    options = ["--rm", "--read-only", "--tmpfs", "/tmp:mode=1777", "--user", "10001:10001", "--network", "none"]
    return _engine("run", *options, "--cap-drop", "all", *volume, image, *command)


@pytest.mark.slow
def test_the_label_is_the_revision_that_the_code_tells(image: str) -> None:
    (told,) = json.loads(_engine("image", "inspect", image).stdout)
    labels = told.get("Labels") or told["Config"]["Labels"]
    said = _in(image, "python3", "-c", "from mtrec.lineage import code_revision; print(code_revision())")
    assert said.returncode == 0, said.stderr
    revision = labels["org.opencontainers.image.revision"]
    assert len(revision.removesuffix("-dirty")) == 40
    assert said.stdout.strip().startswith(revision)
    assert told["Config"]["User"] == "10001:10001"


@pytest.mark.slow
def test_the_command_and_its_scenarios_are_there(image: str) -> None:
    said = _in(image, "mtrec", "compile", "--scenario", "video", "--output", "/tmp/pipeline.yaml")
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    root = _in(image, "sh", "-c", "id -u; touch /opt/mtrec/x || touch /x || echo refused")
    assert root.stdout.split() == ["10001", "refused"]


@pytest.mark.slow
def test_a_component_of_the_compiled_pipeline_runs_in_it(
    image: str, made: Any, scenario_text: str, repository: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(made.tables, work / "tables")
    subprocess.run(["chmod", "-R", "a+rwX", work], check=True)
    spec = next(yaml.safe_load_all((repository / "tests" / "golden" / "training_pipeline.yaml").read_text()))
    container = spec["deploymentSpec"]["executors"]["exec-validate-data"]["container"]
    outputs = {
        name: {"artifacts": [{"name": name, "type": given["artifactType"], "uri": f"/data/{name}"}]}
        for name, given in spec["components"]["comp-validate-data"]["outputDefinitions"]["artifacts"].items()
    }
    tables = {"name": "tables", "type": {"schemaTitle": "system.Dataset"}, "uri": "/data/tables"}
    given = {
        "inputs": {
            "parameterValues": {"scenario": scenario_text, "data_version": "1.dir", "code_revision": "abc"},
            "artifacts": {"tables": {"artifacts": [tables]}},
        },
        "outputs": {"artifacts": outputs, "outputFile": "/data/executor_output.json"},
    }
    arguments = [json.dumps(given) if word == "{{$}}" else word for word in container["args"]]
    done = _in(image, *container["command"], *arguments, mount=work)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((work / "executor_output.json").read_text())
    assert told["artifacts"]["validated"]["artifacts"][0]["metadata"]["data_version"] == "1.dir"
    assert Tables.read(work / "validated").num_rows == Tables.read(made.validate("validated")).num_rows
    assert json.loads((work / "summary").read_text())["success"]
    assert (work / "data_docs" / "index.html").is_file()
