"""MovieLens, in every layout that GroupLens has published.

    csv    latest-small, latest, 20m, 25m, 32m   ratings.csv, movies.csv
    100k   u.data, u.item, u.user                latin-1, 19 genre flags per film
    dat    1m, 10m                               ratings.dat, movies.dat, users.dat (1m only), `::` between fields

Ratings become events `rating` on the scale that the file uses. The year moves out of the title into `year`,
genres become a list, "(no genres listed)" an empty one. tags.csv is not read on purpose: tags are written
over the whole period, so as an item attribute they would carry the test period into training.

Described in F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from mtrec.data.contract import Tables
from mtrec.data.reading import read_delimited, rename_columns, require_columns
from mtrec.data.sources.movietweetings import is_movietweetings
from mtrec.data.sources.shape import shape_tables, split_list, split_year
from mtrec.errors import DataError

Layout = Literal["csv", "100k", "dat"]

_NO_GENRES = ("(no genres listed)", "unknown")
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


def layout(folder: Path) -> Layout | None:
    """Which MovieLens layout the folder holds, if any."""
    if _there(folder, "ratings.csv") and _there(folder, "movies.csv"):
        return "csv"
    if (folder / "u.data").is_file() and (folder / "u.item").is_file():
        return "100k"
    both = (folder / "ratings.dat").is_file() and (folder / "movies.dat").is_file()
    return "dat" if both and not is_movietweetings(folder) else None


def read(folder: Path) -> Tables:
    """Read a MovieLens folder.

    Raises:
        DataError: no MovieLens layout, or a file is broken or lacks a column.
    """
    found = layout(folder)
    if found == "csv":
        return _read_csv(folder)
    if found == "100k":
        return _read_100k(folder)
    if found == "dat":
        return _read_dat(folder)
    raise DataError(
        f"{folder}: no MovieLens layout (looked for ratings.csv + movies.csv, u.data + u.item, "
        "ratings.dat + movies.dat). Give the folder that holds these files."
    )


def _there(folder: Path, name: str) -> Path | None:
    """The file or its gzipped form."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _read_csv(folder: Path) -> Tables:
    ratings_path, movies_path = _there(folder, "ratings.csv"), _there(folder, "movies.csv")
    assert ratings_path is not None
    assert movies_path is not None
    ratings = read_delimited(ratings_path, separator=",")
    hint = "A MovieLens {} has the columns {}."
    names = ["userId", "movieId", "rating", "timestamp"]
    require_columns(ratings, ratings_path, names, hint.format("ratings.csv", ", ".join(names)))
    movies = read_delimited(movies_path, separator=",")
    names = ["movieId", "title", "genres"]
    require_columns(movies, movies_path, names, hint.format("movies.csv", ", ".join(names)))
    items = rename_columns(movies, {"item_id": "movieId", "title": "title", "genres": "genres"})
    columns = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"}
    return shape_tables(films(items), events(rename_columns(ratings, columns)))


def _read_dat(folder: Path) -> Tables:
    ratings = read_delimited(
        folder / "ratings.dat", separator="::", columns=["user_id", "item_id", "rating", "timestamp"]
    )
    movies = read_delimited(folder / "movies.dat", separator="::", columns=["item_id", "title", "genres"])
    users = None
    if (folder / "users.dat").is_file():
        names = ["user_id", "gender", "age", "occupation", "zip_code"]
        users = read_delimited(folder / "users.dat", separator="::", columns=names)
        codes = [str(code) for code in range(len(_OCCUPATIONS_1M))]
        users = users.with_columns(pl.col("occupation").replace(codes, _OCCUPATIONS_1M))
    return shape_tables(films(movies), events(ratings), users)


def _read_100k(folder: Path) -> Tables:
    ratings = read_delimited(
        folder / "u.data", separator="\t", columns=["user_id", "item_id", "rating", "timestamp"]
    )
    flags = [f"flag_{i}" for i in range(len(_GENRES_100K))]
    names = ["item_id", "title", "release_date", "video_release_date", "imdb_url", *flags]
    movies = read_delimited(folder / "u.item", separator="|", columns=names, quoted=False)
    raised = [
        pl.when(pl.col(flag).str.strip_chars() == "1").then(pl.lit(genre))
        for flag, genre in zip(flags, _GENRES_100K, strict=True)
    ]
    items = movies.select(
        "item_id", "title", "release_date", pl.concat_str(raised, separator="|", ignore_nulls=True).alias("genres")
    )
    released = pl.col("release_date").str.extract(r"(\d{4})$").cast(pl.Int64)
    items = films(items).with_columns(pl.col("year").fill_null(released)).drop("release_date")
    users = None
    if (folder / "u.user").is_file():
        names = ["user_id", "age", "gender", "occupation", "zip_code"]
        users = read_delimited(folder / "u.user", separator="|", columns=names, quoted=False)
    return shape_tables(items, events(ratings), users)


def films(items: pl.DataFrame) -> pl.DataFrame:
    """Split the year out of `title` and `genres` into a list."""
    return items.with_columns(*split_year(), split_list("genres", "|", empty=_NO_GENRES))


def events(ratings: pl.DataFrame) -> pl.DataFrame:
    """Every rating is an event `rating`."""
    return ratings.with_columns(event=pl.lit("rating"))
