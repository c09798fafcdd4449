"""What the file system refuses, in one line: which path, why, and how to mend it.

Path operations name the path in the error; writing to an open file does not, and Polars gives the number of the
error only in its text. `naming` adds what is missing where it is known, `explain` makes the line.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtrec.errors import InputError, MtrecError, Unavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.EROFS: "the file system is read-only; run in a folder you may write to",
    errno.EACCES: "no permission; run in a folder you may write to, or change the permissions",
    errno.EPERM: "not permitted; run in a folder you may write to, or change the permissions",
    errno.ENOTDIR: "a file is where a folder has to be; move it away or give another path",
    errno.EEXIST: "a file is where a folder has to be; move it away or give another path",
    errno.EISDIR: "it is a folder, and a file has to be written; move it away or give another path",
    errno.ENOTEMPTY: "the folder is not empty; give another one",
    errno.EBUSY: "it is in use or a disk is mounted there; give a folder inside it",
    errno.EXDEV: "it is a disk of its own; give a folder inside it",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
}
_TEMPORARY = re.compile(r"^\.(.+)\.[0-9a-f]{4,32}\.(?:tmp|old|yaml)$")


def explain(error: BaseException) -> MtrecError | None:
    """Say in one line what the file system refused.

    Returns:
        An `InputError` where the path is at fault, an `Unavailable` for a full disk, None where `error` is not
        about writing to the file system.
    """
    number = _number(error)
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    path = None if name is None or isinstance(name, int) else Path(os.fsdecode(name)).absolute()
    # not found, in a folder that is there: /proc and the like take no new files
    refused = number == errno.ENOENT and path and _TEMPORARY.match(path.name) and path.parent.is_dir()
    if path is not None:
        path = Path(*(_TEMPORARY.sub(r"\1", part) for part in path.parts))
    if number in _FULL:
        return Unavailable(
            f"cannot write{f' {path}' if path else ''}: {_room(path or Path.cwd())}; make room there"
        )
    if refused:
        return InputError(f"cannot write {path}: no file can be made there; give another path")
    if path is None or number not in _REASONS or not isinstance(error, OSError):
        return None
    return InputError(f"cannot write {path}: {_REASONS[number]}")


@contextmanager
def naming(path: Path, temporary: Path) -> Iterator[None]:
    """Let errors of writing `temporary` name `path`, of which it will take the place.

    Raises:
        OSError: with its number and `path`, in place of any error that says the same less clearly.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        name = getattr(error, "filename", None)
        ours = isinstance(name, str) and Path(name).absolute().is_relative_to(temporary.absolute())
        unnamed = name is None and number in (*_FULL, errno.EROFS)
        if number is not None and number != errno.ENOENT and (ours or unnamed):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _number(error: BaseException) -> int | None:
    """The error's number; Polars, whose errors may be no `OSError`, writes it into the text."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    written = re.search(r"\(os error (\d+)\)", str(error))
    return int(written[1]) if written else None


def _room(path: Path) -> str:
    """How much is free on a path's disk."""
    there = next((above for above in (path, *path.parents) if above.exists()), None)
    if there is None:
        return "the disk is full"
    return f"the disk is full ({shutil.disk_usage(there).free / 1e6:.1f} MB free)"
