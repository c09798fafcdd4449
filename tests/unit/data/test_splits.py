"""The split: what is later is never learned from, and nothing is left empty."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.config import Split
from mtrec.data.splits import TEST, TRAIN, VALID, split_by_id, split_interactions
from mtrec.errors import DataError

HASHED = "010001000110"
"""Parts of item-0 … item-11 at 20 % validation, 10 % test and seed 0."""
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(users: list[str], hours: list[int]) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "user_id": users,
            "item_id": [f"i{n}" for n in range(len(users))],
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


@given(seed=st.integers(0, 5), count=st.integers(10, 300), share=st.sampled_from([0.1, 0.25]))
def test_random_split_has_the_shares_and_depends_on_the_seed_alone(seed: int, count: int, share: float) -> None:
    table = rows(["u"] * count, list(range(count)))
    split = Split(by="random", valid=share, test=share, seed=seed)
    part = split_interactions(table, split)
    counts = np.bincount(part.to_numpy(), minlength=3)
    assert counts.tolist() == [count - 2 * round(count * share), round(count * share), round(count * share)]
    assert part.equals(split_interactions(table, split))
    if count > 50:
        other = split_interactions(table, split.model_copy(update={"seed": seed + 1}))
        assert not part.equals(other)


@pytest.mark.parametrize(
    ("by", "hours", "users", "empty"),
    [
        ("time", [0] * 30, ["u"] * 30, "train"),
        ("time", [0] * 15 + [1] * 15, ["u"] * 30, "valid"),
        ("random", [0, 1, 2], ["u"] * 3, "valid"),
        ("leave_last_out", [0, 1, 2, 3], ["a", "a", "b", "b"], "valid"),
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
    assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    # More ids, in another order, leave the others' parts alone.
    more = split_by_id(pl.Series(["new", *reversed(ids)]), split).to_numpy()
    assert (more[1:][::-1] == part).all()
    # Written down once, so that no later version moves ids between parts unnoticed.
    assert "".join(map(str, part[:12])) == HASHED
    other = split_by_id(pl.Series(ids), Split(valid=0.2, test=0.1, seed=1)).to_numpy()
    assert (other != part).mean() > 0.2
