import polars as pl
import pytest

from mtrec.data.sources.shape import shape_tables, split_list, split_year


def test_tables_take_the_contracts_order_and_types() -> None:
    items = pl.DataFrame({"price": ["1.5", "2"], "title": ["300", "7"], "item_id": ["01", "2"]})
    events = pl.DataFrame(
        {
            "timestamp": ["10", "20", "30"],
            "note": ["x", "y", "z"],
            "rating": ["4", "5", "3.5"],
            "event": ["1", "1", "1"],
            "item_id": ["01", "2", "2"],
            "user_id": ["9", "8", "9"],
        }
    )
    tables = shape_tables(items, events)
    assert tables.items.schema == {"item_id": pl.String, "title": pl.String, "price": pl.Float64}
    assert tables.interactions.columns == ["user_id", "item_id", "event", "rating", "timestamp", "note"]
    assert tables.interactions.dtypes == [pl.String, pl.String, pl.String, pl.Float64, pl.Int64, pl.String]
    assert tables.users.to_dict(as_series=False) == {"user_id": ["9", "8"]}, (
        "each user once, in order of appearance"
    )
    assert tables.items["item_id"].to_list() == ["01", "2"]


def test_dirty_values_pass_unharmed() -> None:
    items = pl.DataFrame({"item_id": ["1", None, ""], "title": [None, " ", "x"]})
    events = pl.DataFrame(
        {
            "user_id": ["1", None, "2"],
            "item_id": ["1", "9", None],
            "event": ["buy", None, "?"],
            "rating": ["4", "many", "NaN"],
            "timestamp": ["2020-01-01", "yesterday", None],
        }
    )
    tables = shape_tables(items, events)
    assert tables.interactions.to_dicts() == events.to_dicts()
    assert tables.items.to_dicts() == items.to_dicts()
    assert tables.users["user_id"].to_list() == ["1", "2"]


def test_whole_floats_become_whole_keys_in_all_tables_together() -> None:
    items = pl.DataFrame({"item_id": ["A", "B"], "title": ["a", "b"]})
    events = pl.DataFrame(
        {"user_id": ["17850.0", "13047.0"], "item_id": ["A", "B"], "event": ["x", "x"], "timestamp": ["1", "2"]}
    )
    users = pl.DataFrame({"user_id": ["17850", "13047"], "country": ["UK", "UK"]})
    tables = shape_tables(items, events, users)
    assert tables.interactions["user_id"].to_list() == tables.users["user_id"].to_list() == ["17850", "13047"]


def test_keys_that_only_look_like_floats_stay() -> None:
    items = pl.DataFrame({"item_id": ["1.0", "v1.0"], "title": ["a", "b"]})
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["1.0"], "event": ["x"], "timestamp": ["1"]})
    tables = shape_tables(items, events)
    assert tables.items["item_id"].to_list() == ["1.0", "v1.0"]
    assert tables.interactions["item_id"].to_list() == ["1.0"]


def test_split_list() -> None:
    frame = pl.DataFrame({"g": ["Action|Sci-Fi", " A | B ||", "(none)", "", None]})
    assert frame.select(split_list("g", "|", empty=["(none)"]))["g"].to_list() == [
        ["Action", "Sci-Fi"],
        ["A", "B"],
        [],
        [],
        [],
    ]


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Dead Snow 2 (2014) ", "Dead Snow 2", 2014),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", 2006),
        ("Lost (2004-)", "Lost", 2004),
        ("Land Before Time III (1995) (V)", "Land Before Time III (V)", 1995),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)",
         "City of Lost Children, The (Cité des enfants perdus, La)", 1995),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009),
        ("Babylon 5", "Babylon 5", None),
        ("1984", "1984", None),
        ("(1995)", None, 1995),
        (None, None, None),
    ],
)  # fmt: skip
def test_split_year(text: str | None, title: str | None, year: int | None) -> None:
    frame = pl.DataFrame({"title": pl.Series([text], dtype=pl.String)}).with_columns(*split_year())
    assert frame.row(0) == (title, year)
