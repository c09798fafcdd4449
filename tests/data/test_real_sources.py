"""The public data sets, with the counts that their publishers state."""

from pathlib import Path

import polars as pl
import pytest

from mtrec.config import load_scenario
from mtrec.data.contract import Tables
from mtrec.data.sources import read_source, recognise_source
from mtrec.stages.ingest import summarise

pytestmark = pytest.mark.realdata


def read(name: str, scenario: str, real_data: Path, recognised_as: str) -> Tables:
    folder = real_data / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    chosen = load_scenario(scenario)
    assert recognise_source(chosen, folder) == recognised_as
    return read_source(chosen, folder)


def num_dangling(tables: Tables) -> int:
    return tables.interactions.join(tables.items, on="item_id", how="anti").height


def test_movielens_latest_small(real_data: Path) -> None:
    tables = read("movielens-latest-small", "video", real_data, "movielens csv")
    assert tables.num_rows == {"users": 610, "items": 9742, "interactions": 100_836}
    assert num_dangling(tables) == 0
    assert tables.items.row(0, named=True) == {
        "item_id": "1", "title": "Toy Story", "year": 1995,
        "genres": ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
    }  # fmt: skip
    assert tables.items["year"].null_count() == 12
    assert (tables.items["genres"].list.len() == 0).sum() == 34
    assert tables.interactions["rating"].dtype == pl.Float64
    assert sorted(tables.interactions["rating"].unique()) == [n / 2 for n in range(1, 11)]
    summary = summarise(tables)
    assert (summary["first"][:10], summary["last"][:10]) == ("1996-03-29", "2018-09-24")


def test_movietweetings_100k(real_data: Path) -> None:
    tables = read("movietweetings-100k", "video", real_data, "movietweetings")
    assert tables.num_rows == {"users": 16_554, "items": 10_506, "interactions": 100_000}
    assert num_dangling(tables) == 0
    assert (tables.items["item_id"].str.len_chars() == 7).all()
    assert tables.items["year"].null_count() == 0
    assert sorted(tables.interactions["rating"].unique()) == [n / 2 for n in range(11)]
    assert (tables.interactions["rating"] == 0).sum() == 12
    assert "Fantômas - À l'ombre de la guillotine" in tables.items["title"]
    assert summarise(tables)["first"].startswith("2013-02-28")


def test_online_retail(real_data: Path) -> None:
    tables = read("online-retail", "online-retail", real_data, "tables")
    assert tables.interactions.height == 397_884
    assert tables.interactions["user_id"].n_unique() == tables.users.height == 4338
    assert tables.interactions["item_id"].n_unique() == 3665
    assert num_dangling(tables) == 0
    assert tables.users.row(0) == ("17850", "United Kingdom")
    assert not tables.users["user_id"].is_duplicated().any()
    assert tables.items["title"].null_count() == 0
    assert tables.items["price"].dtype == pl.Float64
    assert (tables.items["price"] > 0).all()
    summary = summarise(tables)
    assert (summary["first"], summary["last"]) == ("2010-12-01T08:26:00+00:00", "2011-12-09T12:50:00+00:00")
