"""The data contract: three Parquet tables in one folder, and nothing else after ingest.

    users.parquet         user_id, …attributes
    items.parquet         item_id, title, …attributes
    interactions.parquet  user_id, item_id, event, rating?, timestamp

Ingest writes the columns as it finds them (a column with one bad number stays text, so that nothing is lost);
validation turns them into the types of `TYPES` and moves what does not fit into quarantine.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import polars as pl

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
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from error


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `folder` when the block ends well.

    On an error the temporary folder is removed and what was there before stays.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
