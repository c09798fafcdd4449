"""What writers leave: the old content or the new one, whoever is killed or writes at the same time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from mtrec.data.contract import Tables, recover, replacing_file, replacing_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from mtrec.data.contract import replacing_file, replacing_folder

folder, left = Path(sys.argv[1]), int(sys.argv[2])

def killing(do):
    def done(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(*arguments, **options)
    return done

os.rename, os.unlink = killing(os.rename), killing(os.unlink)
with replacing_folder(folder) as temporary:
    (temporary / "text").write_text("new")
"""
WRITERS = """
import sys, time
from pathlib import Path
from mtrec.data.contract import recover, replacing_folder

folder, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for n in range(150):
    if name == "reader":
        recover(folder)
        continue
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text(f"{name} {n}")
        (temporary / "b").write_text(f"{name} {n}")
"""
DAYS = 24 * 3600


def written(folder: Path, text: str) -> Path:
    with replacing_folder(folder) as temporary:
        (temporary / "text").write_text(text)
    return folder


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def age(path: Path, seconds: float) -> Path:
    """Let a file or a folder with all it holds be that old."""
    for part in (*path.rglob("*"), path):
        os.utime(part, (time.time() - seconds,) * 2)
    return path


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_killed_writer_leaves_the_old_content_or_the_new(steps: int, tmp_path: Path) -> None:
    """Killed before the old folder is moved aside, before the new one is moved in, or before the old is deleted."""
    folder = written(tmp_path / "run", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(steps)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(beside(folder)) == (2 if steps == 1 else 1)
    assert folder.exists() == (steps != 1)
    recover(folder)
    assert (folder / "text").read_text() == ("new" if steps == 2 else "old")
    assert len(beside(folder)) == 1, "a temporary of just now may have a living writer"
    age(tmp_path / beside(folder)[0], 1.1 * DAYS)
    written(folder, "newer")
    assert (folder / "text").read_text() == "newer"
    assert beside(folder) == []


def test_the_next_writer_recovers_before_it_begins(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", "old")
    subprocess.run([sys.executable, "-c", KILLED, str(folder), "1"], check=False)
    with pytest.raises(ZeroDivisionError), replacing_folder(folder):
        raise ZeroDivisionError
    assert (folder / "text").read_text() == "old"


def test_of_two_that_were_moved_aside_the_younger_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for n, text in enumerate(("younger", "older")):
        aside = tmp_path / f".run.{n}.old"
        aside.mkdir()
        (aside / "text").write_text(text)
        age(aside, (n + 2) * DAYS)
    recover(folder)
    assert (folder / "text").read_text() == "younger"
    assert beside(folder) == [], "the other one is abandoned"


def test_a_long_write_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with replacing_folder(folder) as temporary:
        (temporary / "parts").mkdir()
        (temporary / "parts" / "text").write_text("slow")
        for path in (temporary, temporary / "parts"):
            os.utime(path, (time.time() - 2 * DAYS,) * 2)
        written(folder, "fast")
    assert (folder / "parts" / "text").read_text() == "slow"
    assert beside(folder) == []


def test_writers_and_readers_at_the_same_time_get_along(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", WRITERS, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, name], **pipes) for name in ("one", "two", "reader")]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert (folder / "a").read_text() == (folder / "b").read_text()
    assert (folder / "a").read_text() in ("one 149", "two 149")
    assert beside(folder) == []


def test_two_writers_do_not_share_a_temporary(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "run") as one, replacing_folder(tmp_path / "run") as two:
        assert one != two
    with replacing_file(tmp_path / "file") as first, replacing_file(tmp_path / "file") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first", "it was closed last"
    assert beside(tmp_path / "file") == ["run"]


def test_abandoned_temporaries_of_a_file_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    names = (".run.json.12.tmp", ".run.json.0a0a.tmp", ".run.json.more.12.tmp", ".run.12.tmp", "run.json.12.tmp")
    for name in names:
        (tmp_path / name).write_text("half")
        age(tmp_path / name, 2 * DAYS)
    (tmp_path / ".run.json.0b0b.tmp").write_text("a writer at work")
    with replacing_file(tmp_path / "run.json") as temporary:
        temporary.write_text("{}")
    assert beside(tmp_path / "run.json") == sorted([*names[2:], ".run.json.0b0b.tmp"])


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_replaced_by_one(kind: str, tmp_path: Path) -> None:
    path, other = tmp_path / "run", tmp_path / "other"
    if kind == "file":
        path.write_text("kept")
    else:
        written(other, "kept")
        path.symlink_to(other)
    with pytest.raises(NotADirectoryError):
        written(path, "new")
    assert (path if kind == "file" else path / "text").read_text() == "kept"
    assert path.is_symlink() == (kind == "link")
    assert beside(path) == (["other"] if kind == "link" else [])


@pytest.mark.parametrize("name", ["drop[1]", "drop*", "drop?", "[", "~drop"])
def test_a_folder_s_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    keys = pl.DataFrame({"user_id": ["a"]})
    tables = Tables(users=keys, items=keys, interactions=keys)
    tables.write(tmp_path / name)
    tables.write(tmp_path / "drop1")
    assert Tables.read(tmp_path / name).users.equals(keys)
