"""Run a scenario's expectations with Great Expectations, one suite per table.

Great Expectations works on pandas; only the columns that the expectations name are converted. The row numbers of
the input are the frame's index, so that a broken expectation names rows, and a table's shape stays what it is
(an index column of our own would be counted by expectations about columns). A list reaches Great Expectations as
one text, its values joined by `|`, and an empty list as missing: it knows no lists and would measure their `str`.

Great Expectations takes seconds to import and is therefore imported inside the functions.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mtrec.config import Expectation, Scenario
from mtrec.data.contract import REQUIRED
from mtrec.data.parsing import is_nested
from mtrec.data.suites import (
    POSITION,
    build_suite,
    columns_for,
    columns_of,
    find_problem,
    make_labels,
    suite_as_json,
)
from mtrec.errors import ConfigError

_SHOWN = 20
"""Unexpected rows that a Data Docs page lists per expectation."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One expectation after it was judged."""

    table: str
    expectation: str
    """Name and column: expect_column_values_to_not_be_null(title)."""
    severity: str
    quarantine: bool
    success: bool
    unexpected: int
    """Rows that break it; 0 for expectations about a whole column or table."""
    of: int
    """Rows that were judged."""
    observed: Any = None
    """What an expectation about a whole column or table saw."""
    why: str = ""
    """Why it could not be judged: a missing column, or values that cannot be compared."""
    rows: tuple[int, ...] = field(default=(), repr=False)
    """Row numbers of all rows that break it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the rows."""
        names = ("table", "expectation", "severity", "success", "unexpected", "of", "observed", "why")
        plain = {name: getattr(self, name) for name in names}
        return {name: value for name, value in plain.items() if value not in (None, "")}

    @property
    def sentence(self) -> str:
        """What is wrong, for a summary line."""
        if self.why:
            return f"{self.table}: {self.expectation}: {self.why}"
        if self.unexpected:
            share = self.unexpected / max(self.of, 1)
            return (
                f"{self.table}: {self.expectation} is broken by {self.unexpected} of {self.of} rows ({share:.1%})"
            )
        return f"{self.table}: {self.expectation} is broken (observed: {self.observed})"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One table judged once: the outcomes and Great Expectations' page about them."""

    table: str
    state: str
    """`first pass`, on the rows that the shared rules left; or `after quarantine`."""
    num_rows: int
    outcomes: list[Outcome]
    page: str
    """HTML as Great Expectations renders it; `mtrec.data.data_docs` makes it self-contained."""

    @property
    def success(self) -> bool:
        """Whether every expectation, of any severity, held."""
        return all(outcome.success for outcome in self.outcomes)


class Judge:
    """Judges tables by a scenario's expectations, in a Great Expectations context that lives in memory.

    Raises:
        ConfigError: an expectation is unknown (close names are listed), its arguments are wrong, or it is to
            quarantine rows and is not about rows. One message lists all of them.
    """

    def __init__(self, scenario: Scenario) -> None:
        from great_expectations import get_context
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        problems = []
        for position, expectation in enumerate(scenario.validation.expectations):
            if problem := find_problem(expectation):
                problems.append(f"validation.expectations.{position}: {problem}")
        if problems:
            raise ConfigError(f"scenario '{scenario.name}': {'; '.join(problems)}")
        self._declared = {
            table: [one for one in scenario.validation.expectations if one.table == table] for table in REQUIRED
        }
        self._context = get_context(
            mode="ephemeral",
            project_config=DataContextConfig(
                store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
                analytics_enabled=False,
                progress_bars=ProgressBarsConfig(globally=False),
            ),
        )
        self._source = self._context.data_sources.add_pandas("mtrec")

    @property
    def tables(self) -> list[str]:
        """Tables that have expectations."""
        return [table for table, expectations in self._declared.items() if expectations]

    def judge(
        self, table: str, frame: pl.DataFrame, row_numbers: pl.Series, state: str = "first pass"
    ) -> Judgement:
        """Judge one table.

        Args:
            table: users, items or interactions.
            frame: R typed rows.
            row_numbers: (R,) positions of these rows in the input; `Outcome.rows` and the page name them.
            state: says on the page what was judged; a table can be judged once per state.
        """
        import pandas as pd
        from great_expectations.render.renderer import ValidationResultsPageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

        expectations = self._declared[table]
        labels = make_labels(expectations)
        data = _without_lists(frame.select(columns_for(expectations, frame))).to_pandas()
        data.index = pd.Index(row_numbers.to_numpy())  # unnamed: a named index comes back as dicts
        asset = self._source.add_dataframe_asset(f"{table} {state}")
        batch = asset.add_batch_definition_whole_dataframe("all rows").get_batch({"dataframe": data})
        outcomes: list[Outcome | None] = [None] * len(expectations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result: Any = batch.validate(
                build_suite(table, expectations, frame), result_format={"result_format": "COMPLETE"}
            )
            for one in result.results:
                position = one.expectation_config.meta[POSITION]
                outcomes[position] = _outcome(expectations[position], labels[position], one, frame)
                _shorten(one)
            result.meta = {
                "great_expectations_version": result.meta["great_expectations_version"],
                "batch_kwargs": {"data_asset_name": f"{table}, {state}"},
                "run_id": {"run_name": state, "run_time": datetime.now(UTC).isoformat()},
            }
            page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(result))
        judged = [outcome for outcome in outcomes if outcome is not None]
        return Judgement(table=table, state=state, num_rows=frame.height, outcomes=judged, page=page)

    def suite_page(self, table: str) -> str:
        """Great Expectations' page about a table's suite, as HTML."""
        from great_expectations.render.renderer import ExpectationSuitePageRenderer
        from great_expectations.render.view import DefaultJinjaPageView

        suite = build_suite(table, self._declared[table])
        return str(DefaultJinjaPageView().render(ExpectationSuitePageRenderer().render(suite)))

    def suite_json(self, table: str) -> str:
        """A table's suite as Great Expectations' JSON, for review."""
        return suite_as_json(table, self._declared[table])


def _without_lists(frame: pl.DataFrame) -> pl.DataFrame:
    joined = [
        pl.when(pl.col(name).list.len() > 0).then(pl.col(name).cast(pl.List(pl.String)).list.join("|")).alias(name)
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.List) and not is_nested(dtype.inner)
    ]
    return frame.with_columns(joined)


def _outcome(expectation: Expectation, label: str, result: Any, frame: pl.DataFrame) -> Outcome:
    missing = [name for name in columns_of(expectation) if name not in frame.columns]
    why = ""
    if missing:
        why = f"column '{missing[0]}' is missing (found: {', '.join(frame.columns)})"
    elif message := _exception_message(result.exception_info):
        why = f"cannot be judged ({message})"
    rows = tuple(int(row) for row in result.result.get("unexpected_index_list") or ())
    observed = result.result.get("observed_value")
    return Outcome(
        table=expectation.table,
        expectation=label,
        severity=expectation.severity,
        quarantine=expectation.quarantine,
        success=bool(result.success) and not why,
        unexpected=int(result.result.get("unexpected_count") or 0),
        of=int(result.result.get("element_count") or frame.height),
        observed=observed
        if observed is None
        else json.loads(json.dumps(_plain(observed), default=str), parse_constant=str),
        why=why,
        rows=rows,
    )


def _plain(value: Any) -> Any:
    """NumPy numbers, at any depth, as Python's: Great Expectations cannot render the others."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _exception_message(info: dict[str, Any]) -> str:
    """The message of an exception inside a result: flat, or nested under the metric that raised it."""
    if "raised_exception" in info:
        entries = [info]
    else:
        entries = [entry for entry in info.values() if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("raised_exception"):
            return " ".join(str(entry.get("exception_message")).split()) or "no message"
    return ""


def _shorten(result: Any) -> None:
    """Keep the page small: the full list of broken rows is in quarantine."""
    shown = {key: value for key, value in result.result.items() if key != "unexpected_index_query"}
    for name in ("unexpected_index_list", "unexpected_list"):
        if isinstance(shown.get(name), list):
            shown[name] = shown[name][:_SHOWN]
    result.result = _plain(shown)
