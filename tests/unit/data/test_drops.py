"""A drop joins what is known: no repetitions, newest rows, the same bytes for the same input, clear refusals."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.drops import drops_in, known_tables, merge, merge_drops, read_drop
from mtrec.data.forgotten import remember
from mtrec.data.versioning import directory_hash, push
from mtrec.errors import DataError
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables

SCHEMA = {
    "user_id": pl.String(),
    "item_id": pl.String(),
    "event": pl.String(),
    "rating": pl.Float64(),
    "timestamp": pl.Datetime("us", "UTC"),
}


def taken(*rows: tuple[str, str, float | None, int]) -> pl.DataFrame:
    """User, item, rating and day of January."""
    cells = [(u, i, "view", rating, datetime(2026, 1, day, tzinfo=UTC)) for u, i, rating, day in rows]
    return pl.DataFrame(cells, schema=SCHEMA, orient="row")


def goods(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame(columns)


KNOWN = Tables(
    users=goods(user_id=["u1", "u2"], age=[30, 40]),
    items=goods(item_id=["a", "b"], title=["Apple", "Bread"], price=[1.0, 2.0], tags=[["x"], ["y"]]),
    interactions=taken(("u2", "b", None, 9), ("u1", "a", 5, 1)),
)
NOTHING = Tables(users=KNOWN.users.clear(), items=KNOWN.items.clear(), interactions=KNOWN.interactions.clear())


# ------------------------------------------------------------------------------------------------ interactions


def test_interactions_are_joined_in_order_of_time_without_repetitions() -> None:
    drop = replace(NOTHING, interactions=taken(("u1", "a", 5, 1), ("u1", "b", None, 4), ("u1", "b", None, 4)))
    found = merge(KNOWN, drop)
    assert found.tables.interactions.equals(taken(("u1", "a", 5, 1), ("u1", "b", None, 4), ("u2", "b", None, 9)))
    assert found.fresh.equals(taken(("u1", "b", None, 4)))
    assert found.changed == {"users": 0, "items": 0, "interactions": 1}
    assert found.tables.users is KNOWN.users


def test_a_corrected_rating_comes_behind_the_one_it_corrects() -> None:
    found = merge(KNOWN, replace(NOTHING, interactions=taken(("u1", "a", 3, 1))))
    assert found.tables.interactions["rating"].to_list() == [5, 3, None]


def test_nothing_new_leaves_what_is_known_as_it_is() -> None:
    for drop in (KNOWN, NOTHING, replace(KNOWN, items=KNOWN.items.reverse())):
        found = merge(KNOWN, drop)
        assert found.changed == {"users": 0, "items": 0, "interactions": 0}
        assert found.tables == KNOWN
        assert found.fresh.height == 0


def test_moments_written_as_text_are_the_same_moments() -> None:
    text = KNOWN.interactions.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert merge(KNOWN, replace(NOTHING, interactions=text)).changed["interactions"] == 0


def test_unreadable_moments_are_kept_for_validation_to_judge() -> None:
    text = taken(("u9", "a", None, 3)).with_columns(timestamp=pl.lit("yesterday"))
    found = merge(KNOWN, replace(NOTHING, interactions=text))
    assert found.tables.interactions["user_id"].to_list() == ["u1", "u2", "u9"]
    assert found.tables.interactions["timestamp"].to_list()[-1] == "yesterday"


def test_another_type_of_number_is_joined() -> None:
    whole = taken(("u3", "a", 4, 2)).with_columns(pl.col("rating").cast(pl.Int64))
    found = merge(KNOWN, replace(NOTHING, interactions=whole)).tables.interactions
    assert found["rating"].to_list() == [5.0, 4.0, None]


def test_another_column_makes_no_known_interaction_new() -> None:
    new = pl.concat([KNOWN.interactions, taken(("u1", "b", None, 4))]).with_columns(device=pl.lit("phone"))
    found = merge(KNOWN, replace(NOTHING, interactions=new))
    assert found.fresh["item_id"].to_list() == ["b"]
    assert found.tables.interactions["device"].to_list() == [None, "phone", None]


def test_interactions_that_lack_a_column_are_refused() -> None:
    drop = replace(NOTHING, interactions=taken(("u1", "b", None, 4)).drop("rating"))
    with pytest.raises(DataError, match=r"^drops/monday: interactions: column 'rating' is missing, which the data"):
        merge(KNOWN, drop, "drops/monday")


# ------------------------------------------------------------------------------------------------ users, items


def test_of_an_item_the_newest_row_wins_and_columns_are_united() -> None:
    drop = replace(
        NOTHING,
        items=goods(item_id=["b", "c", "b"], title=["Old", "Cheese", "Brown bread"], brand=["o", "m", "k"]),
        users=goods(user_id=["u3"], age=[50]),
    )
    found = merge(KNOWN, drop)
    rows = {row["item_id"]: row for row in found.tables.items.to_dicts()}
    assert rows == {
        "a": {"item_id": "a", "title": "Apple", "price": 1.0, "tags": ["x"], "brand": None},
        "b": {"item_id": "b", "title": "Brown bread", "price": 2.0, "tags": ["y"], "brand": "k"},
        "c": {"item_id": "c", "title": "Cheese", "price": None, "tags": None, "brand": "m"},
    }
    assert found.tables.users["user_id"].to_list() == ["u1", "u2", "u3"]
    assert found.changed["users"] == 1
    assert found.changed["items"] > 0


def test_a_cell_that_became_empty_is_empty() -> None:
    drop = replace(NOTHING, items=KNOWN.items.head(1).with_columns(price=pl.lit(None, pl.Float64)))
    found = merge(KNOWN, drop)
    assert dict(found.tables.items.select("item_id", "price").iter_rows()) == {"a": None, "b": 2.0}
    assert found.changed["items"] == 1


def test_ids_written_as_numbers_are_the_same_ids() -> None:
    known = replace(KNOWN, users=goods(user_id=["1", "2"], age=[30, 40]))
    found = merge(known, replace(NOTHING, users=goods(user_id=[2, 3], age=[41, 50])))
    assert dict(found.tables.users.iter_rows()) == {"1": 30, "2": 41, "3": 50}


@pytest.mark.parametrize(
    ("before", "now", "ids"),
    [
        pytest.param([17850.0, 2.0], ["17850", "3"], ["2", "17850", "3"], id="whole numbers with a point"),
        pytest.param([2**53, 2**53 + 1], [3.0], [str(2**53), str(2**53 + 1), "3"], id="longer than a float is"),
        pytest.param(["1", "2"], ["1 ", "3"], ["2", "1 ", "3"], id="blanks"),
        pytest.param(["1", "n/a"], ["1", "n/a"], ["1", "n/a"], id="no id at all"),
    ],
)
def test_ids_are_compared_as_validation_reads_them(before: list[Any], now: list[Any], ids: list[str]) -> None:
    known = replace(KNOWN, users=goods(user_id=before, age=[30] * len(before)))
    found = merge(known, replace(NOTHING, users=goods(user_id=now, age=[41] * len(now)))).tables.users
    assert found["user_id"].to_list() == ids
    assert found["age"].to_list() == [30] * (len(ids) - len(now)) + [41] * len(now)


def test_interactions_of_one_user_written_in_two_ways_are_that_users(tmp_path: Path) -> None:
    known = taken(("17850", "a", 5, 1)).with_columns(pl.col("user_id").cast(pl.Float64))
    text = taken(("17850", "a", 5, 1), ("17850", "b", None, 2))
    found = merge(replace(KNOWN, interactions=known), replace(NOTHING, interactions=text))
    assert found.tables.interactions.equals(text)
    numbers = text.with_columns(pl.col("user_id").cast(pl.Float64))
    for name, rows in (("1", numbers), ("2", taken(("17850", "a", 3, 3)))):
        (tmp_path / name).mkdir()
        rows.write_parquet(tmp_path / name / "interactions.parquet")
    both = merge_drops(replace(KNOWN, interactions=known), shop_scenario("unused"), tmp_path)
    assert both.fresh["user_id"].to_list() == ["17850", "17850"]


def test_lists_beside_single_values_are_refused() -> None:
    drop = replace(NOTHING, items=goods(item_id=["c"], title=["Cheese"], tags=["x|y"]))
    with pytest.raises(DataError, match=r"column 'tags' holds String, in the data so far List\(String\); write it"):
        merge(KNOWN, drop)


def test_rows_without_an_id_are_kept_for_validation_to_judge() -> None:
    drop = replace(NOTHING, items=goods(item_id=[None, None, "c"], title=["x", "y", "z"]))
    assert merge(KNOWN, drop).tables.items["item_id"].to_list() == ["a", "b", None, None, "c"]


rows = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("ab"), st.sampled_from([None, 1.0, 5.0]), st.integers(1, 9)),
    max_size=12,
)


@given(rows, rows)
def test_joining_twice_is_joining_once(first: list[Any], second: list[Any]) -> None:
    known, drop = (replace(NOTHING, interactions=taken(*given_rows)) for given_rows in (first, second))
    once = merge(known, drop).tables
    assert merge(once, drop).tables.interactions.equals(once.interactions)
    assert set(once.interactions.iter_rows()) == set(taken(*first, *second).iter_rows())
    if merge(known, drop).changed["interactions"]:
        assert once.interactions["timestamp"].is_sorted()
        assert once.interactions.height == len(set(taken(*first, *second).iter_rows()))


# ------------------------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Tables]:
    return shop_scenario("none"), shop_tables(DIALS)[0]


def test_the_whole_data_once_more_is_the_same_data_version(plain: tuple[Scenario, Tables], tmp_path: Path) -> None:
    scenario, tables = plain
    tables.write(tmp_path / "drop")
    version = push(tmp_path / "drop", tmp_path / "dvc")
    known = known_tables(version, tmp_path / "dvc")
    found = merge(known, read_drop(scenario, tmp_path / "drop"))
    assert found.fresh.height == 0
    found.tables.write(tmp_path / "merged")
    assert directory_hash(tmp_path / "merged") == version


def test_the_same_drop_twice_is_the_same_data_version(plain: tuple[Scenario, Tables], tmp_path: Path) -> None:
    scenario, tables = plain
    middle = tables.interactions["timestamp"].sort()[1500]
    known = replace(tables, interactions=tables.interactions.filter(pl.col("timestamp") <= middle))
    (tmp_path / "drop").mkdir()
    tables.interactions.filter(pl.col("timestamp") > middle).write_parquet(tmp_path / "drop/interactions.parquet")
    hashes = []
    for name in ("one", "two"):
        found = merge(known, read_drop(scenario, tmp_path / "drop"))
        assert found.fresh.height == tables.interactions.height - known.interactions.height
        assert found.tables.interactions.height == tables.interactions.height
        found.tables.write(tmp_path / name)
        hashes.append(directory_hash(tmp_path / name))
    assert hashes[0] == hashes[1]


def test_a_folder_of_drops_is_read_by_name(plain: tuple[Scenario, Tables], tmp_path: Path) -> None:
    scenario, tables = plain
    folder = tmp_path / "drops"
    for name, title in (("2026-02-02", "newest"), ("2026-02-01", "newer")):
        later = tables.interactions.tail(3).with_columns(timestamp=pl.lit(datetime.fromisoformat(f"{name}T00:00Z")))
        items = tables.items.head(1).with_columns(title=pl.lit(title))
        replace(tables, items=items, interactions=later).write(folder / name)
    assert [path.name for path in drops_in(scenario, folder)] == ["2026-02-01", "2026-02-02"]
    assert drops_in(scenario, folder / "2026-02-01") == [folder / "2026-02-01"]
    found = merge_drops(tables, scenario, folder)
    assert found.tables.items.filter(item_id=tables.items["item_id"][0])["title"].to_list() == ["newest"]
    assert found.fresh.height == 6 == found.changed["interactions"]
    (folder / "notes").mkdir()
    with pytest.raises(DataError, match=r"drops: no known layout|drops: the data lies one level down"):
        merge_drops(tables, scenario, folder)


def test_a_drop_of_any_source_is_read(tmp_path: Path) -> None:
    scenario = shop_scenario("none", source={"type": "auto"}, users={}, items={"text": "{title}"},
        tasks={"rating": {"type": "regression", "on": "pair", "label": "interactions.rating"}})  # fmt: skip
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.0,1000000000\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n2,Heat (1995),Action|Crime\n")
    assert read_drop(scenario, folder).num_rows == {"users": 1, "items": 1, "interactions": 1}


def test_a_broken_schema_is_refused_by_name(plain: tuple[Scenario, Tables], tmp_path: Path) -> None:
    scenario, tables = plain
    broken = replace(
        tables, items=tables.items.rename({"title": "name"}), interactions=tables.interactions.drop("event")
    )
    broken.write(tmp_path / "drop")
    with pytest.raises(
        DataError, match=r"items: column 'title' is missing \(needed by .*interactions: column 'event'"
    ):
        read_drop(scenario, tmp_path / "drop")


def test_what_is_not_there_is_told(plain: tuple[Scenario, Tables], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_drop(plain[0], tmp_path / "nowhere")
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "interactions.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_drop(plain[0], tmp_path / "drop")
    with pytest.raises(DataError, match="not a DVC repository"):
        known_tables("0" * 32 + ".dir", tmp_path / "dvc")
    plain[1].write(tmp_path / "tables")
    push(tmp_path / "tables", tmp_path / "dvc")
    with pytest.raises(DataError, match="no such data version"):
        known_tables("0" * 32 + ".dir", tmp_path / "dvc")


def test_forgotten_users_are_left_out_of_what_is_known_and_of_every_drop(tmp_path: Path) -> None:
    scenario = shop_scenario("unused")
    tables = shop_tables(DIALS)[0]
    one, other = tables.users["user_id"].to_list()[:2]
    tables.write(tmp_path / "drops" / "1")
    later = tables.interactions.with_columns(timestamp=pl.col("timestamp").dt.offset_by("1y"))
    replace(tables, interactions=later).write(tmp_path / "drops" / "2")
    nobody = remember(tmp_path, "another", [one])
    everybody = merge_drops(tables, scenario, tmp_path / "drops", nobody)
    forgotten = remember(tmp_path, scenario.name, [one, other])
    found = merge_drops(tables, scenario, tmp_path / "drops", forgotten)
    for frame in (found.tables.users, found.tables.interactions, found.fresh):
        assert frame.height > 0
        assert not frame.filter(pl.col("user_id").is_in([one, other])).height
    for name in ("users", "interactions"):
        kept = getattr(everybody.tables, name).filter(~pl.col("user_id").is_in([one, other]))
        assert getattr(found.tables, name).equals(kept)
    assert found.tables.items.equals(everybody.tables.items)
    assert found.changed["interactions"] == found.fresh.height < everybody.fresh.height
