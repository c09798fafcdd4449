"""Ingest: raw data of any known source → the three contract tables, named by DVC's hash of their bytes.

Values pass through as the source has them; validation judges them. Rows keep the order of the source. Users
whom the scenario forgot (`mtrec data forget`) are left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from mtrec.config import Scenario
from mtrec.data.contract import Tables, replacing_file
from mtrec.data.drops import known_tables
from mtrec.data.forgotten import read_forgotten
from mtrec.data.parsing import parse_timestamp
from mtrec.data.sources import read_source, recognise_source
from mtrec.progress import report

VERSION = "dvc:"
"""What comes before a data version that is given in place of a folder."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    data: str | None
    """Folder of raw data, or `dvc:` and a data version in the remote of `dvc_root`; None for simulated data."""
    dvc_root: Path | None
    """DVC repository whose remote receives the tables; None only hashes them, but for a data version, which comes
    from the repository around the working directory then, and goes back there."""
    forgotten: Path | None = None
    """DVC repository with the list of forgotten users; by default `dvc_root`."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    tables: Path
    """Contract tables."""
    summary: Path
    """JSON file."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Read the source and write the tables.

    Returns:
        The summary: `source` (what the input was recognised as), `num_users`, `num_items`,
        `num_interactions`, `events` (rows per event), `columns` (type per column and table), `first` and
        `last` (readable interaction times in ISO form, or null), `data_version`.

    Raises:
        DataError: the input is missing, broken or not recognised, the DVC remote cannot be written, or the list of
            forgotten users cannot be read.
        ConfigError: wrong dials or column mappings.
    """
    from mtrec.data.versioning import directory_hash, push, repository

    given, root = str(inputs.data or ""), inputs.dvc_root
    if root is None and given.startswith(VERSION):
        root = repository()
    forgotten = read_forgotten(inputs.forgotten or root, scenario.name)
    source, tables = _read(given, root, scenario)
    tables = forgotten.leave_out(tables)
    report("ingest", 0.6, f"writing {tables.interactions.height:,} interactions")
    tables.write(outputs.tables)
    report("ingest", 0.8, "versioning the tables")
    version = push(outputs.tables, root) if root else directory_hash(outputs.tables)
    summary = {"source": source, **summarise(tables), "data_version": version}
    with replacing_file(outputs.summary) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    report("ingest", 1.0, f"{tables.interactions.height:,} interactions from {source}")
    return summary


def _read(given: str, root: Path | None, scenario: Scenario) -> tuple[str, Tables]:
    """What the input was recognised as, and its tables."""
    if given.startswith(VERSION):
        report("ingest", 0.0, f"fetching {given}")
        return given, known_tables(given.removeprefix(VERSION), root)
    data = Path(given) if given else None
    source = recognise_source(scenario, data)
    report("ingest", 0.0, f"reading {source}")
    return source, read_source(scenario, data)


def summarise(tables: Tables) -> dict[str, Any]:
    """Counts, columns and time range of contract tables, as plain JSON types."""
    interactions = tables.interactions
    events = interactions["event"].cast(pl.String).value_counts(sort=True, name="rows").head(20)
    times = parse_timestamp(interactions["timestamp"], datetime.now(UTC)).values
    first, last = times.min(), times.max()
    return {
        **{f"num_{name}": rows for name, rows in tables.num_rows.items()},
        "events": {str(event): rows for event, rows in events.iter_rows()},
        "columns": {
            name: {column: str(dtype) for column, dtype in getattr(tables, name).schema.items()}
            for name in tables.num_rows
        },
        "first": first.isoformat() if isinstance(first, datetime) else None,
        "last": last.isoformat() if isinstance(last, datetime) else None,
    }
