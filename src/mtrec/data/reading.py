"""Read delimited text, JSON lines and Parquet without losing a row or guessing a type.

Text files are first read as text in every column; `narrow` then turns a column into numbers or booleans
only when that loses nothing. A line that cannot be placed in the columns is an error which names the line;
a line that is too short is kept and padded with nulls, for validation to judge.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from mtrec.data.contract import read_parquet
from mtrec.data.reading_json import read_json_lines
from mtrec.data.reading_text import check_file, read_text
from mtrec.errors import DataError

log = logging.getLogger(__name__)

_CHUNK_ROWS = 100_000
_SEPARATORS = (",", ";", "\t", "|")
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


# ------------------------------------------------------------------------------------------------- any table


def read_table(path: Path) -> pl.DataFrame:
    """Read CSV, TSV, `::` files, JSON lines (all gzipped or not) or Parquet, recognised by content and suffix.

    Columns of text files are `String` (or `List(String)` in JSON lines) with empty cells as null; Parquet
    keeps its own types.

    Raises:
        DataError: the file is missing, empty, broken or no table.
    """
    check_file(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return read_parquet(path)
    if Path(path.name.removesuffix(".gz")).suffix in _JSON_SUFFIXES:
        return read_json_lines(path)
    return read_delimited(path)


def narrow(frame: pl.DataFrame, keep: Sequence[str] = ()) -> pl.DataFrame:
    """Turn text columns into Int64, Float64 or Boolean where every value survives the cast.

    A column with one value that does not fit stays text, so that validation can name the row. Leading
    zeros, plus signs and numbers of more than 15 whole digits stay text: they are codes, not quantities.

    Args:
        frame: any table.
        keep: columns that stay text whatever they hold, e.g. keys and titles.
    """
    changed = []
    for series in frame.iter_columns():
        if series.dtype == pl.String and series.name not in keep and series.null_count() < series.len():
            changed.append(_narrow_series(series))
    return frame.with_columns(changed)


def _narrow_series(series: pl.Series) -> pl.Series:
    number = r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?"
    if series.str.contains(rf"^({number}|NaN|nan|-?inf|-?Infinity)$").all():
        whole = series.cast(pl.Int64, strict=False)
        if whole.null_count() == series.null_count() and (whole.cast(pl.String) == series).all():
            return whole
        real = series.cast(pl.Float64, strict=False)
        return real if real.null_count() == series.null_count() else series
    if series.str.contains("(?i)^(true|false)$").all():
        return series.str.to_lowercase() == "true"
    return series


def require_columns(frame: pl.DataFrame, path: Path, columns: Sequence[str], hint: str) -> None:
    """Check that the columns are there.

    Args:
        frame: what was read from `path`.
        path: named in the message.
        columns: names that must be present.
        hint: how to mend it, one sentence.

    Raises:
        DataError: names every missing column, what was found, and the hint.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        verb = "column {} is" if len(missing) == 1 else "columns {} are"
        found = ", ".join(frame.columns[:20]) + (", …" if len(frame.columns) > 20 else "")
        raise DataError(f"{path}: {verb.format(names)} missing (found: {found}). {hint}")


# ------------------------------------------------------------------------------------------------- delimited


def read_delimited(
    path: Path,
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quoted: bool = True,
) -> pl.DataFrame:
    """Read a delimited text file with every column as `String`; empty cells become null, blank lines go.

    Args:
        path: the file, gzipped or not.
        separator: one or more characters; None takes the one that the first line uses most.
        columns: names for a file without a header line; None reads them from the first line.
        quoted: whether `"` quotes fields. Files with `::` never quote.

    Raises:
        DataError: missing, empty, header only, a line with more fields than columns, or broken quotes; the
            message names the line.
    """
    data = read_text(path)
    start = len(data) - len(data.lstrip(b"\r\n \t"))
    end = data.find(b"\n", start)
    first = data[start : end if end >= 0 else None].decode()
    separator = separator or ("::" if "::" in first else max(_SEPARATORS, key=first.count))
    if quoted and len(separator) == 1 and b'"' in data:
        frame = _read_quoted(path, data, separator, columns)
    else:
        frame = _read_lines(path, data, separator, columns)
    if frame.height == 0:
        raise DataError(f"{path}: the file has a header and no rows")
    return frame.with_columns(pl.all().replace("", None))


def _read_lines(path: Path, data: bytes, separator: str, columns: Sequence[str] | None) -> pl.DataFrame:
    lines = pl.read_lines(data, name="line", row_index_name="number", row_index_offset=1)
    lines = lines.filter(pl.col("line").str.strip_chars() != "")
    if columns is None:
        columns = _header(path, lines["line"][0].split(separator))
        lines = lines.slice(1)
    width = len(columns)
    # The last of width + 1 pieces holds whatever goes beyond the columns; only separators may stand there.
    pieces = lines.select("number", pl.col("line").str.splitn(separator, width + 1).alias("piece")).unnest("piece")
    beyond = pieces.filter(
        pl.col(f"field_{width}").str.replace_all(separator, "", literal=True).str.strip_chars() != ""
    )
    if beyond.height:
        number, line = lines.join(beyond.head(1), on="number", how="semi").row(0)
        raise _too_long(path, number, line.count(separator) + 1, columns)
    short = pieces.filter(pl.col(f"field_{width - 1}").is_null())
    _note_short(path, short.height, short["number"][0] if short.height else 0, columns)
    return pieces.select(pl.col(f"field_{i}").alias(name) for i, name in enumerate(columns))


def _read_quoted(path: Path, data: bytes, separator: str, columns: Sequence[str] | None) -> pl.DataFrame:
    rows = _quoted_rows(path, data, separator)
    if columns is None:
        columns = _header(path, next(rows, (1, [""]))[1])
    width, frames, chunk = len(columns), [], []
    num_short = first_short = 0
    for number, row in rows:
        if len(row) > width:
            if any(cell.strip() for cell in row[width:]):
                raise _too_long(path, number, len(row), columns)
            row = row[:width]
        elif len(row) < width:
            num_short, first_short = num_short + 1, first_short or number
            row = row + [None] * (width - len(row))  # type: ignore[list-item]
        chunk.append(row)
        if len(chunk) == _CHUNK_ROWS:
            frames.append(_text_frame(chunk, columns))
            chunk = []
    _note_short(path, num_short, first_short, columns)
    return pl.concat([*frames, _text_frame(chunk, columns)], rechunk=True)


def _text_frame(rows: list[list[str]], columns: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _quoted_rows(path: Path, data: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line on which each begins; blank lines are left out."""
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), delimiter=separator, strict=True)
    number = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row) or len(row) > 1:
                yield number, row
            number = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote is never closed" if "unexpected end" in str(error) else str(error)
        raise DataError(
            f"{path}:{number}: broken quotes ({reason}). Double a quote inside a quoted field."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _header(path: Path, names: Sequence[str]) -> list[str]:
    names = [name.strip().strip('"') or f"column_{i}" for i, name in enumerate(names, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: the header names {', '.join(map(repr, twice))} more than once. Rename one of them."
        )
    return names


def _too_long(path: Path, number: int, found: int, columns: Sequence[str]) -> DataError:
    return DataError(
        f"{path}:{number}: {found} fields where {len(columns)} columns are known ({', '.join(columns[:8])}). "
        "Quote a field that holds the separator, or remove the line."
    )


def _note_short(path: Path, count: int, first: int, columns: Sequence[str]) -> None:
    if count:
        log.warning(
            "%s: %d lines have fewer than %d fields (the first is line %d); the missing ones are read as empty",
            path, count, len(columns), first,
        )  # fmt: skip


def rename_columns(frame: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """Select and rename: `columns` maps the new name to the column in `frame`; absent columns are left out."""
    return frame.select(pl.col(old).alias(new) for new, old in columns.items() if old in frame.columns)
