"""Cleaning: nothing is judged, and nothing but duplicates is lost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from mtrec.data.cleaning import clean
from mtrec.data.contract import TYPES, Tables

START = datetime(2026, 1, 1, tzinfo=UTC)
Row = tuple[str, str, str, float | None, int]


def tables(rows: list[Row], users: dict[str, Any] | None = None, items: dict[str, Any] | None = None) -> Tables:
    interactions = pl.DataFrame(
        [(u, i, e, r, START + timedelta(days=d)) for u, i, e, r, d in rows],
        schema=TYPES["interactions"],
        orient="row",
    )
    return Tables(
        users=pl.DataFrame(users or {"user_id": ["a", "b"]}),
        items=pl.DataFrame(items or {"item_id": ["x", "y"], "title": ["X", "Y"]}),
        interactions=interactions,
    )


def test_text_is_normalised_stripped_and_blank_becomes_missing() -> None:
    dirty = {"item_id": ["y", "x", "z"], "title": [" Cafe\u0301 ", "\t \n", "ok"], "price": [1.0, 2.0, None]}
    found, _ = clean(tables([("a", "x", "view", None, 0)], items=dirty))
    assert found.items.to_dicts() == [
        {"item_id": "x", "title": None, "price": 2.0},
        {"item_id": "y", "title": "Caf\u00e9", "price": 1.0},
        {"item_id": "z", "title": "ok", "price": None},
    ]


def test_the_last_of_repeated_interactions_counts() -> None:
    rows: list[Row] = [
        ("a", "x", "rating", 2.0, 0),
        ("a", "x", "view", None, 0),
        ("a", "x", "rating", 5.0, 0),
        ("a", "x", "rating", 3.0, 1),
    ]
    found, counts = clean(tables(rows))
    kept = found.interactions.select("event", "rating").rows()
    assert kept == [("view", None), ("rating", 5.0), ("rating", 3.0)]
    assert counts == {"duplicate_interactions": 1, "added_users": 0}


def test_rows_are_sorted_by_user_and_time_and_ties_keep_their_order() -> None:
    rows: list[Row] = [
        ("b", "x", "view", None, 3),
        ("a", "y", "view", None, 2),
        ("b", "y", "view", None, 1),
        ("a", "x", "view", None, 2),
        ("a", "x", "cart", None, 0),
    ]
    found, _ = clean(tables(rows))
    assert found.interactions.select("user_id", "item_id", "event").rows() == [
        ("a", "x", "cart"),
        ("a", "y", "view"),
        ("a", "x", "view"),
        ("b", "y", "view"),
        ("b", "x", "view"),
    ]


def test_users_known_from_interactions_alone_get_a_row() -> None:
    users = {"user_id": ["b"], "age": [30]}
    found, counts = clean(tables([("c", "x", "view", None, 0), ("a", "x", "view", None, 0)], users=users))
    assert found.users.to_dicts() == [
        {"user_id": "a", "age": None},
        {"user_id": "b", "age": 30},
        {"user_id": "c", "age": None},
    ]
    assert counts["added_users"] == 2


def test_a_missing_rating_column_is_added_empty() -> None:
    given = tables([("a", "x", "view", None, 0)])
    without = Tables(users=given.users, items=given.items, interactions=given.interactions.drop("rating"))
    found, _ = clean(without)
    assert found.interactions["rating"].to_list() == [None]
    assert found.interactions["rating"].dtype == pl.Float64


@pytest.mark.parametrize("seed", [0, 1])
def test_cleaning_twice_changes_nothing_and_the_order_of_users_and_items_does_not_matter(seed: int) -> None:
    rows: list[Row] = [("a", "x", "view", None, 0), ("b", "y", "rating", 4.0, 1), ("b", "x", "view", None, 1)]
    given = tables(rows, items={"item_id": ["x", "y"], "title": [" X", "Y "]})
    once, _ = clean(given)
    shuffled = Tables(
        users=given.users.sample(fraction=1.0, shuffle=True, seed=seed),
        items=given.items.sample(fraction=1.0, shuffle=True, seed=seed),
        interactions=given.interactions,
    )
    again, counts = clean(clean(shuffled)[0])
    assert counts == {"duplicate_interactions": 0, "added_users": 0}
    for name in ("users", "items", "interactions"):
        assert getattr(again, name).equals(getattr(once, name))
