"""Read JSON lines (one object per line) and lines of Python literals as text columns."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mtrec.data.reading_text import read_lines
from mtrec.errors import DataError

_CHUNK_ROWS = 50_000


def read_json_lines(path: Path, keys: Sequence[str] | None = None, *, literal: bool = False) -> pl.DataFrame:
    """Read one object per line; every scalar becomes text, every list a list of texts.

    A key that holds a list in one row and a scalar in another becomes a list everywhere. Objects inside
    become their JSON text. Absent keys and null become null; other keys than `keys` are left out.

    Args:
        path: the file, gzipped or not.
        keys: the keys to keep, each of which becomes a column; None keeps all.
        literal: lines that are not JSON are tried as Python literals (single quotes), as in the Amazon
            metadata of 2014.

    Returns:
        One row per line, columns `String` or `List(String)`.

    Raises:
        DataError: missing, empty, or a line that is no object; the message names the line.
    """
    frames: list[pl.DataFrame] = []
    listed: set[str] = set()
    for objects in _chunks(path, literal):
        names = list(keys) if keys is not None else list(dict.fromkeys(key for obj in objects for key in obj))
        frames.append(_frame(objects, names, listed))
    return pl.concat([_listed(frame, listed) for frame in frames], how="diagonal", rechunk=True)


def first_object(path: Path) -> dict[str, Any]:
    """The first object of a JSON lines file, to recognise a layout; the rest is not read.

    Raises:
        DataError: as `read_json_lines`.
    """
    return next(_objects(path, literal=False))


def _chunks(path: Path, literal: bool) -> Iterator[list[dict[str, Any]]]:
    objects = _objects(path, literal)
    while chunk := list(itertools.islice(objects, _CHUNK_ROWS)):
        yield chunk


def _objects(path: Path, literal: bool) -> Iterator[dict[str, Any]]:
    first = True
    for number, line in read_lines(path):
        if first and line.lstrip().startswith("["):
            raise DataError(
                f"{path}: holds one JSON array, not one object per line. Write one object per line (jq -c '.[]')."
            )
        first = False
        yield _object(path, number, line, literal)


def _object(path: Path, number: int, line: str, literal: bool) -> dict[str, Any]:
    value: Any
    try:
        value = json.loads(line)
    except ValueError as error:
        if not literal:
            raise DataError(f"{path}:{number}: not valid JSON ({error})") from error
        try:
            value = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as failure:
            raise DataError(f"{path}:{number}: neither JSON nor a Python literal ({error})") from failure
    if not isinstance(value, dict):
        raise DataError(f"{path}:{number}: a JSON {type(value).__name__} where an object {{…}} is expected")
    return value


def _frame(objects: list[dict[str, Any]], names: Sequence[str], listed: set[str]) -> pl.DataFrame:
    """One chunk as a frame; names of columns that hold lists are added to `listed`."""
    columns = {}
    for name in names:
        values = [obj.get(name) for obj in objects]
        if any(isinstance(value, list) for value in values):
            listed.add(name)
            columns[name] = pl.Series(name, [_texts(value) for value in values], dtype=pl.List(pl.String))
        else:
            columns[name] = pl.Series(name, [_text(value) for value in values], dtype=pl.String)
    return pl.DataFrame(columns)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, ensure_ascii=False, default=str)


def _texts(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        value = [value]
    flat: list[str] = []
    for part in value:
        flat += (_texts(part) or []) if isinstance(part, list) else [text for text in [_text(part)] if text]
    return flat


def _listed(frame: pl.DataFrame, names: set[str]) -> pl.DataFrame:
    """Wrap single texts as lists of one, in the named columns that are no lists yet."""
    columns = [name for name in frame.columns if name in names and frame.schema[name] == pl.String]
    return frame.with_columns(
        pl.when(pl.col(name).is_not_null()).then(pl.concat_list(name)).alias(name) for name in columns
    )
