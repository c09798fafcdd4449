"""A scenario's declared expectations as Great Expectations' objects and suites.

Great Expectations takes seconds to import and is therefore imported inside the functions.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mtrec.config import Expectation

POSITION = "mtrec_position"
"""Key in an expectation's meta: its place in its table's list. Results come back in another order."""

_COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def find_problem(expectation: Expectation) -> str | None:
    """What is wrong with a declared expectation, or None."""
    from great_expectations.compatibility.pydantic import ValidationError
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations import expectation as kinds
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    try:
        known = get_expectation_impl(expectation.type)
        build(expectation, None, 0)
    except ExpectationNotFoundError:
        names = sorted(list_registered_expectation_implementations())
        close = difflib.get_close_matches(expectation.type, names, n=3, cutoff=0.5)
        return f"unknown expectation '{expectation.type}'; close names: {', '.join(close) or 'none'}"
    except ValidationError as error:
        reasons = [
            (".".join(str(part) for part in e["loc"] if part != "__root__"), e["msg"]) for e in error.errors()
        ]
        lines = dict.fromkeys(f"{place}: {message}" if place else message for place, message in reasons)
        return f"{expectation.type}: wrong arguments ({'; '.join(lines)})"
    except (TypeError, ValueError) as error:
        return f"{expectation.type}: wrong arguments ({error})"
    for regex in [expectation.arguments.get("regex"), *(expectation.arguments.get("regex_list") or [])]:
        try:
            re.compile(str(regex))
        except re.error as error:
            return f"{expectation.type}: '{regex}' is not a regular expression ({error})"
    about_rows = (kinds.ColumnMapExpectation, kinds.ColumnPairMapExpectation, kinds.MulticolumnMapExpectation)
    if expectation.quarantine and not issubclass(known, about_rows):
        return f"{expectation.type}: 'quarantine: true' needs an expectation about rows, not about a whole column"
    return None


def _describe(errors: Iterable[Any]) -> str:
    places = [(".".join(str(part) for part in e["loc"] if part != "__root__"), e["msg"]) for e in errors]
    return "; ".join(dict.fromkeys(f"{place}: {text}" if place else text for place, text in places))


def build(expectation: Expectation, frame: pl.DataFrame | None, position: int) -> Any:
    """The expectation as Great Expectations' object.

    With a frame that lacks one of its columns, the expectation becomes "the column exists": Great Expectations
    would bury the missing column in a traceback.
    """
    from great_expectations.expectations import ExpectColumnToExist
    from great_expectations.expectations.registry import get_expectation_impl

    common: dict[str, Any] = {"severity": expectation.severity, "meta": {POSITION: position}}
    arguments = dict(expectation.arguments)
    if frame is not None:
        missing = [name for name in columns_of(expectation) if name not in frame.columns]
        if missing and expectation.type != "expect_column_to_exist":
            return ExpectColumnToExist(column=missing[0], **common)
        arguments = _with_moments(arguments, frame)
    return get_expectation_impl(expectation.type)(**{**arguments, **common})


def build_suite(table: str, expectations: Sequence[Expectation], frame: pl.DataFrame | None = None) -> Any:
    """A table's Great Expectations suite; with a frame, fitted to its columns (see `build`)."""
    from great_expectations import ExpectationSuite

    built = [build(expectation, frame, position) for position, expectation in enumerate(expectations)]
    return ExpectationSuite(name=table, expectations=built)


def _with_moments(arguments: dict[str, Any], frame: pl.DataFrame) -> dict[str, Any]:
    """Bounds of a timestamp column as datetimes with a zone, which is what its values are."""
    if not isinstance(frame.schema.get(arguments.get("column", "")), pl.Datetime):
        return arguments
    moments = {}
    for name in ("min_value", "max_value"):
        with suppress(ValueError):  # no moment: Great Expectations will say that it cannot compare it
            moment = datetime.fromisoformat(str(arguments.get(name)))
            moments[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return {**arguments, **moments}


def columns_of(expectation: Expectation) -> list[str]:
    """Columns that the expectation names."""
    named = [expectation.arguments[key] for key in _COLUMN_ARGUMENTS if key in expectation.arguments]
    return named + list(expectation.arguments.get("column_list", []))


def columns_for(expectations: Iterable[Expectation], frame: pl.DataFrame) -> list[str]:
    """Columns that must be converted, in the frame's order; all of them where columns are counted or filtered."""
    needed: set[str] = set()
    for expectation in expectations:
        if expectation.type.startswith("expect_table_column") or "row_condition" in expectation.arguments:
            return frame.columns
        needed.update(columns_of(expectation))
    return [name for name in frame.columns if name in needed]


def make_labels(expectations: Sequence[Expectation]) -> list[str]:
    """A short name per expectation; arguments are added only where two would read the same."""
    short = [f"{e.type}({', '.join(columns_of(e))})" for e in expectations]
    labels = []
    for expectation, label in zip(expectations, short, strict=True):
        if short.count(label) > 1:
            others = {
                k: v for k, v in expectation.arguments.items() if k not in (*_COLUMN_ARGUMENTS, "column_list")
            }
            label = f"{label[:-1]}, {', '.join(f'{k}={v}' for k, v in others.items())})"
        labels.append(label)
    return labels


def suite_as_json(table: str, expectations: Sequence[Expectation]) -> str:
    """A table's suite in Great Expectations' form, the same text every time."""
    plain: Any = build_suite(table, expectations).to_json_dict()
    for expectation, entry in zip(expectations, plain["expectations"], strict=True):
        entry.pop("id", None)
        entry["meta"] = {"quarantine": expectation.quarantine}
    plain = {key: value for key, value in plain.items() if key not in ("id", "notes")}
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"
