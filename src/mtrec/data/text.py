"""Text templates: one string per item, from its columns."""

from __future__ import annotations

import math
import re
import string

import polars as pl

from mtrec.errors import ConfigError

_SPACES = re.compile(r"\s+")
_EMPTY_PAIRS = re.compile(r"\(\s*\)|\[\s*\]")
_LOOSE_PUNCTUATION = re.compile(r"(?:^|(?<=[.,;:]))\s*[.,;:]+|\s+([.,;:])")


def fill_template(items: pl.DataFrame, template: str) -> pl.Series:
    """Fill a template such as `{title}. {description}` for every row.

    A missing value becomes nothing, and the brackets or punctuation left around it go too. Lists are joined
    with commas. A float that is a whole number is written without its point (a year stays a year); one that is
    not finite is missing.

    Args:
        items: N rows that hold every field of the template.
        template: `str.format` fields without conversions.

    Returns:
        String series of length N named `text`.

    Raises:
        ConfigError: the template is malformed or names a column that is not there.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"items.text: '{template}' is not a valid template ({error})") from error
    fields = [name for _, name, _, _ in parts if name is not None]
    for name in fields:
        if name not in items.columns:
            raise ConfigError(
                f"items.text: column '{name}' is not in the items table (found: {', '.join(items.columns)})"
            )
    columns = {name: _as_text(items[name]) for name in set(fields)}
    texts = [
        _tidy("".join(literal + (columns[name][row] if name else "") for literal, name, _, _ in parts))
        for row in range(items.height)
    ]
    return pl.Series("text", texts, dtype=pl.String)


def _as_text(column: pl.Series) -> list[str]:
    if column.dtype.is_float():
        known = (v if v is not None and math.isfinite(v) else None for v in column)
        return ["" if v is None else (str(int(v)) if v == int(v) else f"{v:g}") for v in known]
    if isinstance(column.dtype, pl.List):
        return [", ".join(str(x) for x in v) if v is not None else "" for v in column]
    return ["" if v is None else str(v) for v in column]


def _tidy(text: str) -> str:
    text = _SPACES.sub(" ", _EMPTY_PAIRS.sub("", text))
    return _LOOSE_PUNCTUATION.sub(lambda found: found.group(1) or "", text).strip()
