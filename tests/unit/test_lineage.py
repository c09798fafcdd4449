import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtrec import lineage
from mtrec.lineage import code_revision, data_fingerprint


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `mtrec` in a folder of its own, in place of the running one."""
    folder = tmp_path / "src" / "mtrec"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "training.py").write_text("x = 1\n")
    monkeypatch.setattr(lineage, "_PACKAGE", folder)
    return folder


def test_without_git_the_sources_are_hashed(package: Path) -> None:
    before = code_revision()
    assert before.startswith("sources-")
    assert code_revision() == before
    (package / "__init__.py").write_text("x = 2\n")
    assert code_revision() != before


def test_an_image_tells_the_commit_it_was_built_from(package: Path) -> None:
    (package / "REVISION").write_text("0123abcd\n")
    assert code_revision() == "0123abcd"
    (package / "REVISION").write_text("0123abcd-dirty\n")
    dirty = code_revision()
    assert dirty.startswith("0123abcd-dirty+")
    (package / "__init__.py").write_text("x = 3\n")
    assert code_revision() != dirty


def test_in_a_checkout_the_commit_is_the_revision_until_code_changes(package: Path, tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert code_revision() == commit
    (tmp_path / "README.md").write_text("no code\n")
    assert code_revision() == commit
    (tmp_path / "pipelines" / "training.py").write_text("x = 2\n")
    dirty = code_revision()
    assert dirty.startswith(f"{commit}-dirty+")
    (package / "new.py").write_text("")
    assert code_revision() not in (commit, dirty)


def test_a_copy_inside_someone_elses_checkout_is_hashed(package: Path, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("src/\n")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "theirs")
    assert code_revision().startswith("sources-")


def test_without_the_git_command_the_sources_are_hashed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert code_revision().startswith("sources-")


def test_a_fingerprint_follows_names_sizes_and_times_and_not_the_place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "a.csv").write_text("1")
    before = data_fingerprint(data)
    shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copy2)
    assert data_fingerprint(tmp_path / "copy") == before
    os.utime(data / "sub" / "a.csv", ns=(1, 1))
    later = data_fingerprint(data)
    assert later != before
    (data / "sub" / "a.csv").rename(data / "sub" / "b.csv")
    assert data_fingerprint(data) not in (before, later)


def test_a_file_and_no_data_have_fingerprints_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1")
    assert len(data_fingerprint(path)) == 64
    assert data_fingerprint(None) == "none"


def test_the_revision_costs_no_heavy_import() -> None:
    code = "import mtrec.lineage, sys; print(sorted({'torch', 'polars', 'kfp', 'dvc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
