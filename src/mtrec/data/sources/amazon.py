"""Amazon reviews with product metadata, as published by McAuley's group.

    2014   reviews_X.json.gz or reviews_X_5.json.gz, meta_X.json.gz (lines are Python literals, not JSON)
    2018   X.json.gz or X_5.json.gz, meta_X.json.gz
    2023   X.jsonl or X.jsonl.gz, meta_X.jsonl or .gz (parent_asin, time in milliseconds)

A review becomes an event `rating`; with `verified` purchases it stays a rating, since the time of the
purchase is unknown. Several categories may lie in one folder; their rows are joined.

Items get title, description, category (the second level of the product's path, as the first is the same for
all), tags (the rest of the path), brand and price. Left out on purpose: average_rating, rating_number,
salesRank, rank, also_buy, also_view, related, bought_together. They sum up behaviour of the whole period,
the test part included. Review texts are left out too: they are written after the rating.

Described in J. Ni, J. Li and J. McAuley, "Justifying Recommendations using Distantly-Labeled Reviews and
Fine-Grained Aspects", EMNLP 2019, and Y. Hou et al., arXiv:2403.03952 (2023).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import polars as pl

from mtrec.data.contract import Tables
from mtrec.data.reading import require_columns
from mtrec.data.reading_json import first_object, read_json_lines
from mtrec.data.sources.shape import shape_tables
from mtrec.errors import DataError

Layout = Literal["2014/2018", "2023"]

_NAME = re.compile(r"(?P<name>.+?)\.(json|jsonl)(\.gz)?$")
_REVIEW_KEYS: dict[Layout, dict[str, str]] = {
    "2014/2018": {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"},
    "2023": {"user_id": "user_id", "item_id": "parent_asin", "rating": "rating", "timestamp": "timestamp"},
}
_META_KEYS: dict[Layout, tuple[str, ...]] = {
    "2014/2018": ("asin", "title", "description", "categories", "category", "brand", "price"),
    "2023": ("parent_asin", "title", "description", "categories", "main_category", "store", "price"),
}


def pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The (reviews, metadata) files of the folder, by name.

    Raises:
        DataError: a metadata file has no reviews, or two candidates for them.
    """
    files = {found["name"]: path for path in sorted(folder.iterdir()) if (found := _NAME.match(path.name))}
    result = []
    for name, meta in files.items():
        if not name.startswith("meta_"):
            continue
        category = name.removeprefix("meta_")
        names = (category, f"{category}_5", f"reviews_{category}", f"reviews_{category}_5")
        reviews = [files[n] for n in names if n in files]
        if not reviews:
            raise DataError(f"{meta}: no reviews beside it (looked for {', '.join(names)} as .json or .jsonl)")
        if len(reviews) > 1:
            found_names = " and ".join(path.name for path in reviews)
            raise DataError(f"{folder}: both {found_names} hold reviews of {category}; keep one of them")
        result.append((reviews[0], meta))
    return result


def layout(folder: Path) -> Layout | None:
    """Which Amazon layout the folder holds, if any.

    Raises:
        DataError: as `pairs`, or the first review cannot be read.
    """
    found = pairs(folder)
    return _layout(found[0][0]) if found else None


def read(folder: Path) -> Tables:
    """Read every pair of reviews and metadata in the folder.

    Raises:
        DataError: no pair, a broken line (named), or a key that no line has.
    """
    found = pairs(folder)
    if not found:
        raise DataError(
            f"{folder}: no Amazon layout (looked for meta_X.json or meta_X.jsonl with the reviews X beside it, "
            "gzipped or not). Give the folder that holds these files."
        )
    reviews, items = [], []
    for reviews_path, meta_path in found:
        version = _layout(reviews_path)
        reviews.append(_reviews(reviews_path, version))
        items.append(_items(meta_path, version))
    return shape_tables(pl.concat(items, how="diagonal"), pl.concat(reviews))


def _layout(reviews: Path) -> Layout:
    keys = first_object(reviews).keys()
    if "parent_asin" in keys:
        return "2023"
    if "asin" in keys and "overall" in keys:
        return "2014/2018"
    raise DataError(
        f"{reviews}: neither Amazon reviews of 2014/2018 (asin, overall) nor of 2023 (parent_asin); "
        f"found: {', '.join(list(keys)[:12])}"
    )


def _reviews(path: Path, version: Layout) -> pl.DataFrame:
    keys = _REVIEW_KEYS[version]
    frame = read_json_lines(path, list(keys.values()))
    empty = [key for key in keys.values() if frame[key].null_count() == frame.height]
    require_columns(frame.drop(empty), path, list(keys.values()), f"Amazon reviews of {version} have it.")
    return frame.select(
        *(_as_text(frame, old).alias(new) for new, old in keys.items()), pl.lit("rating").alias("event")
    )


def _items(path: Path, version: Layout) -> pl.DataFrame:
    frame = read_json_lines(path, _META_KEYS[version], literal=True)
    key, brand = ("parent_asin", "store") if version == "2023" else ("asin", "brand")
    required = [key, "title"]
    empty = [name for name in required if frame[name].null_count() == frame.height]
    require_columns(frame.drop(empty), path, required, f"Amazon metadata of {version} has it.")
    levels = [_as_list(frame, name) for name in ("categories", "category") if name in frame.columns]
    frame = frame.with_columns(pl.coalesce(*levels, pl.lit([], dtype=pl.List(pl.String))).alias("path"))
    whole = pl.col("main_category") if version == "2023" else pl.lit(None, dtype=pl.String)
    path_ = pl.col("path").list
    return frame.select(
        pl.col(key).alias("item_id"),
        _as_text(frame, "title").alias("title"),
        _as_text(frame, "description").alias("description"),
        pl.coalesce(path_.get(1, null_on_oob=True), path_.get(0, null_on_oob=True), whole).alias("category"),
        path_.slice(2).list.unique(maintain_order=True).alias("tags"),
        _as_text(frame, brand).alias("brand"),
        _price(_as_text(frame, "price")).alias("price"),
    )


def _as_text(frame: pl.DataFrame, name: str) -> pl.Expr:
    """The column as one text per row; the parts of a list are joined, an empty list is null."""
    if isinstance(frame.schema[name], pl.List):
        text = pl.col(name).list.join(" ")
        return pl.when(text != "").then(text)
    return pl.col(name)


def _as_list(frame: pl.DataFrame, name: str) -> pl.Expr:
    """The column as a list per row, null where it is null or empty."""
    column = pl.col(name) if isinstance(frame.schema[name], pl.List) else pl.concat_list(name)
    texts = column.list.drop_nulls()
    return pl.when(texts.list.len() > 0).then(texts)


def _price(text: pl.Expr) -> pl.Expr:
    """`$1,299.00` as 1299.00; any other text stays as it is, for validation to judge."""
    plain = text.str.strip_chars().str.replace_all(r"[$,]", "")
    return pl.when(text.str.contains(r"^\s*\$[0-9,]+(\.[0-9]+)?\s*$")).then(plain).otherwise(text)
