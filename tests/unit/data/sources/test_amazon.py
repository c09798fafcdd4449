import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.data.sources import amazon
from mtrec.errors import DataError

REVIEW = {
    "reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. McDonald", "helpful": [2, 3],
    "reviewText": "I bought this for my husband", "overall": 5.0, "summary": "Heavenly",
    "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009",
}  # fmt: skip
META_2014 = {
    "asin": "0000013714", "title": "Girls Ballet Tutu", "price": 3.17, "related": {"also_bought": ["B00"]},
    "salesRank": {"Toys & Games": 211836}, "brand": "Coxlures", "description": "It's pink",
    "categories": [["Sports & Outdoors", "Other Sports", "Dance", "Skirts"], ["Toys", "Dance"]],
}  # fmt: skip
META_2018 = {
    "asin": "0000013714", "title": "Girls Ballet Tutu", "price": "$1,003.17", "rank": "1 in Toys",
    "brand": "Coxlures", "description": ["It is pink.", "Very pink."], "also_buy": ["B00"],
    "category": ["Sports & Outdoors", "Other Sports", "Dance"],
}  # fmt: skip
REVIEW_2023 = {
    "rating": 4.0, "title": "Fine", "text": "…", "images": [], "asin": "B0CHILD", "parent_asin": "B0PARENT",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "verified_purchase": True,
}  # fmt: skip
META_2023 = {
    "main_category": "All Beauty", "title": "Hair Oil", "average_rating": 4.8, "rating_number": 10,
    "features": [], "description": [], "price": None, "store": "Howard", "categories": [],
    "details": {"Brand": "x"}, "parent_asin": "B0PARENT",
}  # fmt: skip


def write(path: Path, *rows: Any, literal: bool = False) -> None:
    text = "".join((repr(row) if literal else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_2014_layout_with_python_literal_metadata(tmp_path: Path) -> None:
    write(tmp_path / "reviews_Toys_5.json.gz", REVIEW, {**REVIEW, "overall": 1.0, "asin": "NOWHERE"})
    write(tmp_path / "meta_Toys.json.gz", META_2014, {"asin": "0000031852"}, literal=True)
    assert amazon.layout(tmp_path) == "2014/2018"
    tables = amazon.read(tmp_path)
    assert tables.interactions.rows() == [
        ("A2SUAM1J3GNN3B", "0000013714", "rating", 5.0, 1252800000),
        ("A2SUAM1J3GNN3B", "NOWHERE", "rating", 1.0, 1252800000),
    ]
    assert tables.items.to_dicts() == [
        {
            "item_id": "0000013714", "title": "Girls Ballet Tutu", "description": "It's pink",
            "category": "Other Sports", "tags": ["Dance", "Skirts", "Toys"], "brand": "Coxlures", "price": 3.17,
        },
        {
            "item_id": "0000031852", "title": None, "description": None, "category": None, "tags": [],
            "brand": None, "price": None,
        },
    ]  # fmt: skip
    assert tables.users["user_id"].to_list() == ["A2SUAM1J3GNN3B"]


def test_2018_layout(tmp_path: Path) -> None:
    write(tmp_path / "Toys.json", REVIEW)
    write(tmp_path / "meta_Toys.json", META_2018, {**META_2018, "asin": "B", "price": "$5 - $9", "description": []})
    items = amazon.read(tmp_path).items
    assert items["description"].to_list() == ["It is pink. Very pink.", None]
    assert items["category"].to_list() == ["Other Sports", "Other Sports"]
    assert items["tags"].to_list() == [["Dance"], ["Dance"]]
    assert items["price"].to_list() == ["1003.17", "$5 - $9"], "a range stays for validation to judge"


def test_2023_layout(tmp_path: Path) -> None:
    write(tmp_path / "All_Beauty.jsonl.gz", REVIEW_2023)
    write(tmp_path / "meta_All_Beauty.jsonl", META_2023, {**META_2023, "parent_asin": "B1", "price": "9.99"})
    assert amazon.layout(tmp_path) == "2023"
    tables = amazon.read(tmp_path)
    assert tables.interactions.rows() == [
        ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B0PARENT", "rating", 4.0, 1588687728923)
    ]
    assert tables.items.row(0) == ("B0PARENT", "Hair Oil", None, "All Beauty", [], "Howard", None)
    assert tables.items["price"].to_list() == [None, 9.99]


def test_sums_over_the_whole_period_never_reach_the_items(tmp_path: Path) -> None:
    write(tmp_path / "X.jsonl", REVIEW_2023)
    write(tmp_path / "meta_X.jsonl", META_2023)
    leaky = {"average_rating", "rating_number", "salesRank", "rank", "also_buy", "also_view", "related"}
    assert not leaky & set(amazon.read(tmp_path).items.columns)


def test_several_categories_are_joined(tmp_path: Path) -> None:
    for name, asin in (("Toys", "T1"), ("Books", "B1")):
        write(tmp_path / f"{name}.json", {**REVIEW, "asin": asin})
        write(tmp_path / f"meta_{name}.json", {**META_2018, "asin": asin})
    tables = amazon.read(tmp_path)
    assert sorted(tables.items["item_id"]) == ["B1", "T1"]
    assert tables.interactions.height == 2
    assert isinstance(tables.items.schema["tags"], pl.List)


def test_metadata_without_reviews_and_twofold_reviews_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "meta_Toys.json", META_2018)
    with pytest.raises(DataError, match=r"meta_Toys\.json: no reviews beside it \(looked for Toys, Toys_5"):
        amazon.layout(tmp_path)
    write(tmp_path / "Toys.json", REVIEW)
    write(tmp_path / "Toys_5.json.gz", REVIEW)
    with pytest.raises(DataError, match=r"both Toys\.json and Toys_5\.json\.gz hold reviews of Toys"):
        amazon.read(tmp_path)


def test_reviews_of_no_known_year_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "Toys.json", {"who": 1, "what": 2})
    write(tmp_path / "meta_Toys.json", META_2018)
    with pytest.raises(DataError, match=r"neither Amazon reviews of 2014/2018 .* found: who, what"):
        amazon.read(tmp_path)


def test_a_key_that_no_line_has_is_named(tmp_path: Path) -> None:
    write(tmp_path / "Toys.json", {k: v for k, v in REVIEW.items() if k != "unixReviewTime"})
    write(tmp_path / "meta_Toys.json", META_2018)
    with pytest.raises(DataError, match=r"Toys\.json: column 'unixReviewTime' is missing"):
        amazon.read(tmp_path)
