"""The prepared dataset: what the test part holds reaches nothing that is learned from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import Dataset, Encoding, prepare, write_dataset
from mtrec.data.splits import TEST, TRAIN, VALID
from mtrec.errors import DataError
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables, tasks_under

COLD = {**DIALS, "cold_items": 0.4, "num_items": 80}
"""Many items that occur in late rows alone."""
SPLITS = ("time", "random", "leave_last_out", "cold_items")


def scenario(by: str) -> Scenario:
    """No encoder is read here, so its name does not matter."""
    return shop_scenario("unused", split={"by": by}, tasks=tasks_under(by))


def prepared(tables: Tables, by: str) -> tuple[Dataset, Encoding]:
    return prepare(tables, scenario(by))


def written(folder: Path, encoding: Encoding) -> bytes:
    encoding.write(folder / "encoding.json")
    return (folder / "encoding.json").read_bytes()


def with_interactions(tables: Tables, interactions: pl.DataFrame) -> Tables:
    return Tables(users=tables.users, items=tables.items, interactions=interactions)


def changed_rows(tables: Tables, where: np.ndarray, by: str) -> Tables:
    """Another rating in every row of `where`, and another item and event where the split does not look at them."""
    rng = np.random.default_rng(1)
    rows = tables.interactions.with_columns(
        rating=pl.when(pl.Series(where)).then(6 - pl.col("rating").fill_null(1.0)).otherwise("rating")
    )
    if by == "random":
        return with_interactions(tables, rows)
    items = tables.interactions["item_id"].to_list() if by == "cold_items" else other_items(tables, where, rng)
    events = rng.choice(["purchase", "cart", "rating"], rows.height)
    mask = pl.Series(where)
    return with_interactions(
        tables,
        rows.with_columns(
            item_id=pl.when(mask).then(pl.Series(items)).otherwise("item_id"),
            event=pl.when(mask).then(pl.Series(events)).otherwise("event"),
        ),
    )


def other_items(tables: Tables, where: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Per row an item that its user never had, in place of one that is new within `where`; the others stay.

    So every user meets new items at the same rows as before, and `leave_last_out` cuts there again.
    """
    rows = tables.interactions.with_columns(where=pl.Series(where))
    first = rows["where"].filter(rows.select(new=pl.struct("user_id", "item_id").is_first_distinct())["new"])
    pairs = rows.unique(["user_id", "item_id"], keep="first", maintain_order=True).with_columns(new=first)
    everything = set(tables.items["item_id"].to_list())
    swapped = {}
    for (user,), own in pairs.group_by("user_id", maintain_order=True):
        spare = rng.permutation(sorted(everything - set(own["item_id"].to_list()))).tolist()
        for item, new in own.select("item_id", "new").rows():
            swapped[user, item] = spare.pop() if new else item
    return [swapped[pair] for pair in rows.select("user_id", "item_id").rows()]


@pytest.mark.parametrize("by", SPLITS)
@pytest.mark.parametrize("later", [(TEST,), (VALID, TEST)])
def test_no_later_row_reaches_what_is_learned(by: str, later: tuple[int, ...], tmp_path: Path) -> None:
    tables, _ = shop_tables(COLD)
    dataset, encoding = prepared(tables, by)
    where = np.isin(dataset.part, later)
    other, other_encoding = prepared(changed_rows(tables, where, by), by)
    columns = ["item_id", "event", "rating"]
    assert (
        not other.interactions.filter(where)
        .select(columns)
        .equals(dataset.interactions.filter(where).select(columns))
    )
    assert written(tmp_path / "a", encoding) == written(tmp_path / "b", other_encoding)
    earlier = ~where
    assert other.interactions.filter(earlier).equals(dataset.interactions.filter(earlier))
    # The same bytes on disk, labels of events included.
    paths = [tmp_path / "a" / "rows.parquet", tmp_path / "b" / "rows.parquet"]
    for path, found in zip(paths, (dataset, other), strict=True):
        found.interactions.filter(pl.col("part") == TRAIN).write_parquet(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    if by == "time":
        assert dataset.interactions["label_purchase"].is_not_nan().any()


def test_later_rows_that_never_came_leave_what_is_learned_from_as_it_is(tmp_path: Path) -> None:
    """Items, events and users of held-out rows: under a random split they can only be there or not."""
    tables, _ = shop_tables(COLD)
    dataset, encoding = prepared(tables, "random")
    kept = (dataset.part == TRAIN) | (np.arange(len(dataset.part)) % 2 == 0)
    other, other_encoding = prepared(with_interactions(tables, tables.interactions.filter(kept)), "random")
    assert other.interactions.height < dataset.interactions.height
    assert written(tmp_path / "a", encoding) == written(tmp_path / "b", other_encoding)
    assert other.interactions.equals(dataset.interactions.filter(kept))


@pytest.mark.parametrize("by", ["time", "leave_last_out", "cold_items"])
def test_nothing_of_items_and_users_outside_training_reaches_the_encoding(by: str, tmp_path: Path) -> None:
    tables, _ = shop_tables(COLD)
    if by == "leave_last_out":
        # Nearly every user has training rows here; one of the test rows becomes a new item's only one.
        rows = tables.interactions
        part = prepared(tables, by)[0].part
        last = np.flatnonzero(part == TEST)[0]
        wanted = tables.items["item_id"][0]
        place = pl.Series(np.arange(rows.height) == last)
        elsewhere = tables.items["item_id"][1]
        rows = rows.with_columns(
            item_id=pl.when(place)
            .then(pl.lit(wanted))
            .when(pl.col("item_id") == wanted)
            .then(pl.lit(elsewhere))
            .otherwise("item_id")
        )
        tables = with_interactions(tables, rows)
    dataset, encoding = prepared(tables, by)
    train = dataset.part == TRAIN
    cold_items = ~np.isin(np.arange(dataset.items.height), dataset.item[train])
    cold_users = ~np.isin(np.arange(dataset.users.height), dataset.user[train])
    assert cold_items.any()
    items, users = pl.Series(cold_items), pl.Series(cold_users)
    other_tables = Tables(
        users=tables.users.with_columns(
            age=pl.when(users).then(99).otherwise("age"),
            gender=pl.when(users).then(pl.lit("other")).otherwise("gender"),
            region=pl.when(users).then(pl.lit("Mars")).otherwise("region"),
        ),
        items=tables.items.with_columns(
            title=pl.when(items).then(pl.lit("changed")).otherwise("title"),
            description=pl.when(items).then(pl.lit("changed")).otherwise("description"),
            price=pl.when(items).then(1e6).otherwise("price"),
            brand=pl.when(items).then(pl.lit("changed")).otherwise("brand"),
            category=pl.when(items).then(pl.lit("changed")).otherwise("category"),
            tags=pl.when(items).then(pl.lit(["changed"])).otherwise("tags"),
        ),
        interactions=tables.interactions,
    )
    other, other_encoding = prepared(other_tables, by)
    assert written(tmp_path / "a", encoding) == written(tmp_path / "b", other_encoding)
    assert other.interactions.equals(dataset.interactions)
    assert other.items.filter(~items).equals(dataset.items.filter(~items))
    assert other.users.filter(~users).equals(dataset.users.filter(~users))


def test_labels_of_held_out_items_and_users_are_not_fitted() -> None:
    tables, _ = shop_tables(DIALS)
    dataset, encoding = prepared(tables, "time")
    held = dataset.items["part"] != TRAIN
    users = dataset.users["part"] != TRAIN
    other_tables = Tables(
        users=tables.users.with_columns(region=pl.when(users).then(pl.lit("Mars")).otherwise("region")),
        items=tables.items.with_columns(
            category=pl.when(held).then(pl.lit("changed")).otherwise("category"),
            price=pl.when(held).then(1e6).otherwise("price"),
            tags=pl.when(held).then(pl.lit(["changed"])).otherwise("tags"),
        ),
        interactions=tables.interactions,
    )
    other = prepared(other_tables, "time")[1]
    assert other.labels == encoding.labels
    assert other.items.categorical["category"] != encoding.items.categorical["category"]


def test_numbers_are_normalised_by_training_rows_alone() -> None:
    tables, _ = shop_tables(COLD)
    dataset, encoding = prepared(tables, "time")
    warm = np.unique(dataset.item[dataset.part == TRAIN])
    prices = dataset.items["price"].to_numpy()[warm]
    mean, std = encoding.items.numeric["price"]
    assert mean == pytest.approx(np.nanmean(prices))
    assert std == pytest.approx(np.nanstd(prices))
    assert mean != pytest.approx(np.nanmean(dataset.items["price"].to_numpy()), rel=1e-6)


def test_counts_belong_to_the_items_they_are_written_beside() -> None:
    tables, _ = shop_tables(DIALS)
    # Neither the order of the catalogue nor an interaction with an item outside it may shift a count.
    odd = tables.interactions.head(1).with_columns(item_id=pl.lit("a-ghost"))
    rows = pl.concat([tables.interactions, odd]).sort("user_id", "timestamp", maintain_order=True)
    given = Tables(users=tables.users, items=tables.items.reverse(), interactions=rows)
    dataset, encoding = prepared(given, "time")
    train = dataset.interactions.filter(pl.col("part") == TRAIN)
    counted = dict(zip(encoding.items.ids, encoding.item_counts, strict=True))
    assert counted == {i: train.filter(pl.col("item_id") == i).height for i in encoding.items.ids}
    assert min(counted.values()) > 0


def test_arrays_point_into_the_tables(shop_data: tuple[Dataset, Encoding]) -> None:
    dataset, encoding = shop_data
    rows = dataset.interactions
    assert dataset.users["user_id"].gather(dataset.user).to_list() == rows["user_id"].to_list()
    assert dataset.items["item_id"].gather(dataset.item).to_list() == rows["item_id"].to_list()
    assert (np.diff(dataset.user) >= 0).all()
    assert np.isnan(dataset.rating).sum() == rows["rating"].null_count()
    first = rows["timestamp"][0]
    assert dataset.time[0] == pytest.approx(first.timestamp() / 86_400)
    events = dataset.events(encoding)
    assert [encoding.events[code - 1] for code in events] == rows["event"].to_list()
    assert len(dataset.user_features(encoding).ids) == dataset.users.height
    assert len(dataset.item_features(encoding).ids) == dataset.items.height


def test_a_folder_brings_back_dataset_and_encoding(shop_data: tuple[Dataset, Encoding], tmp_path: Path) -> None:
    dataset, encoding = shop_data
    write_dataset(tmp_path / "dataset", dataset, encoding, {"num_users": 60})
    again = Dataset.read(tmp_path / "dataset")
    for name in ("users", "items", "interactions"):
        assert getattr(again, name).equals(getattr(dataset, name))
    assert Encoding.read(tmp_path / "dataset" / "encoding.json") == encoding
    assert json.loads((tmp_path / "dataset" / "card.json").read_text()) == {"num_users": 60}
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"users": 1}', "nonsense", '"text"'],
)
def test_a_broken_encoding_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "encoding.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a readable encoding"):
        Encoding.read(path)


@pytest.mark.parametrize(
    ("key", "value"), [("rating", []), ("labels", []), ("users", {"key": "x"}), ("rating", None)]
)
def test_a_damaged_encoding_is_refused(
    key: str, value: Any, shop_data: tuple[Dataset, Encoding], tmp_path: Path
) -> None:
    path = tmp_path / "encoding.json"
    shop_data[1].write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match="not a readable encoding"):
        Encoding.read(path)


@pytest.mark.parametrize("name", ["users", "items", "interactions"])
def test_a_missing_table_is_named(name: str, shop_data: tuple[Dataset, Encoding], tmp_path: Path) -> None:
    write_dataset(tmp_path / "dataset", *shop_data, {})
    (tmp_path / "dataset" / f"{name}.parquet").unlink()
    with pytest.raises(DataError, match=f"{name}.parquet: no such file"):
        Dataset.read(tmp_path / "dataset")


def test_data_without_ratings_has_a_neutral_scale() -> None:
    tables, _ = shop_tables(DIALS)
    without = with_interactions(tables, tables.interactions.with_columns(rating=pl.lit(None, pl.Float64)))
    tasks = {"next_item": {"type": "next_item"}}
    _, encoding = prepare(without, shop_scenario("unused", tasks=tasks))
    assert encoding.rating == (0.0, 1.0)
