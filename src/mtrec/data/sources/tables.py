"""Any CSV, JSON lines or Parquet file, its columns mapped to the contract in the scenario.

    source:
      type: tables
      items: {file: goods.csv, columns: {item_id: code, title: name}, lists: {tags: "|"}}
      interactions:
        file: log.csv
        columns: {user_id: customer, item_id: code, timestamp: day}
        constants: {event: purchase}
        where: ["quantity > 0"]
        times: {timestamp: "%d.%m.%Y"}

`where` conditions are SQL over the file's own columns, run by Polars. A column is a number there when every
value of it is one; otherwise it is text, and `TRY_CAST(quantity AS DOUBLE) > 0` reads its numbers.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mtrec.config import Source, TableMapping
from mtrec.data.contract import KEYS, REQUIRED, Tables
from mtrec.data.reading import narrow, read_table, require_columns
from mtrec.data.sources.shape import shape_tables, split_list
from mtrec.errors import ConfigError, DataError


def read(source: Source, folder: Path, scenario: str) -> Tables:
    """Read the mapped files.

    Args:
        source: with the mappings `items`, `interactions` and perhaps `users`.
        folder: the files' folder.
        scenario: name for the messages.

    Raises:
        ConfigError: a mapping lacks a required column or names one twice.
        DataError: a file is missing or broken, lacks a mapped column, or a condition cannot be run.
    """
    mappings = {name: getattr(source, name) for name in REQUIRED if getattr(source, name) is not None}
    _check(mappings, scenario)
    files: dict[str, pl.DataFrame] = {}
    frames: dict[str, pl.DataFrame] = {}
    for name, mapping in mappings.items():
        path = _find(folder, mapping.file)
        if mapping.file not in files:
            files[mapping.file] = narrow(read_table(path))
        frames[name] = _map(files[mapping.file], mapping, name, path, scenario)
    return shape_tables(frames["items"], frames["interactions"], frames.get("users"))


def _check(mappings: dict[str, TableMapping], scenario: str) -> None:
    """One error that lists what every mapping lacks."""
    problems = []
    for name, mapping in mappings.items():
        given = [*mapping.columns, *mapping.constants]
        problems += [
            f"source.{name}.columns: '{column}' is not mapped (give its column in {mapping.file})"
            for column in REQUIRED[name]
            if column not in given
        ]
        problems += [
            f"source.{name}: '{column}' is both in columns and in constants"
            for column in mapping.columns
            if column in mapping.constants
        ]
        problems += [
            f"source.{name}.{key}: '{column}' is not in columns"
            for key in ("lists", "times")
            for column in getattr(mapping, key)
            if column not in mapping.columns
        ]
    if problems:
        raise ConfigError(f"scenario '{scenario}': {'; '.join(problems)}")


def _find(folder: Path, name: str) -> Path:
    """The file, or its form with or without `.gz`."""
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    if not (folder / name).is_file() and (folder / other).is_file():
        return folder / other
    return folder / name


def _map(frame: pl.DataFrame, mapping: TableMapping, table: str, path: Path, scenario: str) -> pl.DataFrame:
    place = f"source.{table}"
    hint = f"Map it in the scenario '{scenario}' under {place}.columns."
    require_columns(frame, path, list(mapping.columns.values()), hint)
    for condition in mapping.where:
        frame = _where(frame, condition, path, f"{place}.where")
    frame = frame.select(
        *(pl.col(old).alias(new) for new, old in mapping.columns.items()),
        *(pl.lit(value).alias(new) for new, value in mapping.constants.items()),
    )
    if frame.height == 0:
        raise DataError(f"{path}: no row is left after {place}.where ({'; '.join(mapping.where)})")
    lists = [
        split_list(name, separator) for name, separator in mapping.lists.items() if frame.schema[name] != pl.List
    ]
    times = [_iso(name, form) for name, form in mapping.times.items() if frame.schema[name] == pl.String]
    frame = frame.with_columns(*lists, *times)
    if mapping.distinct:
        frame = frame.unique(subset=list(KEYS[table]) or None, keep="first", maintain_order=True)
    return frame


def _iso(name: str, form: str) -> pl.Expr:
    """Text times of a known format in ISO form; what does not fit stays, for validation to judge."""
    read = pl.col(name).str.strip_chars().str.to_datetime(form, strict=False, time_unit="us")
    return pl.coalesce(read.dt.to_string("iso:strict"), pl.col(name)).alias(name)


def _where(frame: pl.DataFrame, condition: str, path: Path, place: str) -> pl.DataFrame:
    try:
        return frame.filter(pl.sql_expr(condition))
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        found = ", ".join(f"{name} {dtype}" for name, dtype in list(frame.schema.items())[:12])
        raise DataError(f"{path}: {place}: {condition!r} cannot be run ({reason}; columns: {found})") from error
