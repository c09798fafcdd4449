"""Dirty tables through the whole stage: each case gives its one-line error, or its quarantine with exact counts."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.contract import Tables
from mtrec.errors import ConfigError, DataError, InputError
from mtrec.stages import validate

Frames = dict[str, pl.DataFrame]

SHOP: dict[str, Any] = {
    "name": "shop",
    "users": {"numeric": ["age"], "categorical": ["region"]},
    "items": {"text": "{title}. {description}", "numeric": ["price"], "multi": ["tags"]},
    "events": ["view", "purchase", "rating"],
    "rating_range": [1, 5],
    "validation": {
        "max_quarantined": 0.5,
        "expectations": [
            {"table": "items", "type": "expect_column_values_to_not_be_null", "quarantine": True,
             "arguments": {"column": "title"}},
            {"table": "items", "type": "expect_column_values_to_be_between", "severity": "warning",
             "arguments": {"column": "price", "min_value": 0}},
            {"table": "users", "type": "expect_column_values_to_be_in_set",
             "arguments": {"column": "region", "value_set": ["north", "south"], "mostly": 0.7}},
        ],
    },
    "tasks": {
        "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
        "helpful": {"type": "binary", "on": "pair", "label": "interactions.helpful"},
        "tags": {"type": "multilabel", "on": "item", "label": "items.tags"},
        "category": {"type": "classification", "on": "item", "label": "items.category"},
    },
}  # fmt: skip


def shop_frames() -> Frames:
    """Eight users, ten items, eighty interactions, all good; u1 has ten interactions, i1 has eight."""
    users = [f"u{u}" for u in range(1, 9)]
    items = [f"i{i}" for i in range(1, 11)]
    pairs = [(user, item) for user in users for item in items]
    return {
        "users": pl.DataFrame({"user_id": users, "age": range(20, 28), "region": ["north", "south"] * 4}),
        "items": pl.DataFrame(
            {
                "item_id": items,
                "title": [f"Lamp {i}" for i in items],
                "description": ["Gives light."] * 10,
                "price": [float(i) for i in range(1, 11)],
                "tags": [["home", "light"]] * 10,
                "category": ["lamps"] * 10,
            }
        ),
        "interactions": pl.DataFrame(
            {
                "user_id": [user for user, _ in pairs],
                "item_id": [item for _, item in pairs],
                "event": ["rating", "view"] * 40,
                "rating": [4.0, None] * 40,
                "helpful": [True, None] * 40,
                "timestamp": [datetime(2026, 1, 1 + n // 10, n % 10, tzinfo=UTC) for n in range(80)],
            }
        ),
    }


# ------------------------------------------------------------------------------------------------- how to dirty


def put(table: str, column: str, *cells: Any, dtype: Any = pl.String) -> Callable[[Frames], None]:
    """Replace the first cells of a column, which becomes `dtype` (text, as a source delivers a dirty column)."""

    def change(frames: Frames) -> None:
        series = frames[table][column]
        rest = series.slice(len(cells))
        rest = rest.dt.epoch("s").cast(dtype) if series.dtype.is_temporal() else rest.cast(dtype)
        frames[table] = frames[table].with_columns(pl.Series(column, [*cells], dtype=dtype).append(rest))

    return change


def drop(table: str, *columns: str) -> Callable[[Frames], None]:
    return lambda frames: frames.update({table: frames[table].drop(columns)})


def replace(table: str, **columns: Any) -> Callable[[Frames], None]:
    return lambda frames: frames.update({table: frames[table].with_columns(**columns)})


def take(table: str, rows: int) -> Callable[[Frames], None]:
    return lambda frames: frames.update({table: frames[table].head(rows)})


def repeat(table: str, rows: int) -> Callable[[Frames], None]:
    return lambda frames: frames.update({table: frames[table].vstack(frames[table].head(rows))})


def both(*changes: Callable[[Frames], None]) -> Callable[[Frames], None]:
    def change(frames: Frames) -> None:
        for one in changes:
            one(frames)

    return change


# ------------------------------------------------------------------------------------------------- refused


@dataclass(frozen=True)
class Refused:
    change: Callable[[Frames], None]
    message: str
    looked: bool = False
    """Whether quarantine, Data Docs and summary are written although the data did not pass."""


REFUSED = {
    "items without title": Refused(
        drop("items", "title"), "items.parquet: column 'title' (needed by the data contract)"
    ),
    "items without id": Refused(drop("items", "item_id"), "items.parquet: column 'item_id'"),
    "users without id": Refused(drop("users", "user_id"), "users.parquet: column 'user_id'"),
    "interactions without time": Refused(
        drop("interactions", "timestamp"), "interactions.parquet: column 'timestamp'"
    ),
    "interactions without event": Refused(drop("interactions", "event"), "interactions.parquet: column 'event'"),
    "a text field is absent": Refused(drop("items", "description"), "column 'description' (needed by items.text)"),
    "a feature is absent": Refused(drop("users", "age"), "column 'age' (needed by users.numeric)"),
    "a label is absent": Refused(drop("items", "category"), "column 'category' (needed by tasks.category.label)"),
    "the rating label is absent": Refused(
        drop("interactions", "rating"), "'rating' (needed by tasks.rating.label)"
    ),
    "no items": Refused(take("items", 0), "items.parquet: the table is empty"),
    "no interactions": Refused(take("interactions", 0), "interactions.parquet: the table is empty"),
    "too few interactions": Refused(
        take("interactions", 19), "19 rows, fewer than 20 (validation.min_rows.interactions)"
    ),
    "one item": Refused(take("items", 1), "1 rows, fewer than 2 (validation.min_rows.items)"),
    "tags as text": Refused(
        replace("items", tags=pl.lit("a|b")), "column 'tags' holds String, not lists of values"
    ),
    "ids in lists": Refused(
        replace("interactions", item_id=pl.concat_list("item_id")),
        "holds List(String), where one id per row is needed",
    ),
    "ids as raw bytes": Refused(
        replace("users", user_id=pl.lit(b"\xff\xfe")),
        "column 'user_id' holds Binary, where one id per row is needed",
    ),
    "times as records": Refused(
        replace("interactions", timestamp=pl.struct("event")), "where one timestamp per row is needed"
    ),
    "all events foreign": Refused(
        replace("interactions", event=pl.lit("clicked")),
        "80 of 80 rows (100.0%) went to quarantine, more than validation.max_quarantined allows (50.0%)",
        looked=True,
    ),
    "all times zero": Refused(
        replace("interactions", timestamp=pl.lit(0)),
        "interactions: timestamp is before 1970-01-02 (80)",
        looked=True,
    ),
    "day-first dates": Refused(
        replace("interactions", timestamp=pl.lit("31/01/2026")), "timestamp is not readable (80)", looked=True
    ),
    "ids of another catalogue": Refused(
        replace("interactions", item_id=pl.lit("SKU-") + pl.col("item_id")), "dangling item_id (80)", looked=True
    ),
    "one item id for all": Refused(
        replace("items", item_id=pl.lit("i1")), "9 of 10 rows (90.0%) went to quarantine", looked=True
    ),
    "too few good rows are left": Refused(
        both(take("interactions", 24), put("interactions", "event", *["?"] * 5)),
        "19 good rows are left, fewer than 20",
        looked=True,
    ),
    "a critical expectation fails": Refused(
        put("users", "region", "west", "west", "east"),
        "users: expect_column_values_to_be_in_set(region) is broken by 3 of 8 rows (37.5%)",
        looked=True,
    ),
}

# ------------------------------------------------------------------------------------------------- quarantined


@dataclass(frozen=True)
class Kept:
    change: Callable[[Frames], None]
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    """table → reason → rows in quarantine."""
    rows: dict[str, int] | None = None
    """table → quarantined rows, where it is not the sum of the reasons."""
    repairs: dict[str, dict[str, int]] = field(default_factory=dict)
    warning: str = ""


SAME_DAY = (
    "2026-01-01",
    "2026-01-01T10:00:00Z",
    "1767261600",
    "1767261600000",
    "1767261600000000",
    "2026-01-01 10:00:00+02:00",
    "20260101",
)
HUGE = "x" * 100_001

KEPT = {
    "clean": Kept(both()),
    "missing user ids": Kept(
        put("interactions", "user_id", None, "", " "), {"interactions": {"missing user_id": 3}}
    ),
    "user ids written nan": Kept(
        put("interactions", "user_id", "nan", "NaN"), {"interactions": {"missing user_id": 2}}
    ),
    "missing item ids": Kept(put("interactions", "item_id", None), {"interactions": {"missing item_id": 1}}),
    "missing key in items": Kept(
        put("items", "item_id", None),
        {"items": {"missing item_id": 1}, "interactions": {"dangling item_id": 8}},
    ),
    "missing key in users": Kept(
        put("users", "user_id", " "),
        {"users": {"missing user_id": 1}, "interactions": {"dangling user_id": 10}},
    ),
    "NUL in an item id": Kept(
        put("items", "item_id", "i\x001"),
        {"items": {"control character in item_id": 1}, "interactions": {"dangling item_id": 8}},
    ),
    "NUL in both tables": Kept(
        both(put("items", "item_id", "i\x00"), put("interactions", "item_id", "i\x00")),
        {
            "items": {"control character in item_id": 1},
            "interactions": {
                "dangling item_id": 7,
                "control character in item_id": 1,
                "dangling item_id (items row in quarantine)": 1,
            },
        },
        rows={"interactions": 8},
    ),
    "duplicate items": Kept(repeat("items", 3), {"items": {"duplicate item_id": 3}}),
    "duplicate users": Kept(repeat("users", 2), {"users": {"duplicate user_id": 2}}),
    "repeated interactions": Kept(repeat("interactions", 5), warning="5 rows repeat user, item, event and time"),
    "unknown items": Kept(put("interactions", "item_id", "zz", "zy"), {"interactions": {"dangling item_id": 2}}),
    "unknown users": Kept(put("interactions", "user_id", "nobody"), {"interactions": {"dangling user_id": 1}}),
    "no users table": Kept(take("users", 0), warning="users: the table is empty"),
    "time missing": Kept(
        put("interactions", "timestamp", None, "NULL"), {"interactions": {"missing timestamp": 2}}
    ),
    "time zero": Kept(
        put("interactions", "timestamp", "0"), {"interactions": {"timestamp is before 1970-01-02": 1}}
    ),
    "time before the epoch": Kept(
        put("interactions", "timestamp", "1969-07-20"), {"interactions": {"timestamp is before 1970-01-02": 1}}
    ),
    "time in the future": Kept(
        put("interactions", "timestamp", "2030-01-01", "99999999999"),
        {"interactions": {"timestamp is in the future": 2}},
    ),
    "time infinite": Kept(
        put("interactions", "timestamp", float("inf"), float("nan"), dtype=pl.Float64),
        {"interactions": {"timestamp is NaN or infinite": 2}},
    ),
    "time not readable": Kept(
        put("interactions", "timestamp", "yesterday", "2026-02-30"),
        {"interactions": {"timestamp is not readable": 2}},
    ),
    "times in seven forms": Kept(put("interactions", "timestamp", *SAME_DAY)),
    "rating as a word": Kept(
        put("interactions", "rating", "good"), {"interactions": {"rating is not a number": 1}}
    ),
    "rating with a comma": Kept(
        put("interactions", "rating", "4,5"), {"interactions": {"rating is not a number": 1}}
    ),
    "rating NaN": Kept(
        put("interactions", "rating", float("nan"), dtype=pl.Float64),
        {"interactions": {"rating is NaN or infinite": 1}},
    ),
    "rating infinite": Kept(
        put("interactions", "rating", "-inf"), {"interactions": {"rating is NaN or infinite": 1}}
    ),
    "rating out of range": Kept(
        put("interactions", "rating", "0", "5.5"), {"interactions": {"rating is outside 1 to 5": 2}}
    ),
    "ratings as text": Kept(put("interactions", "rating", "4", " 5 ", "", "NA")),
    "label neither yes nor no": Kept(
        put("interactions", "helpful", "maybe"), {"interactions": {"helpful is neither yes nor no": 1}}
    ),
    "event missing": Kept(put("interactions", "event", None), {"interactions": {"missing event": 1}}),
    "event foreign": Kept(
        put("interactions", "event", "click", "View"),
        {"interactions": {"event is not one of view, purchase, rating": 2}},
    ),
    "title missing": Kept(
        put("items", "title", None, None),
        {
            "items": {"expect_column_values_to_not_be_null(title)": 2},
            "interactions": {"dangling item_id (items row in quarantine)": 16},
        },
    ),
    "title huge": Kept(
        put("items", "title", HUGE),
        {
            "items": {"title is longer than 100000 characters": 1},
            "interactions": {"dangling item_id (items row in quarantine)": 8},
        },
    ),
    "an undeclared column huge": Kept(
        replace("users", note=pl.when(pl.col("user_id") == "u1").then(pl.lit(HUGE))),
        {
            "users": {"note is longer than 100000 characters": 1},
            "interactions": {"dangling user_id (users row in quarantine)": 10},
        },
    ),
    "price as a word": Kept(put("items", "price", "free", "£3"), repairs={"items": {"price is not a number": 2}}),
    "price infinite": Kept(
        put("items", "price", float("inf"), float("nan"), dtype=pl.Float64),
        repairs={"items": {"price is NaN or infinite": 2}},
    ),
    "age as a word": Kept(put("users", "age", "young"), repairs={"users": {"age is not a number": 1}}),
    "price negative": Kept(
        put("items", "price", -1.0, dtype=pl.Float64),
        warning="expect_column_values_to_be_between(price) is broken by 1 of 10 rows (10.0%)",
    ),
    "text read as Latin-1": Kept(
        put("items", "title", "FantÃ´mas", "CafÃ©"),
        warning="items: 2 cells of 'title' look as if read with a wrong",
    ),
    "text with lost characters": Kept(put("items", "title", "Caf\ufffd"), warning="1 cells of 'title'"),
    "ids as floats in one table": Kept(
        both(
            replace("users", user_id=pl.col("user_id").str.slice(1).cast(pl.Float64)),
            replace("interactions", user_id=pl.col("user_id").str.slice(1).cast(pl.Int32)),
        )
    ),
    "ids with blanks around": Kept(replace("interactions", item_id=pl.lit(" ") + pl.col("item_id") + pl.lit("\t"))),
    "tags all missing": Kept(replace("items", tags=pl.lit(None))),
    "several faults in one row": Kept(
        both(
            put("interactions", "user_id", ""),
            put("interactions", "rating", "bad"),
            put("interactions", "event", "?"),
        ),
        {
            "interactions": {
                "missing user_id": 1,
                "rating is not a number": 1,
                "event is not one of view, purchase, rating": 1,
            }
        },
        rows={"interactions": 1},
    ),
}


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return parse_scenario(SHOP)


def run(tmp_path: Path, scenario: Scenario, frames: Frames) -> dict[str, Any]:
    Tables(**frames).write(tmp_path / "tables")
    return validate.run(
        validate.Inputs(tables=tmp_path / "tables", now="2026-06-01T00:00:00Z"),
        validate.Outputs(
            validated=tmp_path / "validated",
            quarantine=tmp_path / "quarantine",
            data_docs=tmp_path / "docs",
            summary=tmp_path / "summary.json",
        ),
        scenario,
    )


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_refused(case: Refused, tmp_path: Path, scenario: Scenario) -> None:
    frames = shop_frames()
    case.change(frames)
    with pytest.raises(DataError) as caught:
        run(tmp_path, scenario, frames)
    text = str(caught.value)
    assert case.message in text
    assert "\n" not in text
    assert text.startswith(str(tmp_path / "tables"))
    assert not (tmp_path / "validated").exists()
    written = {path.name for path in tmp_path.iterdir()} - {"tables"}
    assert written == ({"quarantine", "docs", "summary.json"} if case.looked else set())
    if case.looked:
        assert str(tmp_path / "docs" / "index.html") in text
        assert str(tmp_path / "quarantine") in text
        assert json.loads((tmp_path / "summary.json").read_text())["success"] is False
        assert "The data did not pass" in (tmp_path / "docs" / "index.html").read_text()


@pytest.mark.parametrize("case", KEPT.values(), ids=KEPT.keys())
def test_kept(case: Kept, tmp_path: Path, scenario: Scenario) -> None:
    frames = shop_frames()
    case.change(frames)
    summary = run(tmp_path, scenario, frames)
    validated = Tables.read(tmp_path / "validated")
    assert summary["success"] is True
    for name, frame in frames.items():
        counts = summary["tables"][name]
        reasons = case.reasons.get(name, {})
        assert counts["reasons"] == reasons
        assert counts["repairs"] == case.repairs.get(name, {})
        bad = pl.read_parquet(tmp_path / "quarantine" / f"{name}.parquet")
        num_bad = (case.rows or {}).get(name, sum(reasons.values()))
        assert (counts["input"], counts["quarantined"], bad.height) == (frame.height, num_bad, num_bad)
        assert counts["good"] == getattr(validated, name).height == frame.height - num_bad
        assert bad.drop("row", "reason").equals(frame[bad["row"].to_list()])
        cells = tmp_path / "quarantine" / f"{name}_cells.parquet"
        assert cells.exists() is bool(counts["repairs"])
    if case.warning:
        assert any(case.warning in line for line in summary["warnings"])
    if not case.warning and not case.reasons and not case.repairs:
        assert summary["warnings"] == []


# ------------------------------------------------------------------------------------------------- no tables


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.parquet", None, "items.parquet: no such file"),
        ("users.parquet", b"", "users.parquet: not a readable Parquet file"),
        ("interactions.parquet", b"user_id,item_id\n1,2\n", "interactions.parquet: not a readable Parquet file"),
        ("items.parquet", b"PAR1 and then nothing", "items.parquet: not a readable Parquet file"),
    ],
)
def test_broken_files(name: str, content: bytes | None, message: str, tmp_path: Path, scenario: Scenario) -> None:
    Tables(**shop_frames()).write(tmp_path / "tables")
    (tmp_path / "tables" / name).unlink()
    if content is not None:
        (tmp_path / "tables" / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        validate.run(
            validate.Inputs(tables=tmp_path / "tables"),
            validate.Outputs(
                validated=tmp_path / "v",
                quarantine=tmp_path / "q",
                data_docs=tmp_path / "d",
                summary=tmp_path / "s",
            ),
            scenario,
        )
    assert message in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"tables"}


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (
            {"type": "expect_column_values_to_be_nul", "arguments": {"column": "price"}},
            "expect_column_values_to_be_null",
        ),
        (
            {"type": "expect_column_values_to_be_between", "arguments": {"column": "price", "min": 1}},
            "min: extra fields",
        ),
    ],
)
def test_wrong_expectations_stop_before_anything_is_written(
    expectation: dict[str, Any], message: str, tmp_path: Path
) -> None:
    wrong = {**SHOP, "validation": {"expectations": [{"table": "items", **expectation}]}}
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, parse_scenario(wrong), shop_frames())
    assert isinstance(caught.value, ConfigError)
    assert {path.name for path in tmp_path.iterdir()} == {"tables"}


def test_an_expectation_about_an_absent_column_is_a_failure_line(tmp_path: Path) -> None:
    weight = {
        "table": "items",
        "type": "expect_column_values_to_be_between",
        "arguments": {"column": "weight", "min_value": 0},
    }
    scenario = parse_scenario({**SHOP, "validation": {"expectations": [weight]}})
    with pytest.raises(
        DataError, match=r"expect_column_values_to_be_between\(weight\): column 'weight' is missing"
    ):
        run(tmp_path, scenario, shop_frames())
