"""Turn the columns that a source delivers into the types of the data contract, and say which cells do not fit.

Every function takes one column and returns a `Parsed`: a column of the wanted type, missing where a cell did not
fit, and for each kind of fault a mask of the rows that show it. Nothing is guessed silently: a cell that cannot be
read is always in a mask. Cells that are missing in the source stay missing and are no fault, except in keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

MISSING_WORDS = ("", "na", "n/a", "<na>", "null", "none", "\\n")
"""Text that means "no value", compared without case; `\\N` is what MySQL writes."""

EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
"""Timestamps before it are zeros or other marks for "unknown", never an interaction."""

_WHOLE_NUMBER = r"^[+-]?\d{1,15}$"
_OFFSET = r"(?i)\s*(?:z|utc|gmt|([+-])(\d{2}):?(\d{2})?)$"
_HAS_OFFSET = r"(?i):\d{2}(?:\.\d+)?\s*(?:z|utc|gmt|[+-]\d{2}:?(?:\d{2})?)$"
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
)
_COMPACT = {(19700101, 21001231): "%Y%m%d", (19700101000000, 21001231235959): "%Y%m%d%H%M%S"}
_UTC = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Parsed:
    """A typed column and, per fault, the rows (Boolean mask, one entry per row) that show it."""

    values: pl.Series
    faults: dict[str, pl.Series] = field(default_factory=dict)


def is_nested(dtype: Any) -> bool:
    """Whether cells of this type hold several values or raw bytes, so that they are no single value."""
    return dtype.is_nested() or dtype in (pl.Binary, pl.Object)


def parse_key(column: pl.Series) -> Parsed:
    """Ids and events: text without blanks around it. Whole floats lose their `.0`, so 17850.0 becomes '17850'.

    Faults: the value is missing (null, blank, NaN or one of `MISSING_WORDS`), or holds a control character.
    """
    text = _as_text(column).str.strip_chars()
    missing = _is_missing(text, (*MISSING_WORDS, "nan", "inf", "-inf"))
    control = text.str.contains(r"[\x00-\x1f\x7f]").fill_null(False)
    faults = {f"missing {column.name}": missing, f"control character in {column.name}": control & ~missing}
    return Parsed(_where(text, ~missing), faults)


def parse_text(column: pl.Series) -> Parsed:
    """Text and category columns: any single value as text; whole floats lose their `.0`. No faults."""
    return Parsed(_as_text(column))


def parse_number(column: pl.Series, *, keep_integers: bool = True) -> Parsed:
    """Numbers, or numbers written as text.

    Args:
        column: any type; a type that holds no numbers at all (dates, lists) makes every cell a fault.
        keep_integers: whether a column of whole numbers becomes Int64, so that a year reads 1995 and not 1995.0
            in a text template; else Float64.

    Faults: the cell is not a number, or it is NaN or infinite.
    """
    name, dtype = column.name, column.dtype
    if dtype.is_integer() and keep_integers and dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        return Parsed(column.cast(pl.Int64))
    present = column.is_not_null()
    if dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        values, whole = column.cast(pl.Float64), False
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        text = _as_text(column).str.strip_chars()
        text = _where(text, ~_is_missing(text, MISSING_WORDS))
        present = text.is_not_null()
        values = text.cast(pl.Float64, strict=False)
        readable = text.filter(values.is_not_null())
        whole = len(readable) > 0 and bool(readable.str.contains(_WHOLE_NUMBER).all())
    else:
        values, whole = pl.Series(name, [None] * len(column), dtype=pl.Float64), False
    infinite = (values.is_nan() | values.is_infinite()).fill_null(False)
    faults = {
        f"{name} is not a number": present & values.is_null(),
        f"{name} is NaN or infinite": infinite,
    }
    values = _where(values, ~infinite)
    return Parsed(values.cast(pl.Int64) if whole and keep_integers else values, faults)


def parse_flag(column: pl.Series) -> Parsed:
    """Yes or no as 1.0 and 0.0: true/false, yes/no, t/f, y/n, 1/0, or a Boolean column.

    Faults: the cell is neither.
    """
    text = _as_text(column).str.strip_chars().str.to_lowercase()
    missing = _is_missing(text, (*MISSING_WORDS, "nan"))
    yes = text.is_in(["true", "t", "yes", "y", "1"]).fill_null(False)
    no = text.is_in(["false", "f", "no", "n", "0"]).fill_null(False)
    values = _where(yes.cast(pl.Float64), yes | no).alias(column.name)
    return Parsed(values, {f"{column.name} is neither yes nor no": ~(missing | yes | no)})


def parse_list(column: pl.Series) -> Parsed:
    """Several values per cell, as a list of text; missing cells stay missing. No faults.

    A fixed-width array becomes a list. A column of another type must have been refused before.
    """
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    return Parsed(column.cast(pl.List(pl.String)))


def parse_timestamp(column: pl.Series, now: datetime) -> Parsed:
    """Moments as Datetime in microseconds, UTC.

    Understood are typed dates and datetimes (without a zone they count as UTC); epoch seconds, milliseconds,
    microseconds and nanoseconds, told apart by size, as numbers or as numeric text; compact dates as 20130405 or
    20130405100000; and text such as `2013-04-05`, `2013-04-05 10:00:00`, `2013-04-05T10:00:00.5+02:00`,
    `2013/04/05 10:00`. Day-first dates are ambiguous and count as unreadable.

    Faults: missing; NaN or infinite; not readable; before 1970-01-02; more than a day after `now`.
    """
    name, dtype = column.name, column.dtype
    missing = column.is_null()
    infinite = pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    if isinstance(dtype, pl.Datetime):
        zoned = column if dtype.time_zone else column.dt.replace_time_zone("UTC")
        values = zoned.dt.convert_time_zone("UTC").cast(_UTC)
    elif dtype == pl.Date:
        values = column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif dtype.is_numeric() or dtype == pl.Null:
        numbers = column.cast(pl.Float64)
        infinite = (numbers.is_nan() | numbers.is_infinite()).fill_null(False)
        values = _from_epoch(numbers)
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        text = _as_text(column).str.strip_chars()
        missing = _is_missing(text, (*MISSING_WORDS, "nat"))
        numbers = text.cast(pl.Float64, strict=False)
        infinite = (numbers.is_nan() | numbers.is_infinite()).fill_null(False)
        values = _from_epoch(numbers)
        rest = values.is_null() & ~missing & ~infinite
        if rest.any():
            read = _from_iso(text.filter(rest))
            values = values.scatter(rest.arg_true(), read)
    else:
        values = pl.Series(name, [None] * len(column), dtype=_UTC)
    early = (values < EARLIEST).fill_null(False)
    late = (values > now.astimezone(UTC) + timedelta(days=1)).fill_null(False)
    faults = {
        f"missing {name}": missing,
        f"{name} is NaN or infinite": infinite,
        f"{name} is not readable": values.is_null() & ~missing & ~infinite,
        f"{name} is before 1970-01-02": early,
        f"{name} is in the future": late,
    }
    return Parsed(_where(values, ~(early | late)).alias(name), faults)


def misfit(column: pl.Series, parsed: Parsed) -> str | None:
    """Say so when a column of numbers or of yes and no holds mostly something else.

    The rule: of the cells that hold a value, more are unreadable than readable. Then the column is not what the
    scenario takes it for, and setting the cells to missing would hide that.

    Args:
        column: as the source delivered it.
        parsed: what `parse_number` or `parse_flag` made of it.

    Returns:
        For example "1190 of 1200 values are not numbers, e.g. 'red'"; None when the column fits.
    """
    named = {f"{column.name} is not a number": "numbers", f"{column.name} is neither yes nor no": "yes or no"}
    for fault, wanted in named.items():
        if fault in parsed.faults:
            rows = parsed.faults[fault]
            bad, good = int(rows.sum()), parsed.values.count()
            if bad > good:
                example = str(column.filter(rows)[0])
                shown = example if len(example) <= 40 else f"{example[:39]}…"
                return f"{bad} of {bad + good} values are not {wanted}, e.g. {shown!r}"
    return None


def find_long(column: pl.Series, limit: int) -> pl.Series:
    """Rows whose text is longer than `limit` characters (Boolean mask); a column that holds no text has none."""
    if column.dtype != pl.String:
        return pl.repeat(False, len(column), dtype=pl.Boolean, eager=True)
    return (column.str.len_chars() > limit).fill_null(False)


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_float():
        whole = column.is_finite() & (column == column.round()) & (column.abs() < 2**63)
        integers = _where(column, whole).cast(pl.Int64, strict=False).cast(pl.String)
        text = integers.fill_null(column.cast(pl.String))
        return _where(text, ~column.is_nan().fill_null(False))
    if column.dtype.is_decimal():
        return _as_text(column.cast(pl.Float64))
    return column.cast(pl.String)


def _is_missing(text: pl.Series, words: tuple[str, ...]) -> pl.Series:
    return text.is_null() | text.str.to_lowercase().is_in(list(words)).fill_null(False)


def _where(column: pl.Series, keep: pl.Series) -> pl.Series:
    """The column with null where `keep` is false or null."""
    return pl.select(pl.when(keep).then(column).alias(column.name)).to_series()


def _from_epoch(numbers: pl.Series) -> pl.Series:
    """Epoch numbers to Datetime; the unit follows from the size (1e11 seconds would be the year 5138).

    Numbers that look like compact dates are read as such: as seconds they would all lie in August 1970.
    """
    size = pl.lit(numbers.abs())
    micros = (
        pl.when(size < 1e11)
        .then(numbers * 1e6)
        .when(size < 1e14)
        .then(numbers * 1e3)
        .when(size < 1e17)
        .then(numbers)
        .when(size < 1e19)
        .then(numbers / 1e3)
    )
    whole = pl.select(micros.round().cast(pl.Int64, strict=False)).to_series().cast(pl.Datetime("us"))
    digits = numbers.cast(pl.Int64, strict=False).cast(pl.String)
    for (low, high), form in _COMPACT.items():
        inside = numbers.is_between(low, high).fill_null(False)
        if inside.any():
            read = digits.filter(inside).str.to_datetime(form, strict=False, time_unit="us")
            whole = whole.scatter(inside.arg_true(), read)
    return whole.dt.replace_time_zone("UTC").alias(numbers.name)


def _from_iso(text: pl.Series) -> pl.Series:
    """ISO-like text to Datetime; null where no known form fits."""
    text = text.str.replace(r"^(\d{4}[-/]\d{1,2}[-/]\d{1,2})[Tt]", "${1} ")
    zoned = text.str.contains(_HAS_OFFSET).fill_null(False)
    parts = pl.DataFrame({"text": text}).select(
        sign=pl.when(pl.col("text").str.extract(_OFFSET, 1) == "-").then(-1).otherwise(1),
        hours=pl.col("text").str.extract(_OFFSET, 2).cast(pl.Int64).fill_null(0),
        minutes=pl.col("text").str.extract(_OFFSET, 3).cast(pl.Int64).fill_null(0),
        bare=pl.col("text").str.replace(_OFFSET, ""),
    )
    bare = pl.select(pl.when(zoned).then(parts["bare"]).otherwise(text)).to_series()
    read = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
    for form in _FORMATS:
        if not read.is_null().any():
            break
        read = read.fill_null(bare.str.to_datetime(form, strict=False, time_unit="us"))
    offset = parts["sign"] * (parts["hours"] * 60 + parts["minutes"])
    shift = pl.select(pl.duration(minutes=pl.when(zoned).then(offset).otherwise(0))).to_series()
    return (read - shift).dt.replace_time_zone("UTC").cast(_UTC)
