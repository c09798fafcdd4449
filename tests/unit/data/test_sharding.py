"""Shards: whatever the data and their number, joined they are the files of the undivided stage."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset
from mtrec.data.sharding import clean_shard, join_shards, shard_of, write_shards
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.errors import DataError
from mtrec.stages import preprocess
from tests.unit.tiny_shop import shop_scenario, tasks_under

DIALS = {"num_users": 30, "num_items": 20, "num_interactions": 400, "seed": 3}
SPLITS = ("time", "random", "leave_last_out", "cold_items")


@cache
def shop() -> Tables:
    return simulate(Dials.parse(DIALS))[0]


def scenario(by: str) -> Scenario:
    return shop_scenario("unused", split={"by": by, "valid": 0.2, "test": 0.2}, tasks=tasks_under(by))


def whole(folder: Path, by: str) -> dict[str, Any]:
    inputs, outputs = preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "whole")
    return preprocess.run(inputs, outputs, scenario(by))


def sharded(folder: Path, by: str, num_shards: int, block_rows: int = 1_000_000) -> dict[str, Any]:
    write_shards(folder / "tables", folder / "shards", folder / "items", num_shards)
    parts = [folder / "parts" / str(number) for number in range(num_shards)]
    for number, part in enumerate(parts):
        clean_shard(folder / "shards", number, part, scenario(by))
    return join_shards(parts[::-1], folder / "items", folder / "joined", scenario(by), block_rows=block_rows)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def told(work: Any, *arguments: Any) -> Any:
    """What a step returns, or how it refuses."""
    try:
        return work(*arguments)
    except DataError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.one_of(st.just(range(400)), st.lists(st.integers(0, 399), min_size=3, max_size=300)),
    by=st.sampled_from(SPLITS),
    num_shards=st.integers(1, 7),
    block_rows=st.sampled_from([1, 17, 1000]),
    hours=st.sampled_from([1, 24, 24 * 60]),
    known=st.integers(0, 30),
    again=st.booleans(),
    rated=st.booleans(),
)
@example(rows=range(400), by="time", num_shards=7, block_rows=17, hours=24, known=20, again=True, rated=True)
def test_joined_shards_are_the_files_of_the_undivided_tables(
    rows: Any, by: str, num_shards: int, block_rows: int, hours: int, known: int, again: bool, rated: bool
) -> None:
    """Rows in any order and repeated, many of one instant; users without rows, and rows without a known user."""
    given = shop()
    picked = given.interactions[list(rows)].with_columns(pl.col("timestamp").dt.truncate(f"{hours}h"))
    if again:  # the same rows once more, rated otherwise
        picked = pl.concat([picked, picked[: len(picked) // 2].with_columns(rating=6 - pl.col("rating"))])
    if not rated:
        picked = picked.drop("rating")
    users = given.users.head(known).with_columns(gender=" " + pl.col("gender") + " ")
    folder = Path(tempfile.mkdtemp())
    try:
        Tables(users=users, items=given.items, interactions=picked).write(folder / "tables")
        expected, found = told(whole, folder, by), told(sharded, folder, by, num_shards, block_rows)
        assert found == expected
        if isinstance(expected, dict):
            assert files(folder / "joined") == files(folder / "whole")
        else:
            assert not (folder / "joined").exists()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("by", SPLITS)
def test_the_whole_shop_in_shards_is_the_whole_shop(tmp_path: Path, by: str) -> None:
    """What the property above would not show if every example were refused."""
    shop().write(tmp_path / "tables")
    card = whole(tmp_path, by)
    assert sharded(tmp_path, by, 4, 100) == card == json.loads((tmp_path / "joined" / "card.json").read_text())
    assert files(tmp_path / "joined") == files(tmp_path / "whole")
    assert Dataset.read(tmp_path / "joined").interactions.height == card["num_interactions"] > 300


def test_a_user_is_in_one_shard_with_every_row_and_always_the_same(tmp_path: Path) -> None:
    shop().write(tmp_path / "tables")
    write_shards(tmp_path / "tables", tmp_path / "shards", tmp_path / "items", 4)
    seen: set[str] = set()
    orders: list[int] = []
    for number in range(4):
        users, rows = (
            pl.read_parquet(tmp_path / "shards" / str(number) / f"{n}.parquet") for n in ("users", "interactions")
        )
        own = set(users["user_id"])
        assert set(rows["user_id"]) <= own
        assert seen.isdisjoint(own)
        assert rows["_order"].is_sorted()
        assert rows.drop("_order").equals(shop().interactions[rows["_order"].to_list()])
        seen |= own
        orders += rows["_order"].to_list()
    assert seen == set(shop().users["user_id"])
    assert sorted(orders) == list(range(shop().interactions.height))
    # Written down, for a shard must be the same in every process, on every machine and in later versions.
    assert shard_of(pl.Series(["user-1", "user-2", "user-3", "ü", "user-1"]), 7).to_list() == [3, 6, 2, 3, 3]


def test_ids_that_cleaning_makes_equal_meet_in_one_shard(tmp_path: Path) -> None:
    given = shop()
    padded = given.users.with_columns(user_id="  " + pl.col("user_id"))
    Tables(users=padded, items=given.items, interactions=given.interactions).write(tmp_path / "tables")
    assert sharded(tmp_path, "time", 5)["added_users"] == 0


def test_a_missing_or_foreign_shard_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    shop().write(tmp_path / "tables")
    sharded(tmp_path, "time", 3)
    parts = [tmp_path / "parts" / str(number) for number in range(3)]
    shutil.rmtree(tmp_path / "joined")
    for some, why in (
        (parts[:2], "got the shards 0, 1 of 3; give each shard of one division once"),
        ([*parts, parts[0]], "got the shards 0, 0, 1, 2 of 3"),
        ([], "got the shards none of \\?"),
        ([tmp_path / "nowhere"], r"shard\.json: not a readable note of a shard"),
    ):
        with pytest.raises(DataError, match=why):
            join_shards(some, tmp_path / "items", tmp_path / "joined", scenario("time"))
    write_shards(tmp_path / "tables", tmp_path / "shards", tmp_path / "items", 2)
    clean_shard(tmp_path / "shards", 1, parts[1], scenario("time"))
    with pytest.raises(DataError, match="got the shards 0, 1, 2 of 2 and of 3"):
        join_shards(parts, tmp_path / "items", tmp_path / "joined", scenario("time"))
    with pytest.raises(DataError, match=r"interactions\.parquet: no such file"):
        clean_shard(tmp_path / "shards", 2, parts[2], scenario("time"))
    (tmp_path / "tables" / "users.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match=r"users\.parquet: not a readable Parquet file"):
        write_shards(tmp_path / "tables", tmp_path / "shards", tmp_path / "items", 2)
    assert not (tmp_path / "joined").exists()
    assert [path.name for path in (tmp_path / "shards").iterdir() if path.name.isdecimal()], "the old ones stay"
