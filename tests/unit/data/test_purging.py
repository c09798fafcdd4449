"""A data version deleted from a real DVC remote: it alone, and never what something else needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtrec.data.purging import purge
from mtrec.data.versioning import HISTORY, known_versions, push, restore, snapshot, versions
from mtrec.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dvc"


def folder(tmp_path: Path, name: str, **files: str) -> Path:
    (tmp_path / name).mkdir()
    for file, text in files.items():
        (tmp_path / name / file).write_text(text)
    return tmp_path / name


def objects(root: Path) -> list[Path]:
    return [path for path in root.with_name("dvc-remote").rglob("*") if path.is_file()]


def test_it_goes_and_what_others_need_stays(root: Path, tmp_path: Path) -> None:
    old = push(folder(tmp_path, "old", items="apples", users="u1 u2"), root)
    new = push(folder(tmp_path, "new", items="apples", users="u1"), root)
    assert purge(old[:6], root) == (old, 2)
    assert known_versions(root) == [new]
    assert len(objects(root)) == 3
    assert b"u1 u2" not in [path.read_bytes() for path in objects(root)]
    restore(new, tmp_path / "back", root)
    assert (tmp_path / "back" / "items").read_text() == "apples"
    with pytest.raises(DataError, match="no such data version"):
        purge(old, root)
    assert push(tmp_path / "old", root) == old, "the same data may come again"


def test_a_version_that_was_half_deleted_is_finished(root: Path, tmp_path: Path) -> None:
    old = push(folder(tmp_path, "old", items="apples", users="u1 u2"), root)
    next(path for path in objects(root) if path.read_bytes() == b"u1 u2").unlink()
    purge(old, root)
    assert objects(root) == []


def test_a_snapshot_that_its_pointer_names_stays(root: Path, tmp_path: Path) -> None:
    old = snapshot(folder(tmp_path, "sales", a="1"), root=root).version
    with pytest.raises(DataError, match=rf"sales\.dvc: points at {old}; take a new snapshot, or 'dvc remove'"):
        purge(old, root)
    (tmp_path / "sales" / "a").write_text("2")
    new = snapshot(tmp_path / "sales", root=root)
    purge(old, root)
    assert versions(root) == [new]
    assert len((root / HISTORY).read_text().splitlines()) == 1
    assert json.loads((root / HISTORY).read_text())["version"] == new.version
    restore(new.version, tmp_path / "back", root)


def test_what_a_single_file_of_dvc_needs_stays(root: Path, tmp_path: Path) -> None:
    old = push(folder(tmp_path, "old", users="u1 u2", other="x"), root)
    (root / "users.csv").write_text("u1 u2")
    command = [sys.executable, "-m", "dvc", "add", "-q", "users.csv"]
    subprocess.run(command, cwd=root, check=True)
    assert purge(old, root) == (old, 2)
    assert [path.read_bytes() for path in objects(root)] == [b"u1 u2"]


def test_beside_a_damaged_version_nothing_is_deleted(root: Path, tmp_path: Path) -> None:
    old = push(folder(tmp_path, "old", users="u1 u2"), root)
    push(folder(tmp_path, "new", users="u1"), root)
    damaged = next(path for path in objects(root) if path.suffix == ".dir" and path.name not in old)
    damaged.chmod(0o644)
    damaged.write_text("[]")
    before = len(objects(root))
    with pytest.raises(DataError, match="damaged"):
        purge(old, root)
    assert len(objects(root)) == before


def test_a_remote_that_cannot_be_listed_is_left_alone(root: Path, tmp_path: Path) -> None:
    old = push(folder(tmp_path, "old", users="u1 u2"), root)
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("../../dvc-remote", "http://localhost:1/remote"))
    with pytest.raises(DataError, match="cannot be listed, so what else needs the objects is not known"):
        purge(old, root)


def test_without_a_repository_there_is_nothing_to_delete(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a DVC repository"):
        purge("abcd", tmp_path / "nowhere")
