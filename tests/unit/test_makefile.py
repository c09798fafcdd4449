"""The Makefile and the continuous integration run, as a newcomer meets them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The tests may themselves run under make, which would make this one speak of its folders.
    env = {key: value for key, value in os.environ.items() if key not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target_with_its_words(repository: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.M)
    shown = _make(repository).stdout
    for target in phony.split():
        assert re.search(rf"^  make {target} +\w.{{10,}}$", shown, re.M), f"make {target} is not in the list"
    assert "MTREC_DATA" in shown


def test_run_and_test_install_first_and_only_once(repository: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path)
    assert "pip install" in _make(tmp_path, "-n", "run", "PYTHON=python3").stdout
    assert "pip install" in _make(tmp_path, "-n", "test", "PYTHON=python3").stdout
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    planned = _make(tmp_path, "-n", "run", "ARGS=--scenario video").stdout
    assert planned.strip() == ".venv/bin/mtrec run --scenario video"


def test_a_machine_without_a_fitting_python_is_told_so_at_once(repository: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, tmp_path)
    done = _make(tmp_path, "install", "PYTHON=")
    assert done.returncode == 2
    assert "mtrec: no Python 3.11 or newer with venv found" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_continuous_integration_runs_lint_and_tests_from_anywhere(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o100, ".ci/run is not executable"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    positions = [text.index(f"make {target}\n") for target in ("install", "lint", "test")]
    assert positions == sorted(positions)
