"""MovieTweetings: film ratings collected from tweets.

The files look like MovieLens 1m (ratings.dat, movies.dat or items.dat, users.dat, `::` between fields) with
two differences by which they are told apart: ids are zero-padded IMDb ids, and ratings run to 10. Ratings
are halved to the 0.5 to 5 star scale of the scenario `video`; the few ratings of 0 become 0.0, which
validation moves into quarantine. users.dat maps users to Twitter accounts and is not read.

Described in S. Dooms, T. De Pessemier and L. Martens, "MovieTweetings", CrowdRec at RecSys 2013.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mtrec.data.contract import Tables
from mtrec.data.reading import read_delimited
from mtrec.data.sources.shape import shape_tables, split_list, split_year
from mtrec.errors import DataError

_PEEK_BYTES = 1 << 18


def is_movietweetings(folder: Path) -> bool:
    """Whether the folder holds MovieTweetings: IMDb ids padded to seven digits, or ratings above 5."""
    movies, ratings = _movies(folder), folder / "ratings.dat"
    if movies is None or not ratings.is_file():
        return False
    ids = [line.partition("::")[0] for line in _first_lines(movies)]
    if any(len(item) >= 7 and item.startswith("0") and item.isdigit() for item in ids):
        return True
    fields = [line.split("::") for line in _first_lines(ratings)]
    return any(len(field) > 2 and field[2].strip() in ("6", "7", "8", "9", "10") for field in fields)


def read(folder: Path) -> Tables:
    """Read a MovieTweetings folder.

    Raises:
        DataError: a file is missing or broken.
    """
    movies_path = _movies(folder)
    if movies_path is None or not (folder / "ratings.dat").is_file():
        raise DataError(
            f"{folder}: no MovieTweetings layout (looked for ratings.dat + movies.dat or items.dat). "
            "Give the folder that holds these files."
        )
    ratings = read_delimited(
        folder / "ratings.dat", separator="::", columns=["user_id", "item_id", "rating", "timestamp"]
    )
    movies = read_delimited(movies_path, separator="::", columns=["item_id", "title", "genres"])
    items = movies.with_columns(*split_year(), split_list("genres", "|"))
    return shape_tables(items, ratings.with_columns(_halved("rating"), event=pl.lit("rating")))


def _halved(column: str) -> pl.Expr:
    """Half of every number; a text that is no number stays as it is."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    half = (number / 2).cast(pl.String)
    return pl.when(number.is_not_null()).then(half).otherwise(pl.col(column)).alias(column)


def _movies(folder: Path) -> Path | None:
    for name in ("movies.dat", "items.dat"):
        if (folder / name).is_file():
            return folder / name
    return None


def _first_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(_PEEK_BYTES).decode("latin-1").splitlines()
