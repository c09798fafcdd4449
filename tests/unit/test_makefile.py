"""The Makefile and the continuous integration run, as a newcomer meets them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def _make(folder: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    # The tests may themselves run under make, which would make this one speak of its folders.
    env = {key: value for key, value in os.environ.items() if key not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=env, input=answer, capture_output=True, text=True, check=False)


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


def test_only_clean_state_removes_what_was_learned_and_it_asks(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "Makefile", tmp_path)
    kept = tmp_path / ".mtrec" / "mlartifacts" / "code" / "__pycache__"
    for folder in (kept, tmp_path / "src" / "__pycache__", tmp_path / ".venv", tmp_path / ".ruff_cache"):
        folder.mkdir(parents=True)
    assert _make(tmp_path, "clean").returncode == 0
    assert kept.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", ".mtrec", "src"}
    assert not (tmp_path / "src" / "__pycache__").exists()
    for answer in ("", "n\n"):
        asked = _make(tmp_path, "clean-state", answer=answer)
        assert asked.returncode != 0
        assert "every registered model" in asked.stdout
        assert kept.is_dir()
    assert _make(tmp_path, "clean-state", answer="y\n").returncode == 0
    assert not (tmp_path / ".mtrec").exists()
    kept.mkdir(parents=True)
    assert _make(tmp_path, "clean-state", "YES=1").returncode == 0
    assert not (tmp_path / ".mtrec").exists()


def test_what_tools_leave_behind_is_ignored(repository: Path) -> None:
    ignored = (repository / ".gitignore").read_text().split()
    assert {".mtrec/", ".venv/", "/dvc_plots/"} <= set(ignored)


def test_continuous_integration_runs_lint_and_tests_from_anywhere(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o100, ".ci/run is not executable"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    positions = [text.index(f"make {target}\n") for target in ("install", "lint", "test")]
    assert positions == sorted(positions)
