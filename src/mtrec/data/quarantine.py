"""The rules that every scenario shares: what a row must satisfy to be learned from, and where it goes if not.

Nothing is lost. A row that breaks a rule moves to quarantine with its original values, its row number and all its
reasons; `Ledger.split` checks that good and quarantined rows add up to the input. The decisions:

- Keys (user_id, item_id, event), the timestamp, the rating and label columns of interactions: a cell that is
  missing (rating and labels may be) or cannot be read sends the row to quarantine.
- Numbers and yes/no columns of users and items are optional: a bad cell becomes missing, the row stays, and a copy
  of the row as it was goes to `<table>_cells.parquet` with the reason. It counts as repaired. A column of which
  most cells are bad never comes this far: `schema.check_structure` refuses it.
- Of rows with the same key the first without another fault stays.
- An interaction dangles when its item is not among the good items, or its user is not among the good users.
  With an empty users table no user dangles: many sources know users by their id only.
- Interactions that repeat user, item, event and time are no fault; preprocessing keeps the last of them. They are
  counted here (`count_repeats`).
- A field beyond 100,000 characters condemns its row: it is the mark of a broken quote that swallowed other rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from mtrec.config import Scenario
from mtrec.data import parsing
from mtrec.data.contract import KEYS
from mtrec.data.parsing import Parsed
from mtrec.data.schema import Kind, column_kinds
from mtrec.errors import RunError

MAX_CHARACTERS = 100_000
"""Longest text that a cell may hold."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One table after validation."""

    good: pl.DataFrame
    """Typed rows that passed."""
    quarantined: pl.DataFrame
    """Original rows that did not, with `row` (position in the input, from 0) and `reason`."""
    cells: pl.DataFrame
    """Original rows of which a cell was set to missing, with `row` and `reason`; the row itself is in `good`."""
    reasons: dict[str, int]
    """Reason → quarantined rows that show it, most frequent first; a row can have several."""
    repairs: dict[str, int]
    """Reason → cells set to missing."""


@dataclass
class Ledger:
    """One table on its way through validation: as it came, typed, and what was found wrong so far."""

    name: str
    original: pl.DataFrame
    typed: pl.DataFrame
    faults: dict[str, pl.Series] = field(default_factory=dict)
    """Reason → Boolean mask over the input's rows. Kept only where a row shows the fault."""
    repairs: dict[str, pl.Series] = field(default_factory=dict)

    def add_fault(self, reason: str, rows: pl.Series) -> None:
        """Note that rows (Boolean mask over the input) go to quarantine."""
        _add(self.faults, reason, rows)

    def add_fault_at(self, reason: str, positions: list[int]) -> None:
        """Note that the rows at these positions go to quarantine."""
        rows = pl.repeat(False, self.original.height, dtype=pl.Boolean, eager=True)
        if positions:
            self.add_fault(reason, rows.scatter(positions, True))

    @property
    def bad(self) -> pl.Series:
        """Rows that go to quarantine (Boolean mask over the input)."""
        bad = pl.repeat(False, self.original.height, dtype=pl.Boolean, eager=True)
        for rows in self.faults.values():
            bad = bad | rows
        return bad

    @property
    def good(self) -> pl.DataFrame:
        """Typed rows without a fault so far."""
        return self.typed.filter(~self.bad)

    @property
    def good_positions(self) -> pl.Series:
        """Positions in the input of the rows in `good`."""
        return (~self.bad).arg_true()

    def split(self) -> Checked:
        """Divide the table into good and quarantined rows.

        Raises:
            RunError: the two do not add up to the input, which would be a defect of mtrec.
        """
        checked = Checked(
            good=self.good,
            quarantined=_with_reasons(self.original, self.faults),
            cells=_with_reasons(self.original, {r: m & ~self.bad for r, m in self.repairs.items()}),
            reasons=_counts(self.faults),
            repairs=_counts(self.repairs),
        )
        if checked.good.height + checked.quarantined.height != self.original.height:
            raise RunError(
                f"{self.name}: {checked.good.height} good and {checked.quarantined.height} quarantined rows do not "
                f"add up to {self.original.height}; this is a defect of mtrec, please report it"
            )
        return checked


def read_table(name: str, frame: pl.DataFrame, scenario: Scenario, now: datetime) -> Ledger:
    """Type one table and apply the rules that look at single rows and at duplicate keys.

    Args:
        name: users, items or interactions.
        frame: the table as ingest wrote it; its structure has been checked.
        scenario: says what each column is.
        now: the moment against which future timestamps are judged; has a time zone.
    """
    ledger = Ledger(name=name, original=frame, typed=frame)
    kinds = column_kinds(name, scenario)
    for column in frame.iter_columns():
        ledger.add_fault(
            f"{column.name} is longer than {MAX_CHARACTERS} characters", parsing.find_long(column, MAX_CHARACTERS)
        )
        if column.name in kinds:
            kind = kinds[column.name]
            parsed = _parse(column, kind, now, keep_integers=name != "interactions")
            ledger.typed = ledger.typed.with_columns(parsed.values.alias(column.name))
            repairable = name != "interactions" and kind in ("number", "flag")
            for reason, rows in parsed.faults.items():
                _add(ledger.repairs if repairable else ledger.faults, reason, rows)
    if name == "interactions":
        _check_values(ledger, scenario)
    for key in KEYS[name]:
        _check_duplicates(ledger, key)
    return ledger


def check_dangling(interactions: Ledger, users: Ledger, items: Ledger) -> None:
    """Note interactions whose item or user is not among the good ones. Call it last, once both are final."""
    known = [(items, "item_id")] if users.original.height == 0 else [(items, "item_id"), (users, "user_id")]
    for table, key in known:
        column = interactions.typed[key]
        lost = column.is_not_null() & ~column.is_in(table.good[key].unique().implode())
        ever = column.is_in(table.typed[key].drop_nulls().unique().implode())
        interactions.add_fault(f"dangling {key}", (lost & ~ever).fill_null(False))
        interactions.add_fault(f"dangling {key} ({table.name} row in quarantine)", (lost & ever).fill_null(False))


def count_repeats(interactions: pl.DataFrame) -> int:
    """Interactions that repeat user, item, event and timestamp of an earlier one."""
    return interactions.height - interactions.select("user_id", "item_id", "event", "timestamp").n_unique()


def find_garbled(frame: pl.DataFrame) -> dict[str, int]:
    """Text columns → cells that show a wrong encoding: the replacement character, or UTF-8 read as Latin-1."""
    marks = "\ufffd|Ã[\u0080-\u00bf]|â€|Â[\u0080-\u00bf]"
    counts = frame.select(pl.col(pl.String).str.contains(marks).sum()).to_dicts()
    return {name: count for name, count in (counts[0] if counts else {}).items() if count}


def _parse(column: pl.Series, kind: Kind, now: datetime, *, keep_integers: bool) -> Parsed:
    if kind == "key":
        return parsing.parse_key(column)
    if kind == "number":
        return parsing.parse_number(column, keep_integers=keep_integers)
    if kind == "flag":
        return parsing.parse_flag(column)
    if kind == "timestamp":
        return parsing.parse_timestamp(column, now)
    if kind == "list":
        return parsing.parse_list(column)
    return Parsed(column) if parsing.is_nested(column.dtype) else parsing.parse_text(column)


def _check_values(ledger: Ledger, scenario: Scenario) -> None:
    event = ledger.typed["event"]
    if scenario.events:
        ledger.add_fault(
            f"event is not one of {', '.join(scenario.events)}",
            (event.is_not_null() & ~event.is_in(scenario.events)).fill_null(False),
        )
    if scenario.rating_range and "rating" in ledger.typed.columns:
        low, high = scenario.rating_range
        rating = ledger.typed["rating"]
        ledger.add_fault(f"rating is outside {low:g} to {high:g}", ~rating.is_between(low, high).fill_null(True))


def _check_duplicates(ledger: Ledger, key: str) -> None:
    """Of rows with one key, the first without another fault stays."""
    rows = pl.DataFrame({"key": ledger.typed[key], "bad": ledger.bad}).with_row_index("row")
    rows = rows.filter(pl.col("key").is_not_null()).sort("bad", "row")
    again = rows.filter(~pl.col("key").is_first_distinct())["row"]
    ledger.add_fault_at(f"duplicate {key}", again.to_list())


def _add(notes: dict[str, pl.Series], reason: str, rows: pl.Series) -> None:
    if rows.any():
        notes[reason] = notes[reason] | rows if reason in notes else rows


def _counts(notes: dict[str, pl.Series]) -> dict[str, int]:
    counts = {reason: int(rows.sum()) for reason, rows in notes.items()}
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def _with_reasons(frame: pl.DataFrame, notes: dict[str, pl.Series]) -> pl.DataFrame:
    """Rows with at least one note, with their row number and all reasons, joined by semi-colons."""
    row, reason = _free_name(frame, "row"), _free_name(frame, "reason")
    marked = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for rows in notes.values():
        marked = marked | rows
    texts = [pl.when(rows.filter(marked)).then(pl.lit(why)) for why, rows in notes.items()]
    picked = frame.filter(marked)
    joined = pl.concat_str(texts, separator="; ", ignore_nulls=True) if texts else pl.lit("", dtype=pl.String)
    return picked.with_columns(marked.arg_true().alias(row), joined.alias(reason))


def _free_name(frame: pl.DataFrame, name: str) -> str:
    while name in frame.columns:
        name += "_"
    return name
