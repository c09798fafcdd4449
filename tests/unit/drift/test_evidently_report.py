"""Evidently's page: written where it is installed, from the same columns; quietly left out where it is not."""

import importlib.util
from pathlib import Path

import polars as pl
import pytest

from mtrec.config import Retraining
from mtrec.drift.evidently_report import write_evidently
from mtrec.drift.statistics import Column
from tests.unit.drift.test_statistics import busy

HERE = importlib.util.find_spec("evidently") is not None


@pytest.mark.skipif(HERE, reason="Evidently is installed")
def test_without_evidently_nothing_is_written(tmp_path: Path) -> None:
    timeline, colour = busy({3: 0.5, 4: 0.5})
    column = Column(values=colour, kind="category")
    assert write_evidently(tmp_path / "page.html", timeline, {"colour": column}, Retraining()) is False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HERE, reason="needs pip install 'mtrec[drift]'")
def test_the_page_shows_every_column_that_has_values_on_both_sides(tmp_path: Path) -> None:
    timeline, colour = busy({2: 0.3, 3: 0.3, 4: 0.7})
    rows = len(colour)
    columns = {
        "colour": Column(values=colour, kind="category"),
        "price": Column(values=pl.Series([float(i % 17) if i % 5 else None for i in range(rows)]), kind="number"),
        "tags": Column(values=pl.Series([["b", "a"] if i % 3 else None for i in range(rows)]), kind="values"),
        "gone": Column(values=pl.Series([None] * rows, dtype=pl.String), kind="category"),
    }
    page = tmp_path / "page.html"
    assert write_evidently(page, timeline, columns, Retraining())
    text = page.read_text()
    for name in ("colour", "price", "tags"):
        assert name in text
    assert "gone" not in text.replace("undergone", "")
    empty, _ = busy({2: 0.3, 3: 0.3})
    assert not write_evidently(tmp_path / "other.html", empty, columns, Retraining())
