"""Data versions: equal to DVC's own, byte-exact, safe against damage and against each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mtrec.data import versioning
from mtrec.errors import ConfigError, DataError, RunError


def dvc(folder: Path, *arguments: str) -> str:
    """Run the real `dvc` command."""
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    """A data drop with awkward names, equal contents, an empty file and a nested folder."""
    folder = tmp_path / "käufe 2026"
    (folder / "sub" / "Ünïcode ☃").mkdir(parents=True)
    (folder / "items.csv").write_bytes(b"id,title\r\n1,\xe9\n")
    (folder / "copy of items.csv").write_bytes(b"id,title\r\n1,\xe9\n")
    (folder / "empty").touch()
    (folder / "sub" / "Ünïcode ☃" / "naïve 'quoted'.parquet").write_bytes(bytes(range(256)) * 5000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def stored(root: Path, version: str) -> Path:
    """The object of a hash in the local remote beside `root`."""
    return root.with_name(f"{root.name}-remote") / "files" / "md5" / version[:2] / version[2:]


def test_the_hash_is_what_dvc_add_writes(drop: Path, tmp_path: Path) -> None:
    dvc(tmp_path, "init", "--no-scm", "-q")
    dvc(tmp_path, "add", "-q", drop.name)
    pointer = yaml.safe_load((tmp_path / f"{drop.name}.dvc").read_text(encoding="utf-8"))
    assert versioning.directory_hash(drop) == pointer["outs"][0]["md5"]


def test_the_hash_depends_on_content_and_names_only(drop: Path, tmp_path: Path) -> None:
    before = versioning.directory_hash(drop)
    elsewhere = tmp_path / "elsewhere"
    drop.rename(elsewhere)
    assert versioning.directory_hash(elsewhere) == before
    (elsewhere / "empty").rename(elsewhere / "void")
    assert versioning.directory_hash(elsewhere) != before


def test_pushed_bytes_come_back_exactly(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / ".mtrec" / "dvc"
    version = versioning.push(drop, root)
    assert version == versioning.directory_hash(drop)
    versioning.restore(version, tmp_path / "back", root)
    assert contents(tmp_path / "back") == contents(drop)
    assert not (root / ".dvc" / "cache").exists(), "the bytes were copied into a cache as well"


def test_pushing_twice_stores_nothing_twice(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    version = versioning.push(drop, root)
    objects = {path: path.stat().st_ino for path in (tmp_path / "dvc-remote").rglob("*") if path.is_file()}
    assert versioning.push(drop, root) == version
    again = {path: path.stat().st_ino for path in (tmp_path / "dvc-remote").rglob("*") if path.is_file()}
    assert again.keys() == objects.keys()
    assert {p: i for p, i in again.items() if p.suffix != ".dir"} == {
        p: i for p, i in objects.items() if p.suffix != ".dir"
    }


def test_the_embedded_repository_works_with_the_dvc_command(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / ".mtrec" / "dvc"
    version = versioning.snapshot(drop, "käufe", root).version
    assert "local" in dvc(root, "remote", "list")
    dvc(root, "pull", "-q", "data/käufe.dvc")
    assert contents(root / "data" / "käufe") == contents(drop)
    assert versioning.directory_hash(root / "data" / "käufe") == version


def test_two_processes_push_at_once(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    (drop / "large").write_bytes(os.urandom(8_000_000))
    code = (
        "import sys, time; from pathlib import Path; from mtrec.data import versioning, dvc_remote\n"
        "import dvc.config, dvc.fs, dvc_data.hashfile.build\n"
        "ready, go = Path(sys.argv[3]), Path(sys.argv[4]); ready.touch()\n"
        "while not go.exists(): time.sleep(0.002)\n"
        "print(versioning.push(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    go = tmp_path / "go"
    ready = [tmp_path / f"ready{n}" for n in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, drop, root, flag, go], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for flag in ready
    ]
    while not all(flag.exists() for flag in ready):
        assert all(process.poll() is None for process in processes)
    go.touch()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert {out.decode().strip() for out, _ in outputs} == {versioning.directory_hash(drop)}
    versioning.restore(versioning.directory_hash(drop), tmp_path / "back", root)
    assert contents(tmp_path / "back") == contents(drop)


@pytest.mark.parametrize("which", ["file", "folder"])
def test_a_damaged_object_is_never_delivered(drop: Path, tmp_path: Path, which: str) -> None:
    root = tmp_path / "dvc"
    version = versioning.push(drop, root)
    tree = json.loads(stored(root, version).read_text())
    damaged = stored(root, version if which == "folder" else tree[-1]["md5"])
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    damaged.chmod(0o444)
    with pytest.raises(DataError, match=r"damaged, its md5 differs") as caught:
        versioning.restore(version, tmp_path / "back", root)
    assert str(damaged) in str(caught.value)
    assert not (tmp_path / "back").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")], "a half-written folder was left"
    damaged.unlink()
    versioning.push(drop, root)
    versioning.restore(version, tmp_path / "back", root)
    assert contents(tmp_path / "back") == contents(drop)


def test_a_missing_object_is_told(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    version = versioning.push(drop, root)
    stored(root, json.loads(stored(root, version).read_text())[0]["md5"]).unlink()
    with pytest.raises(DataError, match=r"missing in the remote, so .* cannot be restored"):
        versioning.restore(version, tmp_path / "back", root)
    assert not (tmp_path / "back").exists()


def test_an_unknown_version_names_the_known_ones(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    named = versioning.snapshot(drop, "käufe", root).version
    (drop / "more").write_text("x")
    unnamed = versioning.push(drop, root)
    with pytest.raises(DataError, match=r"no such data version") as caught:
        versioning.restore("0" * 32 + ".dir", tmp_path / "back", root)
    assert f"{named} (käufe, " in str(caught.value)
    assert unnamed in str(caught.value)
    with pytest.raises(DataError, match=r"\.\./\.\./secret: no such data version"):
        versioning.restore("../../secret", tmp_path / "back", root)
    with pytest.raises(DataError, match=r"not a DVC repository; nothing was versioned there"):
        versioning.restore(named, tmp_path / "back", tmp_path / "elsewhere")


def test_restore_replaces_nothing(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    version = versioning.push(drop, root)
    versioning.restore(version, drop, root)
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"occupied: exists and holds something else"):
        versioning.restore(version, occupied, root)
    assert contents(occupied) == {"thesis.txt": b"years of work"}


def test_files_that_change_while_versioned_are_refused(
    drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtrec.data import dvc_remote

    hash_folder = dvc_remote.hash_folder

    def hash_then_write(folder: Path) -> object:
        result = hash_folder(folder)
        (drop / "empty").write_text("a row arrived")
        return result

    monkeypatch.setattr(dvc_remote, "hash_folder", hash_then_write)
    with pytest.raises(DataError, match=r"empty changed while being versioned"):
        versioning.push(drop, tmp_path / "dvc")
    assert not list((tmp_path / "dvc-remote").rglob("*.dir")), "the folder was announced without its bytes"
    monkeypatch.undo()
    versioning.restore(versioning.push(drop, tmp_path / "dvc"), tmp_path / "back", tmp_path / "dvc")
    assert contents(tmp_path / "back") == contents(drop)


def test_snapshots_are_remembered_in_order(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    assert versioning.versions(root) == []
    first = versioning.snapshot(drop, "sales", root)
    assert (first.num_files, first.num_bytes) == (4, 2 * 14 + 256 * 5000)
    assert versioning.snapshot(drop, "sales", root) == first
    other = versioning.snapshot(drop, "returns", root)
    (drop / "empty").write_text("not any more")
    second = versioning.snapshot(drop, "sales", root)
    assert versioning.versions(root) == [first, other, second]
    assert second.version != first.version
    pointer = yaml.safe_load((root / "data" / "sales.dvc").read_text())
    assert pointer["outs"][0]["md5"] == second.version
    versioning.restore(first.version, tmp_path / "first", root)
    assert (tmp_path / "first" / "empty").read_bytes() == b""


def test_a_snapshot_inside_a_dvc_repository_uses_it(
    drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    dvc(project, "init", "-q")
    dvc(project, "remote", "add", "-q", "-d", "storage", str(tmp_path / "storage"))
    monkeypatch.chdir(project / "notebooks")
    made = versioning.snapshot(drop, "sales")
    assert (project / made.pointer).is_file()
    assert (project / "data" / ".gitignore").read_text().split() == ["/sales"]
    assert not (project / "notebooks" / ".mtrec").exists()
    dvc(project, "pull", "-q", "data/sales.dvc")
    assert contents(project / "data" / "sales") == contents(drop)
    assert versioning.versions() == [made]


def test_a_snapshot_outside_uses_the_embedded_repository(
    drop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = versioning.snapshot(drop, "sales")
    assert (tmp_path / ".mtrec" / "dvc" / made.pointer).is_file()
    assert versioning.versions() == [made]
    versioning.restore(made.version, Path("back"))
    assert contents(tmp_path / "back") == contents(drop)


def test_a_name_taken_by_a_pipeline_output_is_refused(drop: Path, tmp_path: Path) -> None:
    dvc(tmp_path, "init", "--no-scm", "-q")
    dvc(tmp_path, "remote", "add", "-q", "-d", "storage", str(tmp_path / "storage"))
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: 'true', outs: [data/sales/model]}}")
    with pytest.raises(DataError, match=r"sales\.dvc: DVC refuses this pointer"):
        versioning.snapshot(drop, "sales", tmp_path)
    assert versioning.versions(tmp_path) == []


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b", "a\n"])
def test_bad_names_are_refused(drop: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"not a name for a data version"):
        versioning.snapshot(drop, name, tmp_path / "dvc")
    assert not (tmp_path / "dvc").exists()


def test_folders_that_cannot_be_versioned(drop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        versioning.directory_hash(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"items\.csv: no such folder"):
        versioning.push(drop / "items.csv", tmp_path / "dvc")
    (tmp_path / "hollow" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match=r"hollow: holds no file"):
        versioning.push(tmp_path / "hollow", tmp_path / "dvc")
    (drop / ".dvcignore").write_text("*.csv")
    with pytest.raises(DataError, match=r"holds a \.dvcignore file"):
        versioning.directory_hash(drop)
    (drop / ".dvcignore").unlink()
    (drop / "dangling").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"cannot be versioned"):
        versioning.directory_hash(drop)


def test_repositories_without_a_usable_remote(drop: Path, tmp_path: Path) -> None:
    config = tmp_path / "dvc" / ".dvc" / "config"
    config.parent.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"missing, so there is no remote"):
        versioning.push(drop, tmp_path / "dvc")
    config.write_text("[core]\n    no_scm = true\n")
    with pytest.raises(ConfigError, match=r"config: no default remote; add one with 'dvc remote add"):
        versioning.push(drop, tmp_path / "dvc")
    config.write_text("[core]\n    remote = gone\n")
    with pytest.raises(ConfigError, match=r"remote 'gone' doesn't exist"):
        versioning.push(drop, tmp_path / "dvc")
    config.write_text("[core\n")
    with pytest.raises(ConfigError, match=r"config: "):
        versioning.push(drop, tmp_path / "dvc")
    (tmp_path / "file").touch()
    config.write_text(f"[core]\n    remote = r\n['remote \"r\"']\n    url = {tmp_path / 'file' / 'below'}\n")
    with pytest.raises(RunError, match=r"DVC remote of "):
        versioning.push(drop, tmp_path / "dvc")


def test_a_damaged_history_names_its_line(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    versioning.snapshot(drop, "sales", root)
    with (root / versioning.HISTORY).open("a") as file:
        file.write('{"name": "half\n')
    with pytest.raises(DataError, match=r"versions\.jsonl:2: not a data version"):
        versioning.versions(root)


def test_importing_does_nothing_to_the_working_directory(tmp_path: Path) -> None:
    code = "import mtrec.data.versioning, sys; print([m for m in ('dvc', 'dvc_data') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_beginning_of_a_version_is_enough_where_it_is_the_only_one(drop: Path, tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    version = versioning.push(drop, root)
    assert versioning.restore(version[:8], tmp_path / "back", root) == version
    assert contents(tmp_path / "back") == contents(drop)
    twin = stored(root, version).with_name(f"{version[2:30]}{'00' if version[30:32] != '00' else '11'}.dir")
    twin.write_text("[]")
    with pytest.raises(DataError, match=r"2 data versions begin with it \(.*\); give more"):
        versioning.restore(version[:8], tmp_path / "again", root)
    assert versioning.restore(version, tmp_path / "again", root) == version
    for short in (version[:3], "0" * 8 if version[:8] != "0" * 8 else "1" * 8):
        with pytest.raises(DataError, match="no such data version"):
            versioning.restore(short, tmp_path / "third", root)


def test_a_snapshot_takes_the_folder_s_name_where_it_can(drop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'käufe 2026' \(the folder's name; give --name\): not a name"):
        versioning.snapshot(drop, root=tmp_path / "dvc")
    sales = drop.rename(tmp_path / "sales")
    assert versioning.snapshot(sales, root=tmp_path / "dvc").name == "sales"
