"""The scenario `amazon`, from review files to a dataset: the layout of 2023, filled by the simulator."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from mtrec.config import load_scenario
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.stages import ingest, preprocess, validate


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def test_amazon_reviews_become_a_dataset(tmp_path: Path) -> None:
    tables, _ = simulate(Dials(num_users=120, num_items=150, num_interactions=12_000))
    ratings = tables.interactions.filter(pl.col("event") == "rating")
    raw = tmp_path / "raw"
    raw.mkdir()
    write_lines(
        raw / "Shop.jsonl.gz",
        (
            {"user_id": user, "parent_asin": item, "rating": stars, "timestamp": int(time.timestamp() * 1000)}
            for user, item, _, stars, time in ratings.iter_rows()
        ),
    )
    write_lines(
        raw / "meta_Shop.jsonl.gz",
        (
            {
                "parent_asin": row["item_id"],
                "title": row["title"],
                "description": [row["description"]] if row["description"] else [],
                "categories": ["Everything", row["category"], *(row["tags"] or [])],
                "store": row["brand"],
                "price": row["price"],
            }
            for row in tables.items.iter_rows(named=True)
        ),
    )
    scenario = load_scenario("amazon")
    found = ingest.run(
        ingest.Inputs(data=raw, dvc_root=None),
        ingest.Outputs(tables=tmp_path / "tables", summary=tmp_path / "ingest.json"),
        scenario,
    )
    assert found["source"] == "amazon 2023"
    assert found["num_interactions"] == ratings.height > 500
    assert found["first"] == ratings["timestamp"].min().isoformat()  # type: ignore[union-attr]
    items = pl.read_parquet(tmp_path / "tables" / "items.parquet")
    for column in ("category", "brand", "price"):
        assert items[column].to_list() == tables.items[column].to_list(), column

    checked = validate.run(
        validate.Inputs(tables=tmp_path / "tables"),
        validate.Outputs(
            validated=tmp_path / "validated",
            quarantine=tmp_path / "quarantine",
            data_docs=tmp_path / "docs",
            summary=tmp_path / "validate.json",
        ),
        scenario,
    )
    assert checked["success"]
    assert checked["tables"]["interactions"]["quarantined"] == 0
    made = preprocess.run(
        preprocess.Inputs(tables=tmp_path / "validated"),
        preprocess.Outputs(dataset=tmp_path / "dataset"),
        scenario,
    )
    assert made["num_items"] == 150
    assert made["num_train"] + made["num_valid"] + made["num_test"] == ratings.height
