"""What a scenario asks of each column, and the check that the tables can be judged at all.

The kind of a column follows from the contract (keys, event, rating, timestamp) and from the scenario (features,
text template, labels). Columns that the scenario does not name pass through validation untouched.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

import polars as pl

from mtrec.config import Binary, Classification, MultiLabel, Regression, Scenario
from mtrec.data.contract import REQUIRED, Tables
from mtrec.data.parsing import is_nested, misfit, parse_flag, parse_number
from mtrec.errors import DataError

Kind = Literal["key", "text", "number", "flag", "list", "timestamp"]

CONTRACT_KINDS: dict[str, dict[str, Kind]] = {
    "users": {"user_id": "key"},
    "items": {"item_id": "key", "title": "text"},
    "interactions": {
        "user_id": "key",
        "item_id": "key",
        "event": "key",
        "rating": "number",
        "timestamp": "timestamp",
    },
}


def column_kinds(table: str, scenario: Scenario) -> dict[str, Kind]:
    """Kind of every column of a table that the contract or the scenario names.

    A column in several roles takes the most demanding one: a number in the text template stays a number.
    """
    kinds: dict[str, Kind] = dict(CONTRACT_KINDS[table])
    if table == "items":
        kinds.update((name, "text") for name in scenario.items.text_fields if name not in kinds)
    for task in scenario.tasks.values():
        if task.label_table != table:
            continue
        if isinstance(task, Regression) or (isinstance(task, Binary) and task.threshold is not None):
            kinds[task.label_column] = "number"
        elif isinstance(task, Binary):
            kinds[task.label_column] = "flag"
        elif isinstance(task, MultiLabel):
            kinds[task.label_column] = "list"
        elif isinstance(task, Classification):
            kinds.setdefault(task.label_column, "text")
    if table != "interactions":
        features = scenario.users if table == "users" else scenario.items
        kinds.update((name, "text") for name in features.categorical if name not in kinds)
        kinds.update((name, "number") for name in features.numeric)
        kinds.update((name, "list") for name in features.multi)
    return kinds


def needed_columns(table: str, scenario: Scenario) -> dict[str, str]:
    """Column → the place in the scenario that needs it, for every column that must be there."""
    needed = dict.fromkeys(REQUIRED[table], "the data contract")
    if table == "items":
        needed.update((name, "items.text") for name in scenario.items.text_fields if name not in needed)
    if table != "interactions":
        features = scenario.users if table == "users" else scenario.items
        for kind in ("numeric", "categorical", "multi"):
            needed.update((name, f"{table}.{kind}") for name in getattr(features, kind) if name not in needed)
    for name, task in scenario.tasks.items():
        if task.label_table == table:
            needed.setdefault(task.label_column, f"tasks.{name}.label")
    return needed


def check_structure(tables: Tables, scenario: Scenario, where: str) -> None:
    """Check that the tables can be judged row by row: columns, their shapes and kinds, and the number of rows.

    A column of users or items that the scenario takes for numbers, or for yes and no, is refused when most of its
    values are something else (`parsing.misfit`); single bad cells become missing later and are counted.

    Args:
        tables: contract tables as ingest wrote them.
        scenario: says which columns are needed and how many rows at least.
        where: folder or name of the tables, for the message.

    Raises:
        DataError: one line that lists every problem.
    """
    problems = []
    for field in fields(Tables):
        problems += _table_problems(field.name, getattr(tables, field.name), scenario)
    if not problems:
        problems = _size_problems(tables, scenario)
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}")


def _table_problems(table: str, frame: pl.DataFrame, scenario: Scenario) -> list[str]:
    problems = []
    needed = needed_columns(table, scenario)
    missing = {name: why for name, why in needed.items() if name not in frame.columns}
    if missing:
        names = ", ".join(f"'{name}' (needed by {why})" for name, why in missing.items())
        found = ", ".join(frame.columns[:20]) or "no columns"
        problems.append(
            f"{table}.parquet: column {names} is missing (found: {found}). "
            f"Map it in scenario '{scenario.name}' under source.{table}.columns, or remove what needs it"
        )
    for name, kind in column_kinds(table, scenario).items():
        if name not in frame.columns:
            continue
        dtype = frame.schema[name]
        if kind == "list" and not isinstance(dtype, (pl.List, pl.Array, pl.Null)):
            problems.append(
                f"{table}.parquet: column '{name}' holds {dtype}, not lists of values. Give its separator in "
                f"scenario '{scenario.name}' under source.{table}.lists, e.g. {{{name}: '|'}}"
            )
        elif kind == "list" and isinstance(dtype, (pl.List, pl.Array)) and is_nested(dtype.inner):
            problems.append(f"{table}.parquet: column '{name}' holds {dtype}; its lists must hold single values")
        elif kind != "list" and is_nested(dtype) and not (kind == "text" and name in scenario.items.text_fields):
            problems.append(
                f"{table}.parquet: column '{name}' holds {dtype}, where one {_WANTED[kind]} per row is needed"
            )
        elif table != "interactions" and kind in ("number", "flag"):
            wrong = misfit(frame[name], (parse_number if kind == "number" else parse_flag)(frame[name]))
            if wrong:
                named = name in (scenario.users if table == "users" else scenario.items).numeric
                problems.append(
                    f"{table}.parquet: column '{name}' ({f'{table}.numeric' if named else needed[name]}): {wrong}. "
                    f"Map the right column in scenario '{scenario.name}' under source.{table}.columns"
                    + (f", or name it under {table}.categorical" if named else ", or take the task out")
                )
    return problems


_WANTED = {"key": "id", "text": "text", "number": "number", "flag": "yes or no", "timestamp": "timestamp"}


def _size_problems(tables: Tables, scenario: Scenario) -> list[str]:
    problems = []
    for table, num_rows in count_rows(tables).items():
        least = least_rows(table, scenario)
        if num_rows == 0:
            problems.append(f"{table}.parquet: the table is empty")
        elif num_rows < least:
            problems.append(
                f"{table}.parquet: {num_rows} rows, fewer than {least} (validation.min_rows.{table}). "
                "Give more data, or lower the bound"
            )
    return problems


def count_rows(tables: Tables) -> dict[str, int]:
    """Rows per table; where the users table is empty, the distinct users of the interactions count."""
    rows = tables.num_rows
    if rows["users"] == 0 and "user_id" in tables.interactions.columns:
        rows["users"] = tables.interactions["user_id"].drop_nulls().n_unique()
    return rows


def least_rows(table: str, scenario: Scenario) -> int:
    """The fewest rows that a table may have."""
    return max(1, {str(name): rows for name, rows in scenario.validation.min_rows.items()}.get(table, 1))
