"""Validate: contract tables as ingested → typed good rows, a quarantine, Data Docs and a summary.

Three steps. The structure (columns, empty tables) is checked first; if it is broken, nothing is written. Then
the shared rules of `mtrec.data.quarantine` and the scenario's expectations move bad rows to quarantine: users and
items first, then interactions, because a quarantined item leaves its interactions dangling. Then the expectations
are judged on what is left. When the data does not pass, quarantine, Data Docs and summary are still written, so
that one can look, and the validated tables are not.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.contract import Tables, replacing_file, replacing_folder
from mtrec.data.data_docs import write_data_docs
from mtrec.data.expectations import Judge, Judgement
from mtrec.data.quarantine import Checked, Ledger, check_dangling, count_repeats, find_garbled, read_table
from mtrec.data.schema import check_structure, count_rows, least_rows
from mtrec.errors import ConfigError, DataError
from mtrec.progress import report


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    tables: Path
    """Contract tables as ingest wrote them."""
    now: str | None = None
    """ISO time against which future timestamps are judged; the clock when not given."""
    source: str | None = None
    """What people call the data, for the messages; the tables' path when not given."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    validated: Path
    """Contract tables: typed, good rows only."""
    quarantine: Path
    """Folder: per table the bad rows as they came, with row number and reasons (`<table>.parquet`), and the
    rows of which a cell was set to missing (`<table>_cells.parquet`, only where there are any)."""
    data_docs: Path
    """Folder with index.html; the suites lie in it as JSON."""
    summary: Path
    """JSON file."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Validate the tables.

    Returns:
        The summary: `success`, per table `input`, `good`, `quarantined`, `reasons`, `repaired`, `repairs`; the
        `expectations` with their outcome; `warnings` and `failures` as lines.

    Raises:
        ConfigError: the scenario declares an expectation that does not exist or has wrong arguments.
        DataError: the structure is broken, a critical expectation fails, or too much is quarantined. Validated
            tables of an earlier run are removed then, so that they are not taken for these.
    """
    try:
        return _run(inputs, outputs, scenario)
    except DataError:
        shutil.rmtree(outputs.validated, ignore_errors=True)
        raise


def _run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    now = _read_now(inputs.now)
    report("validate", 0.0, "reading the tables")
    tables = Tables.read(inputs.tables)
    check_structure(tables, scenario, where=inputs.source or str(inputs.tables))
    report("validate", 0.1, "starting Great Expectations")
    judge = Judge(scenario)
    ledgers: dict[str, Ledger] = {}
    judgements: list[Judgement] = []
    for share, name in ((0.4, "users"), (0.5, "items"), (0.6, "interactions")):
        report("validate", share, f"judging {name}")
        ledgers[name] = read_table(name, getattr(tables, name), scenario, now)
        if name == "interactions":
            check_dangling(ledgers[name], users=ledgers["users"], items=ledgers["items"])
        judgements += _judge_and_quarantine(judge, ledgers[name])
    checked = {name: ledger.split() for name, ledger in ledgers.items()}
    report("validate", 0.8, "writing quarantine and Data Docs")
    summary = _summarise(scenario, checked, judgements, now)
    _write_quarantine(outputs.quarantine, checked)
    write_data_docs(outputs.data_docs, judge, judgements, scenario.name, summary)
    with replacing_file(outputs.summary) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if not summary["success"]:
        raise DataError(_refusal(inputs, outputs, summary))
    Tables(**{name: table.good for name, table in checked.items()}).write(outputs.validated)
    return summary


def _read_now(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"validate: now '{text}' is not an ISO time, e.g. 2026-01-31T12:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _judge_and_quarantine(judge: Judge, ledger: Ledger) -> list[Judgement]:
    """Judge the good rows; where expectations quarantine rows, judge again what is left."""
    if ledger.name not in judge.tables or ledger.good.height == 0:
        return []
    first = judge.judge(ledger.name, ledger.good, ledger.good_positions)
    moved = False
    for outcome in first.outcomes:
        if outcome.quarantine and outcome.rows:
            ledger.add_fault_at(outcome.expectation, list(outcome.rows))
            moved = True
    if not moved or ledger.good.height == 0:
        return [first]
    return [first, judge.judge(ledger.name, ledger.good, ledger.good_positions, "after quarantine")]


def _summarise(
    scenario: Scenario, checked: dict[str, Checked], judgements: list[Judgement], now: datetime
) -> dict[str, Any]:
    last = {judgement.table: judgement for judgement in judgements}
    outcomes = [outcome for judgement in last.values() for outcome in judgement.outcomes]
    counts = {
        name: {
            "input": table.good.height + table.quarantined.height,
            "good": table.good.height,
            "quarantined": table.quarantined.height,
            "reasons": table.reasons,
            "repaired": sum(table.repairs.values()),
            "repairs": table.repairs,
        }
        for name, table in checked.items()
    }
    expectations = []
    for outcome in outcomes:
        moved = checked[outcome.table].reasons.get(outcome.expectation, 0)
        expectations.append(outcome.as_dict() | ({"quarantined": moved} if moved else {}))
    broken = [outcome for outcome in outcomes if not outcome.success]
    failures = _failures(scenario, checked) + [o.sentence for o in broken if o.severity == "critical"]
    return {
        "success": not failures,
        "judged_at": f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "tables": counts,
        "expectations": expectations,
        "warnings": [o.sentence for o in broken if o.severity == "warning"] + _warnings(checked),
        "failures": failures,
    }


def _failures(scenario: Scenario, checked: dict[str, Checked]) -> list[str]:
    lines = []
    limit = scenario.validation.max_quarantined
    left = count_rows(Tables(**{name: table.good for name, table in checked.items()}))
    for name, table in checked.items():
        total = table.good.height + table.quarantined.height
        share = table.quarantined.height / total if total else 0.0
        if share > limit:
            lines.append(
                f"{name}: {table.quarantined.height} of {total} rows ({share:.1%}) went to quarantine, more than "
                f"validation.max_quarantined allows ({limit:.1%})"
            )
        elif left[name] < least_rows(name, scenario):
            lines.append(
                f"{name}: {left[name]} good rows are left, fewer than {least_rows(name, scenario)} "
                f"(validation.min_rows.{name})"
            )
    return lines


def _warnings(checked: dict[str, Checked]) -> list[str]:
    lines = []
    for name, table in checked.items():
        if table.quarantined.height:
            lines.append(f"{name}: {table.quarantined.height} rows in quarantine ({_reasons(table.reasons)})")
        lines += [f"{name}: {reason}: {count} cells set to missing" for reason, count in table.repairs.items()]
        for column, count in find_garbled(table.good).items():
            lines.append(f"{name}: {count} cells of '{column}' look as if read with a wrong encoding")
    repeats = count_repeats(checked["interactions"].good)
    if repeats:
        lines.append(
            f"interactions: {repeats} rows repeat user, item, event and time; preprocessing keeps the last of each"
        )
    users = checked["users"]
    if users.good.height + users.quarantined.height == 0:
        lines.append("users: the table is empty; users are known by the ids in interactions only")
    return lines


def _reasons(reasons: dict[str, int], most: int = 3) -> str:
    shown = [f"{reason}: {count}" for reason, count in list(reasons.items())[:most]]
    return "; ".join(shown) + (f"; and {len(reasons) - most} more" if len(reasons) > most else "")


def _refusal(inputs: Inputs, outputs: Outputs, summary: dict[str, Any]) -> str:
    totals: Counter[str] = Counter()
    for name, counts in summary["tables"].items():
        totals.update({f"{name}: {reason}": count for reason, count in counts["reasons"].items()})
    reasons = "; ".join(f"{reason} ({count})" for reason, count in totals.most_common(3))
    frequent = f" Most frequent reasons: {reasons}." if reasons else ""
    return (
        f"{inputs.source or inputs.tables}: the data did not pass. {'; '.join(summary['failures'])}.{frequent} "
        f"Look at {outputs.data_docs / 'index.html'} and the rows in {outputs.quarantine}"
    )


def _write_quarantine(folder: Path, checked: dict[str, Checked]) -> None:
    with replacing_folder(folder) as temporary:
        for name, table in checked.items():
            table.quarantined.write_parquet(temporary / f"{name}.parquet")
            if table.cells.height:
                table.cells.write_parquet(temporary / f"{name}_cells.parquet")
