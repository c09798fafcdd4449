"""Wrong files and layouts: each gives one line that says what is wrong and where."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.sources import read_source
from mtrec.errors import ConfigError, DataError, InputError

RATINGS = b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n2,1,3.0,964982704\n"
MOVIES = b"movieId,title,genres\n1,Toy Story (1995),Comedy\n"
RATINGS_DAT = b"1::1193::5::978300760\n"
MOVIES_DAT = b"1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
REVIEW = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1252800000}
META = {"asin": "B1", "title": "Kite"}
MAPPED: dict[str, Any] = {
    "items": {"file": "goods.csv", "columns": {"item_id": "code", "title": "name"}},
    "interactions": {
        "file": "log.csv", "columns": {"user_id": "who", "item_id": "code", "timestamp": "day"},
        "constants": {"event": "buy"},
    },
}  # fmt: skip
GOODS = b"code,name\nA,Mug\n"
LOG = b"who,code,day\nu,A,2024-01-01\n"


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(columns)


@dataclass(frozen=True)
class Bad:
    """One wrong input: files under the data folder, and what the error must say."""

    name: str
    says: list[str]
    """Parts of the message; {data} stands for the folder."""
    files: dict[str, bytes | pl.DataFrame] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=lambda: {"type": "auto"})
    data: str | None = "."
    """What is given as --data, relative to the folder; None gives nothing."""
    error: type[InputError] = DataError


def csv(ratings: bytes = RATINGS, movies: bytes = MOVIES) -> dict[str, bytes | pl.DataFrame]:
    return {"ratings.csv": ratings, "movies.csv": movies}


def amazon(reviews: bytes | None = None, meta: bytes | None = None) -> dict[str, bytes | pl.DataFrame]:
    return {"Toys.json": lines(REVIEW) if reviews is None else reviews, "meta_Toys.json": meta or lines(META)}


def contract(**tables: bytes | pl.DataFrame) -> dict[str, bytes | pl.DataFrame]:
    good = {
        "users": parquet(user_id=["u"]),
        "items": parquet(item_id=["i"], title=["t"]),
        "interactions": parquet(user_id=["u"], item_id=["i"], event=["x"], timestamp=[1]),
    }
    return {f"{name}.parquet": content for name, content in {**good, **tables}.items()}


def where(condition: str) -> dict[str, Any]:
    return {**TABLES, "interactions": {**MAPPED["interactions"], "where": [condition]}}


def mapped(goods: bytes = GOODS, log: bytes = LOG) -> dict[str, bytes | pl.DataFrame]:
    return {"goods.csv": goods, "log.csv": log}


TABLES = {"type": "tables", **MAPPED}
FULL = parquet(user_id=["u"], item_id=["i"], event=["x"], timestamp=[1])

BAD = [
    # the place
    Bad("no data given", ["scenario 'shop' needs data", "give --data FOLDER"], data=None),
    Bad("no such folder", ["{data}/nowhere: no such folder"], data="nowhere"),
    Bad("a file for a folder", ["{data}/ratings.csv: --data takes a folder"], csv(), data="ratings.csv"),
    Bad("a zip for a folder", ["{data}/ml.zip", "Unpack it"], {"ml.zip": b"PK\x03\x04"}, data="ml.zip"),
    Bad("an empty folder", ["{data}: no known layout", "the folder holds: nothing"]),
    Bad("unknown files", ["no known layout", "looked for", "sales.xlsx"], {"sales.xlsx": b"PK\x03\x04"}),
    Bad(
        "one level too high",
        ["one level down", "{data}/ml-1m"],
        {"ml-1m/ratings.csv": RATINGS, "ml-1m/movies.csv": MOVIES},
    ),
    Bad("half a MovieLens", ["no MovieLens layout"], {"ratings.csv": RATINGS}, {"type": "movielens"}),
    Bad(
        "half a MovieTweetings",
        ["no MovieTweetings layout"],
        {"ratings.dat": RATINGS_DAT},
        {"type": "movietweetings"},
    ),
    # the file
    Bad("an empty file", ["{data}/ratings.csv: the file is empty"], csv(ratings=b"")),
    Bad("only line ends", ["{data}/movies.csv: the file is empty"], csv(movies=b"\n\r\n\n")),
    Bad("only a header", ["{data}/ratings.csv: the file has a header and no rows"], csv(ratings=RATINGS[:32])),
    Bad("a zip archive named csv", ["{data}/movies.csv", "a zip archive"], csv(movies=b"PK\x03\x04\x14\x00")),
    Bad(
        "an HTML page named csv",
        ["{data}/ratings.csv", "HTML page"],
        csv(ratings=b"<!DOCTYPE html>\n<html></html>"),
    ),
    Bad(
        "a Git LFS pointer",
        ["{data}/ratings.csv", "Git LFS pointer"],
        csv(ratings=b"version https://git-lfs.github.com/spec/v1\n"),
    ),
    Bad("binary data", ["{data}/ratings.csv", "binary data"], csv(ratings=bytes(range(32)) * 40)),
    Bad(
        "broken gzip",
        ["{data}/ratings.csv.gz: the gzip data is broken"],
        {"ratings.csv.gz": gzip.compress(RATINGS)[:-9], "movies.csv": MOVIES},
    ),
    Bad(
        "half a UTF-16 character",
        ["{data}/movies.csv: begins as utf-16 and breaks"],
        csv(movies=MOVIES.decode().encode("utf-16")[:-1]),
    ),
    Bad(
        "a folder named like a file",
        ["{data}/goods.csv: is a folder"],
        {"goods.csv/x": b"", "log.csv": LOG},
        TABLES,
    ),
    # the columns and lines
    Bad(
        "no header",
        [
            "{data}/ratings.csv",
            "columns 'userId', 'movieId', 'rating', 'timestamp' are missing (found: 1, column_2",
        ],
        csv(ratings=b"1,,4.0,964982703\n2,1,3.0,964982704\n"),
    ),
    Bad(
        "a column is missing",
        ["{data}/movies.csv: column 'genres' is missing (found: movieId, title)"],
        csv(movies=b"movieId,title\n1,Up\n"),
    ),
    Bad(
        "wrong separator",
        ["{data}/ratings.csv", "'movieId'", "are missing (found: userId;movieId"],
        csv(ratings=RATINGS.replace(b",", b";")),
    ),
    Bad(
        "a column twice",
        ["{data}/movies.csv: the header names 'title' more than once"],
        csv(movies=b"movieId,title,title,genres\n1,a,b,c\n"),
    ),
    Bad(
        "a line too long",
        ["{data}/movies.csv:3: 4 fields where 3 columns"],
        csv(movies=MOVIES + b"2,American President, The (1995),Drama\n"),
    ),
    Bad(
        "a line too long in .dat",
        ["{data}/ratings.dat:2: 6 fields where 4"],
        {"ratings.dat": RATINGS_DAT + b"1::2::3::4::5::6\n", "movies.dat": MOVIES_DAT},
    ),
    Bad(
        "a quote that never closes",
        ["{data}/movies.csv:3: broken quotes"],
        csv(movies=MOVIES + b'2,"American President\n3,Up,Drama\n'),
    ),
    Bad(
        "text after a quote",
        ["{data}/movies.csv:2: broken quotes"],
        csv(movies=b'movieId,title,genres\n1,"Up" (2009),Drama\n'),
    ),
    # JSON lines
    Bad("broken JSON", ["{data}/Toys.json:2: not valid JSON"], amazon(lines(REVIEW) + b'{"asin": \n')),
    Bad("a JSON array", ["{data}/Toys.json: holds one JSON array"], amazon(json.dumps([REVIEW]).encode())),
    Bad("JSON that is no object", ["{data}/meta_Toys.json:2: a JSON int"], amazon(meta=lines(META, 7))),
    Bad(
        "metadata that is neither JSON nor Python",
        ["{data}/meta_Toys.json:1: neither JSON nor"],
        amazon(meta=b"{'asin': open('x')}\n"),
    ),
    Bad(
        "metadata without reviews", ["{data}/meta_Toys.json: no reviews beside it"], {"meta_Toys.json": lines(META)}
    ),
    Bad(
        "two files of the same reviews",
        ["both Toys.json and Toys_5.json"],
        {n: lines(REVIEW) for n in ("Toys.json", "Toys_5.json", "meta_Toys.json")},
    ),
    Bad(
        "reviews of another shop",
        ["{data}/Toys.json: neither Amazon reviews", "found: stars"],
        amazon(lines({"stars": 1})),
    ),
    Bad(
        "reviews without stars",
        ["{data}/Toys.json: column 'reviewerID' is missing"],
        amazon(lines({**REVIEW, "reviewerID": None})),
    ),
    Bad(
        "metadata without titles",
        ["{data}/meta_Toys.json: column 'title' is missing"],
        amazon(meta=lines({"asin": "B1"})),
    ),
    # mapped tables
    Bad(
        "a mapped file is missing",
        ["{data}/goods.csv: no such file (the folder holds: log.csv)"],
        {"log.csv": LOG},
        TABLES,
    ),
    Bad(
        "a mapped column is missing",
        ["{data}/goods.csv: column 'name' is missing (found: code, label)", "'shop' under source.items.columns"],
        mapped(goods=b"code,label\nA,Mug\n"),
        TABLES,
    ),
    Bad(
        "nothing passes the filter",
        ["{data}/log.csv: no row is left after source.interactions.where"],
        mapped(),
        where("code = 'Z'"),
    ),
    Bad(
        "a filter on a missing column",
        ["{data}/log.csv: source.interactions.where: 'price > 0' cannot be run", "price"],
        mapped(),
        where("price > 0"),
    ),
    Bad(
        "a filter that is no SQL",
        ["{data}/log.csv: source.interactions.where: 'code ==== 3' cannot be run"],
        mapped(),
        where("code ==== 3"),
    ),
    Bad(
        "a mapping lacks a column",
        ["scenario 'shop': source.interactions.columns: 'event' is not mapped"],
        mapped(),
        {**TABLES, "interactions": {**MAPPED["interactions"], "constants": {}}},
        error=ConfigError,
    ),
    Bad(
        "a parquet that is none",
        ["{data}/goods.csv: not a readable Parquet file"],
        {"goods.csv": b"PAR1 and then nothing", "log.csv": LOG},
        TABLES,
    ),
    # contract tables
    Bad(
        "contract items without title",
        ["{data}/items.parquet: column 'title' is missing (found: item_id)"],
        contract(items=parquet(item_id=["i"])),
    ),
    Bad(
        "contract interactions without rows",
        ["{data}/interactions.parquet: the table has no rows"],
        contract(interactions=FULL.clear()),
    ),
    Bad(
        "a contract table that is CSV",
        ["{data}/items.parquet: not a readable Parquet file"],
        contract(items=b"item_id,title\ni,t\n"),
    ),
    # dials
    Bad(
        "wrong dials",
        ["source.options: num_users: ", "(got -1)", "colour: unknown dial"],
        source={"type": "simulated", "options": {"num_users": -1, "colour": 3}},
        data=None,
        error=ConfigError,
    ),
]


def scenario(source: dict[str, Any]) -> Scenario:
    return parse_scenario({"name": "shop", "source": source, "tasks": {"next_item": {"type": "next_item"}}})


def lay_out(folder: Path, files: dict[str, bytes | pl.DataFrame]) -> None:
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.write_parquet(path)


def test_the_table_is_long_and_its_entries_distinct() -> None:
    assert len(BAD) >= 40
    assert len({bad.name for bad in BAD}) == len(BAD)
    assert len({tuple(bad.says) for bad in BAD}) == len(BAD)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name.replace(" ", "-"))
def test_bad_input_gives_one_clear_line(bad: Bad, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    lay_out(folder, bad.files)
    data = None if bad.data is None else folder if bad.data == "." else folder / bad.data
    with pytest.raises(bad.error) as caught:
        read_source(scenario(bad.source), data)
    message = str(caught.value)
    for part in bad.says:
        assert part.replace("{data}", str(folder)) in message, message
    assert "\n" not in message
    assert len(message) < 1000
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("files", "source"),
    [
        (csv(), {"type": "auto"}),
        (mapped(), TABLES),
        ({"ratings.dat": RATINGS_DAT, "movies.dat": MOVIES_DAT}, {"type": "auto"}),
        (amazon(), {"type": "auto"}),
        (contract(), {"type": "auto"}),
    ],
    ids=["csv", "tables", "dat", "amazon", "contract"],
)
def test_the_files_that_the_table_spoils_are_good(
    files: dict[str, bytes | pl.DataFrame], source: dict[str, Any], tmp_path: Path
) -> None:
    lay_out(tmp_path / "data", files)
    tables = read_source(scenario(source), tmp_path / "data")
    assert tables.items.height == 1
    assert 1 <= tables.interactions.height <= 2
