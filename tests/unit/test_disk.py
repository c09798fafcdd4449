"""What the file system refuses becomes one line with a path that people know."""

import errno
import os
from pathlib import Path

import polars as pl
import pytest

from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.disk import explain
from mtrec.errors import InputError, RunError


def _error(number: int, *names: str) -> OSError:
    if len(names) == 2:
        return OSError(number, os.strerror(number), names[0], None, names[1])
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (_error(errno.EROFS, "/x/.mtrec"), "/x/.mtrec: the file system is read-only; run in a folder you may"),
        (_error(errno.EACCES, "/x/shop"), "/x/shop: no permission"),
        (_error(errno.EEXIST, "/x/.mtrec"), "/x/.mtrec: a file is where a folder has to be"),
        (_error(errno.EROFS, "/x/.p.yaml.6640.tmp"), "/x/p.yaml: the file system"),
        (_error(errno.EROFS, f"/x/.shop.{'ab' * 16}.tmp/users.parquet"), "/x/shop/users.parquet: the file system"),
        (_error(errno.EISDIR, f"/x/.p.yaml.{'ab' * 16}.tmp", "/x/p.yaml"), "/x/p.yaml: it is a folder"),
    ],
)
def test_a_path_that_cannot_be_written_is_wrong_input(error: OSError, said: str) -> None:
    told = explain(error)
    assert isinstance(told, InputError)
    assert str(told).startswith(f"cannot write {said}")
    assert ".tmp" not in str(told)


def test_a_folder_that_takes_no_new_files_is_wrong_input(tmp_path: Path) -> None:
    name = f".p.yaml.{'ab' * 16}.tmp"
    told = explain(_error(errno.ENOENT, str(tmp_path / name)))
    assert isinstance(told, InputError)
    assert str(told) == f"cannot write {tmp_path}/p.yaml: no file can be made there; give another path"
    assert explain(_error(errno.ENOENT, str(tmp_path / "gone" / name))) is None


def test_a_full_disk_is_a_failed_run_with_the_room_that_is_left(tmp_path: Path) -> None:
    told = explain(_error(errno.ENOSPC, str(tmp_path / "deep" / "shop")))
    assert isinstance(told, RunError)
    assert told.exit_code == 1
    assert str(told).startswith(f"cannot write {tmp_path}/deep/shop: the disk is full (")
    assert " MB free); make room there" in str(told)


def test_other_errors_are_not_explained_away() -> None:
    for error in (
        ValueError("Read-only file system (os error 30): /x"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        OSError("no model on the hub"),
        FileNotFoundError(errno.ENOENT, "No such file", "/x"),
        PermissionError(errno.EACCES, "denied"),
    ):
        assert explain(error) is None


@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
@pytest.mark.parametrize(
    "raised",
    [
        _error(errno.ENOSPC),
        pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)"),
    ],
)
def test_what_is_being_replaced_is_named(tmp_path: Path, replacing: object, raised: Exception) -> None:
    target = tmp_path / "shop"
    with pytest.raises(OSError, match="No space left") as caught, replacing(target):  # type: ignore[operator]
        raise raised
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_stays_as_it_is(tmp_path: Path) -> None:
    elsewhere = _error(errno.EACCES, "/elsewhere")
    with pytest.raises(PermissionError) as caught, replacing_folder(tmp_path / "shop"):
        raise elsewhere
    assert caught.value is elsewhere


def test_a_folder_in_place_of_a_file_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").mkdir()
    with pytest.raises(OSError) as caught, replacing_file(tmp_path / "p.yaml") as temporary:
        temporary.write_text("x")
    assert str(explain(caught.value)).startswith(f"cannot write {tmp_path}/p.yaml: it is a folder")
