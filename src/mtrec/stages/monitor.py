"""Monitor: a data drop beside the champion → what came in, how far it has moved, and the data to retrain on.

The drop is joined with the champion's data version and validated like any data, the new interactions once more by
themselves, so that a poisoned drop cannot hide in a large past. What fails is a reason to skip, never to train.
Then the windows since the champion's last interaction are compared with those before it. What follows from it is
decided by `mtrec.stages.decide`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from mtrec.config import Scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables, replacing_file
from mtrec.data.drops import Merged, known_tables, merge_drops
from mtrec.data.forgotten import Forgotten, read_forgotten
from mtrec.data.versioning import directory_hash, repository
from mtrec.drift.evidently_report import write_evidently
from mtrec.drift.statistics import Timeline, columns_of, windows_of
from mtrec.drift.windows import Window
from mtrec.errors import ConfigError, DataError, ModelError
from mtrec.models.store import load_model
from mtrec.progress import report
from mtrec.stages import validate
from mtrec.stages.champion_answers import ask
from mtrec.tracking import NO_CHAMPION, Champion, download_champion


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    drop: Path
    """A data drop, or a folder of drops; see `mtrec.data.drops`."""
    tracking_uri: str | None = None
    """MLflow with the champion."""
    dvc_root: Path | None = None
    """DVC repository with the champion's data version; by default the one around the working directory."""
    now: str | None = None
    """ISO time that counts as the present; the clock when not given."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    observed: Path
    """JSON file: the champion, the data, what is wrong with it, and the windows with their statistics."""
    tables: Path
    """Contract tables to retrain on; not written when the data does not pass."""
    validation: Path
    """Folder: what `validate` writes, of everything (`all`) and of the new interactions alone (`new`)."""
    evidently: Path | None = None
    """Evidently's page about the newest window; left out where Evidently is not installed or there is none."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Compare a drop with what the champion knows.

    Returns:
        What is written: `scenario`, `now`, `now_given`, `champion`, `data` and `windows`.

    Raises:
        ModelError: there is no champion yet.
        DataError: the champion's data version cannot be fetched, or the list of forgotten users cannot be read.
        ConfigError: wrong mappings, or `now` is no time.
        RunError: MLflow or the DVC remote cannot be used.
    """
    now = _present(inputs.now)
    report("monitor", 0.0, "fetching the champion")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        champion = download_champion(scenario.name, work / "champion", inputs.tracking_uri)
        if champion is None:
            raise ModelError(NO_CHAMPION.format(scenario.name))
        until = last_known(champion)
        report("monitor", 0.1, "fetching its data")
        root = inputs.dvc_root or repository()
        known = known_tables(champion.data_version, root)
        forgotten = read_forgotten(root, scenario.name)
        report("monitor", 0.2, "joining the drop")
        shutil.rmtree(outputs.tables, ignore_errors=True)
        if outputs.evidently is not None:  # nobody takes the last look's page for this one's
            outputs.evidently.unlink(missing_ok=True)
        merged, problems = _joined(inputs, outputs, scenario, known, forgotten, now, work)
        windows: list[Window] = []
        new_rows = 0
        version = None
        if merged is not None:
            version = directory_hash(outputs.tables)
            report("monitor", 0.5, "comparing windows")
            tables, _ = clean(Tables.read(work / "validated"))
            before = Tables.read(champion.folder / "memory")
            timeline = Timeline.of(tables, until, scenario.retraining, now, before)
            said = ask(load_model(champion.folder), tables, timeline, scenario.retraining)
            columns = columns_of(timeline, scenario) | said.columns
            windows = windows_of(timeline, columns, said.qualities, scenario.retraining)
            if outputs.evidently is not None:
                report("monitor", 0.95, "Evidently draws its page")
                write_evidently(outputs.evidently, timeline, columns, scenario.retraining)
            new_rows = int((timeline.slice_R >= 0).sum())
    told = {
        "scenario": scenario.name,
        "now": now.isoformat(),
        "now_given": inputs.now is not None,
        "champion": {
            "name": champion.name,
            "version": champion.version,
            "data_version": champion.data_version,
            "until": until.isoformat(),
        },
        "data": {
            "drop": str(inputs.drop),
            "version": version,
            "new_rows": new_rows,
            "changed": merged.changed if merged else None,
            "problems": problems,
        },
        "windows": [window.as_dict() for window in windows],
    }
    with replacing_file(outputs.observed) as temporary:
        temporary.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report("monitor", 1.0, f"{new_rows:,} new interactions in {len(windows)} windows")
    return told


def last_known(champion: Champion) -> datetime:
    """Time of the last interaction that a champion knows.

    Raises:
        ModelError: its memory is missing or damaged.
    """
    path = champion.folder / "memory" / "interactions.parquet"
    try:
        last = pl.read_parquet(path, columns=["timestamp"])["timestamp"].max()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ModelError(f"champion {champion.name} version {champion.version}: no readable memory") from error
    assert isinstance(last, datetime)
    return last


def _present(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"now '{text}' is not an ISO time, e.g. 2026-01-31T12:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _joined(
    inputs: Inputs,
    outputs: Outputs,
    scenario: Scenario,
    known: Tables,
    forgotten: Forgotten,
    now: datetime,
    work: Path,
) -> tuple[Merged | None, list[str]]:
    """The tables with the drop, written raw and, in `work`, validated; or what is wrong with them."""
    try:
        merged = merge_drops(known, scenario, inputs.drop, forgotten)
    except DataError as error:
        return None, [str(error)]
    parts = {"all": (merged.tables, scenario)}
    if merged.fresh.height:
        loose = scenario.validation.model_copy(update={"min_rows": {}})  # a drop may be small
        alone = replace(merged.tables, interactions=merged.fresh)
        parts["new"] = alone, scenario.model_copy(update={"validation": loose})
    problems = []
    for share, (name, (tables, asked)) in zip((0.25, 0.4), parts.items(), strict=False):
        report("monitor", share, f"validating {name} interactions")
        tables.write(work / name)
        folder = outputs.validation / name
        try:
            validate.run(
                validate.Inputs(tables=work / name, now=now.isoformat(), source=str(inputs.drop)),
                validate.Outputs(
                    validated=work / ("validated" if name == "all" else "validated_new"),
                    quarantine=folder / "quarantine",
                    data_docs=folder / "data_docs",
                    summary=folder / "validation.json",
                ),
                asked,
            )
        except DataError as error:
            problems.append(str(error))
    if problems:
        return None, problems
    merged.tables.write(outputs.tables)
    return merged, []
