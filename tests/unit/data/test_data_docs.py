"""Data Docs open from a disk with no network, name what failed, and run nothing that stands in the data."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import parse_scenario
from mtrec.data.data_docs import write_data_docs
from mtrec.data.expectations import Judge

SUMMARY: dict[str, Any] = {
    "success": False,
    "judged_at": "2026-06-01T00:00:00Z",
    "tables": {
        "items": {
            "input": 1002, "good": 1001, "quarantined": 1, "reasons": {"missing item_id": 1},
            "repaired": 2, "repairs": {"price is not a number": 2},
        }
    },
    "expectations": [
        {"table": "items", "expectation": "expect_column_values_to_not_be_null(title)", "severity": "critical",
         "success": False, "unexpected": 1, "of": 1001, "quarantined": 3},
        {"table": "items", "expectation": "expect_column_mean_to_be_between(price)", "severity": "warning",
         "success": False, "unexpected": 0, "of": 1001, "observed": 2.5, "why": "<because>"},
    ],
    "warnings": ["items: a <b>bold</b> warning"],
    "failures": ["items: 1 title is missing"],
}  # fmt: skip


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenario = parse_scenario(
        {
            "name": "shop",
            "tasks": {"next_item": {"type": "next_item"}},
            "validation": {
                "expectations": [
                    {"table": "items", "type": "expect_column_values_to_not_be_null",
                     "arguments": {"column": "title"}},
                    {"table": "items", "type": "expect_column_value_lengths_to_be_between",
                     "arguments": {"column": "title", "max_value": 10}},
                ]
            },
        }
    )  # fmt: skip
    judge = Judge(scenario)
    items = pl.DataFrame({"title": [None, "Lamp", "<script>alert(1)</script>", '<svg onload="alert(2)">']})
    folder = tmp_path_factory.mktemp("out") / "docs"
    write_data_docs(folder, judge, [judge.judge("items", items, pl.Series([0, 1, 2, 3]))], "shop", SUMMARY)
    return folder


def test_the_folder_is_complete_and_its_links_lead_somewhere(docs: Path) -> None:
    pages = sorted(str(path.relative_to(docs)) for path in docs.rglob("*") if path.is_file())
    assert pages == [
        "expectations/items.html",
        "index.html",
        "suites/items.json",
        "validations/items-first-pass.html",
    ]
    for page in docs.rglob("*.html"):
        for link in re.findall(r'href="([^"#]+)"', page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_nothing_is_fetched_from_elsewhere(docs: Path) -> None:
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert "http://" not in text
        assert "https://" not in text
        assert "<style>" in text


def test_pages_of_great_expectations_run_no_script(docs: Path) -> None:
    for page in docs.glob("*/*.html"):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text
        assert "default-src 'none'" in text


def test_the_page_names_the_failing_expectation_and_its_row(docs: Path) -> None:
    text = (docs / "validations" / "items-first-pass.html").read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "values must never be null" in plain
    assert "1 unexpected values found. 25% of 4 total rows." in plain
    assert "Failed" in plain


def test_the_index_shows_counts_reasons_and_lines_escaped(docs: Path) -> None:
    text = (docs / "index.html").read_text(encoding="utf-8")
    for fragment in (
        "The data did not pass",
        "1,002",
        "missing item_id: 1",
        "expect_column_values_to_not_be_null(title)",
        "3 rows went to quarantine first",
        "observed 2.5",
        "items: 1 title is missing",
        "items: a &lt;b&gt;bold&lt;/b&gt; warning",
        "&lt;because&gt;",
        "0 of 2 expectations held on 4 rows",
    ):
        assert fragment in text
