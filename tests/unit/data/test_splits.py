"""The split: what is later is never learned from, and nothing is left empty."""

import time
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.config import Split
from mtrec.data.splits import TEST, TRAIN, VALID, split_by_id, split_interactions
from mtrec.errors import DataError

HASHED = "000220100200"
"""Parts of item-0 … item-11 at 20 % validation, 10 % test and seed 0."""
DRAWN = "000010020000010110120120"
"""Parts of the first rows of `many` at 20 % validation, 20 % test and seed 0."""
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(users: list[str], hours: list[int]) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "user_id": users,
            "item_id": [f"i{n}" for n in range(len(users))],
            "event": "view",
            "timestamp": [START + timedelta(hours=h) for h in hours],
        }
    )
    return table.sort("user_id", "timestamp", maintain_order=True)


@given(
    hours=st.lists(st.integers(0, 30), min_size=20, max_size=200),
    valid=st.sampled_from([0.05, 0.1, 0.3]),
    test=st.sampled_from([0.05, 0.1, 0.4]),
)
def test_time_split_never_trains_on_the_future(hours: list[int], valid: float, test: float) -> None:
    table = rows([f"u{n % 7}" for n in range(len(hours))], hours)
    try:
        part = split_interactions(table, Split(by="time", valid=valid, test=test)).to_numpy()
    except DataError:
        # Only ties can empty a part: with one instant fewer than parts there is no other way.
        assert len(set(hours)) < len(hours)
        return
    times = table["timestamp"].to_numpy()
    # Rows of one instant share a part, so the borders are strict.
    assert times[part == TRAIN].max() < times[part == VALID].min()
    assert times[part == VALID].max() < times[part == TEST].min()
    # A part holds its share and the ties at its border.
    assert (part == TEST).sum() >= int(len(hours) * test)
    assert ((part == TEST) | (part == VALID)).sum() >= int(len(hours) * (test + valid) - 1e-9)


def test_time_split_of_distinct_times_takes_the_exact_shares() -> None:
    order = np.random.default_rng(0).permutation(100).tolist()
    table = rows(["u"] * 100, order)
    part = split_interactions(table, Split(by="time", valid=0.2, test=0.1)).to_numpy()
    assert part.tolist() == [TRAIN] * 70 + [VALID] * 20 + [TEST] * 10


def test_ties_at_the_border_go_to_the_later_part_together() -> None:
    # 20 rows: hours 0…9 once, then ten rows of hour 10; the test share of 10 % would cut the tie in two.
    table = rows([f"u{n:02d}" for n in range(20)], [*range(10), *[10] * 10])
    part = split_interactions(table, Split(by="time", valid=0.49, test=0.1)).to_numpy()
    hours = (table["timestamp"] - START).dt.total_hours().to_numpy()
    assert set(part[hours == 10]) == {TEST}
    assert (part == TEST).sum() == 10
    assert (part == VALID).sum() == 2


def test_leave_last_out_takes_each_users_last_two_rows() -> None:
    table = rows(["a"] * 4 + ["b"] * 2 + ["c"] * 3, [3, 1, 2, 0, 5, 6, 9, 9, 9])
    part = split_interactions(table, Split(by="leave_last_out"))
    by_user = table.with_columns(part).group_by("user_id", maintain_order=True).agg("part", "item_id")
    assert by_user.rows() == [
        ("a", [TRAIN, TRAIN, VALID, TEST], ["i3", "i1", "i2", "i0"]),
        ("b", [TRAIN, TRAIN], ["i4", "i5"]),
        ("c", [TRAIN, VALID, TEST], ["i6", "i7", "i8"]),
    ]


def test_leave_last_out_holds_out_the_last_items_and_not_repeats_of_known_ones() -> None:
    # User a: x y z, then y and x again; the last new item is z. User b has three rows, but two items.
    table = rows(["a"] * 7 + ["b"] * 3, list(range(10)))
    table = table.with_columns(item_id=pl.Series(["x", "x", "y", "x", "z", "y", "z", "x", "y", "x"]))
    part = split_interactions(table, Split(by="leave_last_out"))
    assert part.to_list() == [TRAIN, TRAIN, VALID, VALID, TEST, TEST, TEST, TRAIN, TRAIN, TRAIN]


@given(items=st.lists(st.integers(0, 5), min_size=12, max_size=60), num_users=st.integers(1, 4))
def test_the_held_out_item_of_each_user_is_new_and_the_only_new_one(items: list[int], num_users: int) -> None:
    table = rows([f"u{n % num_users}" for n in range(len(items))], list(range(len(items))))
    table = table.with_columns(item_id=pl.Series([f"i{n}" for n in items]))
    try:
        part = split_interactions(table, Split(by="leave_last_out"))
    except DataError:
        assert table.group_by("user_id").agg(pl.col("item_id").n_unique())["item_id"].max() < 3  # type: ignore[operator]
        return
    for (_,), own in table.with_columns(part).group_by("user_id"):
        if own["item_id"].n_unique() < 3:
            assert set(own["part"]) == {TRAIN}
            continue
        assert own["part"].is_sorted()
        for later in (VALID, TEST):
            known = own.filter(pl.col("part") < later)["item_id"].to_list()
            fresh = [i for i in own.filter(pl.col("part") == later)["item_id"] if i not in known]
            assert len(set(fresh)) == 1
            assert own.filter(pl.col("part") == later)["item_id"][0] == fresh[0]


def test_cold_items_gives_all_rows_of_an_item_to_the_part_of_the_item() -> None:
    """The parts of items are those that item labels have, whatever rows there are."""
    split = Split(by="cold_items", valid=0.2, test=0.1)
    ids = [f"item-{n}" for n in range(12)]
    taken = np.random.default_rng(0).integers(0, 12, 400)
    table = rows([f"u{n % 9}" for n in range(400)], list(range(400)))
    table = table.with_columns(item_id=pl.Series([ids[n] for n in taken]))
    part = split_interactions(table, split)
    of_item = dict(zip(ids, split_by_id(pl.Series(ids), split).to_list(), strict=True))
    assert "".join(str(of_item[item]) for item in ids) == HASHED
    assert part.to_list() == [of_item[item] for item in table["item_id"].to_list()]
    assert (part.name, part.dtype) == ("part", pl.Int8)
    chosen = np.random.default_rng(1).permutation(400)[:150]
    assert split_interactions(table[chosen], split).to_list() == part.gather(chosen).to_list()
    other = split_interactions(table, split.model_copy(update={"seed": 1}))
    assert (other != part).any()


def many(count: int) -> pl.DataFrame:
    """Rows of a few users, items, events and times, all different in at least one of them."""
    n = np.arange(count)
    table = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in n % 7],
            "item_id": [f"i{i}" for i in n // 7 % 11],
            "event": np.where(n // 77 % 2, "view", "cart"),
            "timestamp": [START + timedelta(hours=int(h)) for h in n // 154],
        }
    )
    assert table.n_unique() == count
    return table


def test_random_split_keeps_every_row_where_it_is() -> None:
    """A champion of an older data version must not have learned from what is a test row now."""
    split = Split(by="random", valid=0.2, test=0.2)
    table = many(20_000)
    part = split_interactions(table, split).to_numpy()
    shares = np.bincount(part, minlength=3) / table.height
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.015)
    # Fewer rows, in another order, with a rating that was corrected since.
    chosen = np.random.default_rng(0).permutation(table.height)[:5_000]
    fewer = split_interactions(table[chosen].with_columns(rating=pl.lit(1.0)), split).to_numpy()
    assert (fewer == part[chosen]).all()
    # The same row twice is in one part, not in training and test.
    assert (split_interactions(pl.concat([table, table]), split).to_numpy() == np.tile(part, 2)).all()
    # Written down once, so that no later version moves rows between parts unnoticed.
    assert "".join(map(str, part[:24])) == DRAWN


@pytest.mark.parametrize("column", ["user_id", "item_id", "event", "timestamp"])
def test_random_split_looks_at_the_whole_row(column: str) -> None:
    """Rows that differ in one column alone are drawn one by one."""
    count, split = 2_000, Split(by="random", valid=0.1, test=0.3)
    same = rows(["u"], [0]).select(pl.all().repeat_by(count).explode())
    texts = pl.Series([f"x{n}" for n in range(count)])
    times = pl.Series([START + timedelta(microseconds=n) for n in range(count)])
    fresh = (times if column == "timestamp" else texts).alias(column)
    part = split_interactions(same.with_columns(fresh), split).to_numpy()
    assert np.bincount(part, minlength=3) / count == pytest.approx([0.6, 0.1, 0.3], abs=0.04)


def test_seeds_of_the_random_split_are_independent_and_a_smaller_test_part_lies_inside_a_larger() -> None:
    table = many(10_000)

    def drawn(seed: int, test: float = 0.1) -> np.ndarray:
        return split_interactions(table, Split(by="random", test=test, seed=seed)).to_numpy() == TEST

    test = [drawn(seed) for seed in range(6)]
    for one in range(6):
        for other in range(one):
            assert (test[one] & test[other]).mean() == pytest.approx(0.01, abs=0.005), (one, other)
    larger = drawn(0, 0.3)
    assert larger[test[0]].all()
    assert larger.mean() == pytest.approx(0.3, abs=0.02)


def test_a_million_rows_are_drawn_in_seconds() -> None:
    count = 1_000_000
    n = pl.int_range(count, eager=True)
    table = pl.DataFrame(
        {
            "user_id": (n % 50_000).cast(pl.String),
            "item_id": (n % 9_973).cast(pl.String),
            "event": "rating",
            "timestamp": pl.from_epoch(n, time_unit="s").dt.replace_time_zone("UTC"),
        }
    )
    started = time.perf_counter()
    part = split_interactions(table, Split(by="random"))
    assert time.perf_counter() - started < 20  # about one second on a free core
    assert np.bincount(part.to_numpy()).tolist() == pytest.approx([800_000, 100_000, 100_000], rel=0.01)


@pytest.mark.parametrize(
    ("by", "hours", "users", "empty"),
    [
        ("time", [0] * 30, ["u"] * 30, "train"),
        ("time", [0] * 15 + [1] * 15, ["u"] * 30, "valid"),
        ("random", [0, 1, 2], ["u"] * 3, "valid"),
        ("leave_last_out", [0, 1, 2, 3], ["a", "a", "b", "b"], "valid"),
        ("cold_items", [0, 1, 2, 3], ["a", "a", "b", "b"], "valid"),
    ],
)
def test_an_empty_part_is_refused_with_the_way_out(by: str, hours: list[int], users: list[str], empty: str) -> None:
    split = Split.model_validate({"by": by})
    with pytest.raises(DataError, match=rf"split by {by}: the {empty} part is empty \({len(hours)} inter.*split\."):
        split_interactions(rows(users, hours), split)


def test_the_hash_split_keeps_every_id_where_it_is() -> None:
    split = Split(valid=0.2, test=0.1)
    ids = [f"item-{n}" for n in range(5000)]
    part = split_by_id(pl.Series(ids), split).to_numpy()
    shares = np.bincount(part, minlength=3) / len(ids)
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.015)
    # More ids, in another order, leave the others' parts alone.
    more = split_by_id(pl.Series(["new", *reversed(ids)]), split).to_numpy()
    assert (more[1:][::-1] == part).all()
    # Written down once, so that no later version moves ids between parts unnoticed.
    assert "".join(map(str, part[:12])) == HASHED
    other = split_by_id(pl.Series(ids), Split(valid=0.2, test=0.1, seed=1)).to_numpy()
    assert (other != part).mean() > 0.2


def test_the_hash_split_is_as_even_as_chance_for_ids_in_a_row() -> None:
    ids = pl.Series([f"i{n:04d}" for n in range(1000)])
    shares = np.array(
        [np.bincount(split_by_id(ids, Split(seed=seed)).to_numpy(), minlength=3) / 1000 for seed in range(30)]
    )
    # The standard deviation of the share of 1000 fair draws at 10 % is 0.0095.
    assert shares[:, 1:].mean(axis=0) == pytest.approx([0.1, 0.1], abs=4 * 0.0095 / np.sqrt(30))
    assert (np.abs(shares[:, 1:] - 0.1) < 4 * 0.0095).all()
    assert 0.005 < shares[:, 2].std() < 0.015


def test_seeds_of_the_hash_split_are_independent() -> None:
    ids = pl.Series([f"i{n:04d}" for n in range(2000)])
    test = [split_by_id(ids, Split(seed=seed)).to_numpy() == TEST for seed in range(12)]
    for one in range(12):
        for other in range(one):
            both = (test[one] & test[other]).mean()
            assert both == pytest.approx(0.01, abs=0.01), f"seeds {one} and {other} share {both:.1%} of the ids"


def test_a_million_ids_are_divided_in_seconds() -> None:
    ids = pl.Series(np.arange(1_000_000)).cast(pl.String)
    started = time.perf_counter()
    part = split_by_id(ids, Split())
    assert time.perf_counter() - started < 20  # about two seconds on a free core
    assert np.bincount(part.to_numpy()).tolist() == pytest.approx([800_000, 100_000, 100_000], rel=0.01)
