"""A data drop joined with the data version that a champion learned from.

A drop is what any source reads: the whole data once more, or only what is new. Of contract tables, `users.parquet`
and `items.parquet` may be left out. A folder of drops is read in the order of their names. Interactions are joined
in order of time, without those that repeat a known one in all of its columns; of a user or an item the newest row
wins, and a column that the drop does not have keeps what was known.

Values pass through as they came; validation judges them. Nothing is written here.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from mtrec.config import Scenario
from mtrec.data.contract import KEYS, REQUIRED, Tables, read_parquet
from mtrec.data.forgotten import Forgotten
from mtrec.data.parsing import parse_key, parse_timestamp
from mtrec.data.schema import needed_columns
from mtrec.data.sources import read_source, recognise_source
from mtrec.errors import DataError

_FRESH, _MOMENT, _KEY = "__fresh", "__moment", "__key"
_READ_AS_KEYS = ("user_id", "item_id", "event")


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What is known and what is new, together."""

    tables: Tables
    fresh: pl.DataFrame
    """The interactions that only the drop has, in order of time."""
    changed: dict[str, int]
    """Rows per table that are new or differ from what was known."""


def known_tables(version: str, root: Path | None) -> Tables:
    """Fetch the tables of a data version from the DVC repository.

    Args:
        version: DVC's hash, as a registered model names it.
        root: see `mtrec.data.versioning.restore`.

    Raises:
        DataError: no such version, a damaged one, or one that holds no contract tables.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be read.
    """
    from mtrec.data.versioning import restore

    with tempfile.TemporaryDirectory() as folder:
        restore(version, Path(folder) / "tables", root)
        return Tables.read(Path(folder) / "tables")


def merge_drops(known: Tables, scenario: Scenario, folder: Path, forgotten: Forgotten | None = None) -> Merged:
    """Join a drop, or a folder of drops one after the other, with what is known.

    Args:
        known: tables of the champion's data version.
        scenario: says how its source is read.
        folder: a drop, or a folder that holds nothing but drops.
        forgotten: users to leave out, of what is known and of the drops.

    Raises:
        DataError: as `read_drop` and `merge`.
        ConfigError: wrong mappings.
    """
    leave_out = forgotten.leave_out if forgotten else lambda tables: tables
    known = leave_out(known)
    tables, fresh, changed = known, [known.interactions.clear()], dict.fromkeys(KEYS, 0)
    for drop in drops_in(scenario, folder):
        found = merge(tables, leave_out(read_drop(scenario, drop)), str(drop))
        tables = found.tables
        fresh.append(found.fresh)
        changed = {name: count + found.changed[name] for name, count in changed.items()}
    types = tables.interactions.schema  # a later drop may have turned a column into text
    fresh = [_cast(frame, types) for frame in fresh]
    return Merged(tables=tables, fresh=pl.concat(fresh, how="diagonal"), changed=changed)


def _cast(frame: pl.DataFrame, types: pl.Schema) -> pl.DataFrame:
    """Interactions with other types, as `_alike` gave them to those they were joined with."""
    read = [_as_read(frame[name]) for name in _READ_AS_KEYS if frame.schema[name] != types[name]]
    return frame.with_columns(read).cast({name: types[name] for name in frame.columns})


def drops_in(scenario: Scenario, folder: Path) -> list[Path]:
    """The drops of a folder by name; the folder itself where it is one.

    Raises:
        DataError: it is neither.
    """

    def is_drop(path: Path) -> bool:
        if (path / "interactions.parquet").is_file():
            return True
        try:
            recognise_source(scenario, path)
        except DataError:
            return False
        return True

    inner = [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]
    own = any(path.is_file() for path in folder.glob("[!.]*"))
    return inner if inner and not own and all(map(is_drop, inner)) else [folder]


def read_drop(scenario: Scenario, drop: Path) -> Tables:
    """Read a data drop.

    Args:
        scenario: says how its source is read, and which columns are needed.
        drop: the folder.

    Returns:
        The tables; one that was left out has no rows.

    Raises:
        DataError: no folder, no known layout, broken files, or a table without a column that is needed.
        ConfigError: wrong mappings.
    """
    if not (drop / "interactions.parquet").is_file():
        tables = read_source(scenario, drop)
    else:
        found = {}
        for field in fields(Tables):
            path = drop / f"{field.name}.parquet"
            nothing = pl.DataFrame(schema=dict.fromkeys(REQUIRED[field.name], pl.String()))
            found[field.name] = read_parquet(path) if path.exists() else nothing
        tables = Tables(**found)
    missing = [
        f"{name}: column '{column}' is missing (needed by {why}; found: {', '.join(frame.columns[:20])})"
        for name in KEYS
        if (frame := getattr(tables, name)).height
        for column, why in needed_columns(name, scenario).items()
        if column not in frame.columns
    ]
    if missing:
        raise DataError(f"{drop}: {'; '.join(missing)}. Correct the drop, or map the columns in its source")
    return tables


def merge(known: Tables, drop: Tables, where: str = "the drop") -> Merged:
    """Join a drop with what is known.

    Args:
        known: tables of the champion's data version.
        drop: from `read_drop`.
        where: what people call the drop, for the messages.

    Returns:
        The tables; those of `known` themselves where the drop holds nothing new.

    Raises:
        DataError: a column holds lists on one side and single values on the other, or the drop's interactions lack
            one that the known ones have.
    """
    interactions, fresh = _interactions(known.interactions, drop.interactions, where)
    people = _newest(known.users, drop.users, "users", where)
    goods = _newest(known.items, drop.items, "items", where)
    changed = {
        "users": _different(known.users, people),
        "items": _different(known.items, goods),
        "interactions": fresh.height,
    }
    return Merged(
        tables=Tables(
            users=people if changed["users"] else known.users,
            items=goods if changed["items"] else known.items,
            interactions=interactions if changed["interactions"] else known.interactions,
        ),
        fresh=fresh,
        changed=changed,
    )


def _interactions(known: pl.DataFrame, drop: pl.DataFrame, where: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    if drop.height:
        missing = [name for name in known.columns if name not in drop.columns]
        if missing:
            raise DataError(
                f"{where}: interactions: column '{missing[0]}' is missing, which the data so far has (found: "
                f"{', '.join(drop.columns)}); add it, empty where there is no value"
            )
    known, drop = _alike(known, drop, "interactions", where)
    parts = (known.with_columns(pl.lit(False).alias(_FRESH)), drop.with_columns(pl.lit(True).alias(_FRESH)))
    joined = pl.concat(parts, how="diagonal")
    joined = joined.unique(subset=known.columns, keep="first", maintain_order=True)
    moment = parse_timestamp(joined["timestamp"], datetime.now(UTC)).values
    joined = joined.with_columns(moment.alias(_MOMENT)).sort(_MOMENT, nulls_last=True, maintain_order=True)
    joined = joined.drop(_MOMENT)
    return joined.drop(_FRESH), joined.filter(pl.col(_FRESH)).drop(_FRESH)


def _newest(known: pl.DataFrame, drop: pl.DataFrame, table: str, where: str) -> pl.DataFrame:
    (key,) = KEYS[table]
    known, drop = _alike(known, drop, table, where)
    known, drop = (frame.with_columns(_as_read(frame[key]).alias(_KEY)) for frame in (known, drop))
    drop = drop.filter(pl.col(_KEY).is_null() | pl.col(_KEY).is_last_distinct())
    kept = known.join(drop, on=_KEY, how="anti", maintain_order="left")
    others = [name for name in known.columns if name not in drop.columns]
    before = known.filter(pl.col(_KEY).is_last_distinct()).select(_KEY, *others)
    drop = drop.join(before, on=_KEY, how="left", maintain_order="left")
    return pl.concat([kept, drop], how="diagonal").drop(_KEY)


def _as_read(column: pl.Series) -> pl.Series:
    """Ids as validation will read them; what it will refuse stays as it is."""
    if column.dtype.is_nested():
        return column
    return parse_key(column).values.fill_null(column.cast(pl.String))


def _different(known: pl.DataFrame, merged: pl.DataFrame) -> int:
    """How many rows of `merged` are not in `known`."""
    if merged.schema != known.schema:
        return max(merged.height, 1)
    both = [frame.with_columns(pl.lit(fresh).alias(_FRESH)) for fresh, frame in enumerate((known, merged))]
    return int(pl.concat(both).unique(subset=known.columns, keep="first", maintain_order=True)[_FRESH].sum())


def _alike(known: pl.DataFrame, drop: pl.DataFrame, table: str, where: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both frames with the same type in every column that they share."""
    for name in known.columns:
        if name not in drop.columns or known.schema[name] == drop.schema[name]:
            continue
        columns = _as_one(known[name], drop[name])
        if columns is None:
            raise DataError(
                f"{where}: {table}: column '{name}' holds {drop.schema[name]}, in the data so far "
                f"{known.schema[name]}; write it as before"
            )
        known, drop = known.with_columns(columns[0]), drop.with_columns(columns[1])
    return known, drop


def _as_one(*columns: pl.Series) -> list[pl.Series] | None:
    """Columns of different types as one type; None where that would mean lists beside single values."""
    types = [column.dtype for column in columns]
    empty = [not len(column) or column.dtype == pl.Null for column in columns]
    if any(empty):
        return [column.cast(types[empty.index(False)] if not all(empty) else types[0]) for column in columns]
    if all(isinstance(dtype, pl.List) for dtype in types):
        return [column.cast(pl.List(pl.String)) for column in columns]
    if any(dtype.is_nested() for dtype in types):
        return None
    if columns[0].name in _READ_AS_KEYS:
        return [_as_read(column) for column in columns]
    if all(dtype.is_numeric() for dtype in types):
        return [column.cast(pl.Float64) for column in columns]
    if columns[0].name == "timestamp":
        parsed = [parse_timestamp(column, datetime.now(UTC)).values for column in columns]
        if all(p.null_count() == c.null_count() for p, c in zip(parsed, columns, strict=True)):
            return parsed
    return [column.cast(pl.String) for column in columns]
