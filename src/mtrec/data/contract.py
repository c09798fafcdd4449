"""The data contract: three Parquet tables in one folder, and nothing else after ingest.

    users.parquet         user_id, …attributes
    items.parquet         item_id, title, …attributes
    interactions.parquet  user_id, item_id, event, rating?, timestamp

Ingest writes the columns as it finds them (a column with one bad number stays text, so that nothing is lost);
validation turns them into the types of `TYPES` and moves what does not fit into quarantine.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import polars as pl

from mtrec.disk import naming
from mtrec.errors import DataError

KEYS: dict[str, tuple[str, ...]] = {"users": ("user_id",), "items": ("item_id",), "interactions": ()}
REQUIRED: dict[str, tuple[str, ...]] = {
    "users": ("user_id",),
    "items": ("item_id", "title"),
    "interactions": ("user_id", "item_id", "event", "timestamp"),
}
TYPES: dict[str, dict[str, pl.DataType]] = {
    "users": {"user_id": pl.String()},
    "items": {"item_id": pl.String(), "title": pl.String()},
    "interactions": {
        "user_id": pl.String(),
        "item_id": pl.String(),
        "event": pl.String(),
        "rating": pl.Float64(),
        "timestamp": pl.Datetime("us", "UTC"),
    },
}
_ABANDONED = 24 * 3600
"""Seconds without a write after which a temporary counts as left by a writer that was killed."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The three tables of the contract."""

    users: pl.DataFrame
    items: pl.DataFrame
    interactions: pl.DataFrame

    def write(self, folder: Path) -> None:
        """Write the three Parquet files; the folder appears complete or not at all."""
        with replacing_folder(folder) as temporary:
            for field in fields(self):
                getattr(self, field.name).write_parquet(temporary / f"{field.name}.parquet")

    @classmethod
    def read(cls, folder: Path) -> Tables:
        """Read the three Parquet files.

        Raises:
            DataError: a file is missing or is not Parquet.
        """
        return cls(**{field.name: read_parquet(folder / f"{field.name}.parquet") for field in fields(cls)})

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows per table."""
        return {field.name: getattr(self, field.name).height for field in fields(self)}


def is_contract(folder: Path) -> bool:
    """Whether the folder holds the three contract tables."""
    return all((folder / f"{name}.parquet").is_file() for name in REQUIRED)


def read_parquet(path: Path) -> pl.DataFrame:
    """Read one Parquet file.

    Raises:
        DataError: it is missing or is not Parquet.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `folder` when the block ends well.

    On an error the temporary folder is removed and what was there before stays. A kill leaves the old content or
    the new one in place, or the old one aside, from where `recover` takes it back. Of several writers at a time the
    last one wins.
    """
    recover(folder)
    temporary = _beside(folder, "tmp")
    try:
        with naming(folder, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            _exchange(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = _beside(path, "tmp")
    try:
        with naming(path, temporary):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def recover(path: Path) -> None:
    """Mend what killed writers of a file or folder left beside it.

    A folder that was moved aside comes back where nothing has taken its place. Temporaries in which nothing was
    written for a day are removed; a younger one may belong to a writer at work, perhaps on another machine.
    """
    left = _left_beside(path)  # listed before the look at `path`: what is moved aside from now on is not in it
    aside = [leftover for leftover in left if leftover.suffix == ".old"]
    if aside and not path.exists():
        with suppress(OSError):  # somebody else was faster
            max(aside, key=_written).rename(path)
    for leftover in left:
        needed = leftover.suffix == ".old" and not path.exists()
        if not needed and time.time() - _written(leftover) > _ABANDONED:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _exchange(new: Path, folder: Path) -> None:
    """Move the folder's old content aside and the new content in; then delete the old."""
    old = _beside(folder, "old")
    if folder.is_dir() and not folder.is_symlink():
        with suppress(FileNotFoundError):  # another writer has moved it aside
            folder.rename(old)
    try:
        new.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            recover(folder)
            raise
        _exchange(new, folder)  # another writer, or `recover`, has put one there meanwhile
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, kind: str) -> Path:
    """A new name in the same folder; process ids would coincide between containers on one volume."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.{kind}")


def _left_beside(path: Path) -> list[Path]:
    """What `_beside` named for this path and is still there."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]+\.(tmp|old)")
    try:
        return [found for found in path.parent.iterdir() if name.fullmatch(found.name)]
    except OSError:
        return []


def _written(path: Path) -> float:
    """When something was last written in a file or folder; now, if it is vanishing."""
    try:
        return max(part.lstat().st_mtime for part in (path, *path.rglob("*")))
    except OSError:
        return time.time()
