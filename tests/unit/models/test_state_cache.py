"""States of texts on disk: shared by runs, bounded, and never read half."""

import copy
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mtrec.models import state_cache
from mtrec.models.state_cache import StateCache, digest

WIDTH = 8
ROOM = 2**20


def states_of(row: list[int]) -> Tensor:
    """States that tell whose they are."""
    return torch.tensor(row, dtype=torch.float32).unsqueeze(1) + torch.arange(WIDTH) / 16


def fill(cache: StateCache, rows: list[list[int]], dtype: torch.dtype = torch.float32) -> None:
    cache.load([digest(row) for row in rows])
    new = [row for row in rows if cache.get(digest(row)) is None]
    if new:
        states = torch.cat([states_of(row) for row in new]).to(dtype)
        cache.put([digest(row) for row in new], [len(row) for row in new], states)
    cache.flush()


def opened(folder: Path | None, room: int = ROOM, key: str = "key") -> StateCache:
    cache = StateCache(folder, room)
    cache.open(key)
    return cache


def holds(cache: StateCache, row: list[int]) -> bool:
    found = cache.get(digest(row))
    if found is None:
        return False
    assert found.float().equal(states_of(row).to(found.dtype).float())
    return True


def rows(start: int, count: int, length: int = 3) -> list[list[int]]:
    return [[100 * n + i for i in range(length)] for n in range(start, start + count)]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_text_is_named_by_its_tokens() -> None:
    assert digest([1, 2, 3]) == digest((1, 2, 3))
    assert len({digest(row) for row in ([1, 2, 3], [1, 2], [3, 2, 1], [1, 23], [])}) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_states_come_back_as_they_were_put(kept: str, dtype: torch.dtype, tmp_path: Path) -> None:
    cache = opened(tmp_path if kept == "on disk" else None)
    mixed = [[1], [2, 3, 4, 5], [6, 7]]
    fill(cache, mixed, dtype)
    assert all(holds(cache, row) for row in mixed)
    assert not holds(cache, [8])
    found = cache.get(digest([2, 3, 4, 5]))
    assert found is not None
    assert (found.dtype, found.shape) == (dtype, (4, WIDTH))
    assert len(segments(tmp_path)) == (kept == "on disk")
    assert cache.summary() == {
        "texts": 3,
        "from_earlier_runs": 0,
        "without_room": 0,
        "mb": round(7 * WIDTH * dtype.itemsize / 2**20, 1),
    }


def test_later_runs_read_what_is_there_and_add_what_is_new(tmp_path: Path) -> None:
    fill(opened(tmp_path), rows(0, 5))
    (first,) = segments(tmp_path)
    content = first.read_bytes()
    again = opened(tmp_path)
    fill(again, rows(3, 4))
    assert all(holds(again, row) for row in rows(0, 7)), "the segment's other texts come with it"
    assert again.num_read == 2
    assert len(segments(tmp_path)) == 2
    assert first.read_bytes() == content
    with safe_open(next(p for p in segments(tmp_path) if p != first), "pt") as file:
        assert len(file.get_tensor("lengths")) == 2
    third = opened(tmp_path)
    third.load([digest(row) for row in rows(0, 7)])
    assert third.num_read == 7
    assert all(holds(third, row) for row in rows(0, 7))


def test_states_of_other_frozen_layers_are_apart(tmp_path: Path) -> None:
    cache = opened(tmp_path, key="one")
    fill(cache, rows(0, 2))
    cache.open("one")
    assert holds(cache, rows(0, 1)[0])
    cache.open("two")
    assert not holds(cache, rows(0, 1)[0])
    cache.load([digest(row) for row in rows(0, 2)])
    assert cache.summary()["texts"] == 0
    assert cache.num_bytes == 0


def test_states_are_memory_mapped(tmp_path: Path) -> None:
    fill(opened(tmp_path, 2**26), [list(range(10**5))])
    reader = opened(tmp_path, 2**26)
    reader.load([digest(list(range(10**5)))])
    (path,) = segments(tmp_path)
    mapped = Path("/proc/self/maps")
    if mapped.is_file():
        assert str(path) in mapped.read_text()
    path.unlink()  # another run makes room
    assert holds(reader, list(range(10**5)))


def test_segments_are_written_along_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_cache, "SEGMENT_BYTES", 4 * 3 * WIDTH * 4)
    cache = opened(tmp_path)
    for row in rows(0, 9):
        cache.put([digest(row)], [len(row)], states_of(row))
    assert len(segments(tmp_path)) == 2
    cache.flush()
    assert len(segments(tmp_path)) == 3
    assert all(holds(cache, row) for row in rows(0, 9))


def test_a_copy_holds_the_same_states_and_goes_its_own_way() -> None:
    cache = opened(None)
    fill(cache, rows(0, 2))
    copied = copy.deepcopy(cache)
    assert copied.get(digest(rows(0, 1)[0])) is cache.get(digest(rows(0, 1)[0]))
    fill(copied, rows(2, 1))
    assert (holds(copied, rows(2, 1)[0]), holds(cache, rows(2, 1)[0])) == (True, False)
    copied.open("other")
    assert (holds(copied, rows(0, 1)[0]), holds(cache, rows(0, 1)[0])) == (False, True)


# ------------------------------------------------------------------------------------------------ room


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_no_more_is_held_than_there_is_room_for(
    kept: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room = 5 * 3 * WIDTH * 4 + 1
    cache = opened(tmp_path if kept == "on disk" else None, room)
    with caplog.at_level(logging.WARNING):
        fill(cache, rows(0, 4))
        fill(cache, rows(4, 4))
        fill(cache, rows(4, 4))
    assert [holds(cache, row) for row in rows(0, 8)] == [True] * 5 + [False] * 3
    assert cache.num_bytes <= room
    assert cache.summary()["without_room"] == 3
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "have room for 5 texts; " in said[0]
    assert opened(None, 0).max_bytes == 0
    nothing = opened(None, 0)
    fill(nothing, rows(0, 1))
    assert nothing.summary()["texts"] == 0


def test_what_was_used_least_recently_gives_way(tmp_path: Path) -> None:
    size = 4 * 3 * WIDTH * 4
    parts = [rows(4 * n, 4) for n in range(4)]
    for n, part in enumerate(parts[:3]):
        fill(opened(tmp_path, key=f"key {n}"), part)
        (path,) = segments(tmp_path / f"key {n}")
        os.utime(path, (1e9 + n, 1e9 + n))
    room = sum(path.stat().st_size for path in segments(tmp_path)) + size // 2
    # A run uses the oldest, so that the second oldest goes.
    cache = opened(tmp_path, room, key="key 0")
    fill(cache, parts[0])
    assert cache.num_read == 4
    fill(cache, parts[3])
    assert {path.parent.name for path in segments(tmp_path)} == {"key 0", "key 2"}
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= room
    assert all(holds(opened_again(tmp_path, "key 0", part), row) for part in (parts[0], parts[3]) for row in part)


def opened_again(folder: Path, key: str, wanted: list[list[int]]) -> StateCache:
    cache = opened(folder, key=key)
    cache.load([digest(row) for row in wanted])
    return cache


def test_segments_beyond_a_smaller_bound_are_not_read(tmp_path: Path) -> None:
    fill(opened(tmp_path), rows(0, 5))
    small = opened(tmp_path, 100)
    small.load([digest(row) for row in rows(0, 5)])
    assert small.summary()["texts"] == 0


def test_half_written_files_of_killed_runs_go_after_a_day(tmp_path: Path) -> None:
    fill(opened(tmp_path), rows(0, 1))
    young, old = (tmp_path / "key" / f".{name}.safetensors.0a1b.tmp" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    cache = opened(tmp_path)
    fill(cache, rows(0, 3))
    assert (young.exists(), old.exists()) == (True, False)


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("damage", ["cut", "a byte of the states", "a byte of the digests", "empty", "no segment"])
def test_a_damaged_segment_is_not_used_and_written_anew(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(opened(tmp_path), rows(0, 4))
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif damage == "no segment":
        content = bytearray(b"something else altogether")
    else:
        marked = (
            digest(rows(0, 1)[0])
            if damage == "a byte of the digests"
            else states_of(rows(0, 1)[0]).numpy().tobytes()
        )
        content[content.index(marked) + 5] ^= 1
    path.write_bytes(content)
    cache = opened(tmp_path)
    with caplog.at_level(logging.WARNING):
        fill(cache, rows(0, 4))
    assert all(holds(cache, row) for row in rows(0, 4))
    assert cache.num_read == 0
    assert f"{path}: damaged (" in caplog.text
    later = opened_again(tmp_path, "key", rows(0, 4))
    assert later.num_read == 4
    assert len(segments(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_reuse(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = opened(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        fill(cache, rows(0, 3))
    assert all(holds(cache, row) for row in rows(0, 3))
    assert "cannot be written (" in caplog.text


# ------------------------------------------------------------------------------------------------ several runs

WRITER = """
import sys
from pathlib import Path
from mtrec.models import state_cache
from tests.unit.models.test_state_cache import fill, opened, rows
state_cache.SEGMENT_BYTES = 1000
print("ready", flush=True)
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    cache = opened(Path(sys.argv[1]), 2**24)
    fill(cache, rows(0, 5 * n, 20))
    assert cache.summary()["texts"] == 5 * n
    print(n, flush=True)
"""


def writer(folder: Path, repository: Path, first: int, last: int) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "src")])}
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=repository)


def test_runs_share_a_folder(tmp_path: Path, repository: Path) -> None:
    at_once = [writer(tmp_path, repository, 1, 30), writer(tmp_path, repository, 1, 30)]
    for process in at_once:
        process.communicate(timeout=120)
        assert process.returncode == 0
    cache = opened_again(tmp_path, "key", rows(0, 145, 20))
    assert all(holds(cache, row) for row in rows(0, 145, 20))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_killed_run_leaves_only_whole_segments(
    tmp_path: Path, repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for stop_at in (4, 17):
        process = writer(tmp_path, repository, 1, 10_000)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == str(stop_at):
                break
        process.kill()
        process.communicate(timeout=60)
        with caplog.at_level(logging.WARNING):
            cache = opened_again(tmp_path, "key", rows(0, 5 * stop_at, 20))
        assert all(holds(cache, row) for row in rows(0, 5 * stop_at, 20))
    assert "damaged" not in caplog.text
