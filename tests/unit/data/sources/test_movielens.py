import gzip
from pathlib import Path

import polars as pl
import pytest

from mtrec.data.sources import movielens
from mtrec.errors import DataError

RATINGS_CSV = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,3.5,964981247\n2,1,oops,964981247\n"
MOVIES_CSV = (
    "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation\n"
    '3,"American President, The (1995)",Comedy\n4,Hyena Road,(no genres listed)\n'
)


def write_csv(folder: Path) -> Path:
    (folder / "ratings.csv").write_text(RATINGS_CSV)
    (folder / "movies.csv").write_text(MOVIES_CSV)
    return folder


def test_csv_layout(tmp_path: Path) -> None:
    assert movielens.layout(write_csv(tmp_path)) == "csv"
    tables = movielens.read(tmp_path)
    assert tables.items.to_dicts() == [
        {"item_id": "1", "title": "Toy Story", "genres": ["Adventure", "Animation"], "year": 1995},
        {"item_id": "3", "title": "American President, The", "genres": ["Comedy"], "year": 1995},
        {"item_id": "4", "title": "Hyena Road", "genres": [], "year": None},
    ]
    assert tables.interactions.rows() == [
        ("1", "1", "rating", "4.0", 964982703),
        ("1", "3", "rating", "3.5", 964981247),
        ("2", "1", "rating", "oops", 964981247),
    ]
    assert tables.users["user_id"].to_list() == ["1", "2"]


def test_csv_layout_gzipped_and_with_more_files(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(RATINGS_CSV.encode()))
    (tmp_path / "movies.csv.gz").write_bytes(gzip.compress(MOVIES_CSV.encode()))
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,1,pixar,999\n")
    tables = movielens.read(tmp_path)
    assert tables.num_rows == {"users": 2, "items": 3, "interactions": 3}
    assert "pixar" not in str(tables.items.to_dicts()), "tags would carry the test period into training"


def test_100k_layout(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t1\t5\t881251949\n")
    genres = {name: ["0"] * 19 for name in ("toys", "noir", "none")}
    genres["toys"][3:6] = ["1", "1", "1"]
    genres["noir"][10] = "1"
    genres["none"][0] = "1"
    flags = {name: "|".join(values) for name, values in genres.items()}
    lines = [
        f"1|Toy Story (1995)|01-Jan-1995||http://x|{flags['toys']}",
        f'242|"Kolya" - Cité (V)|24-Jan-1997||http://x|{flags["noir"]}',
        f"302|unknown||||{flags['none']}",
    ]
    (tmp_path / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    (tmp_path / "u.user").write_text("196|24|M|technician|85711\n186|53|F|other|T8H1N\n")
    assert movielens.layout(tmp_path) == "100k"
    tables = movielens.read(tmp_path)
    assert tables.items.to_dicts() == [
        {"item_id": "1", "title": "Toy Story", "genres": ["Animation", "Children's", "Comedy"], "year": 1995},
        {"item_id": "242", "title": '"Kolya" - Cité (V)', "genres": ["Film-Noir"], "year": 1997},
        {"item_id": "302", "title": "unknown", "genres": [], "year": None},
    ]
    assert tables.users.rows() == [("196", 24, "M", "technician", "85711"), ("186", 53, "F", "other", "T8H1N")]
    assert tables.interactions.row(0) == ("196", "242", "rating", 3, 881250949)


def test_1m_layout(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes(
        "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Misérables, Les (1995)::Drama\n".encode(
            "latin-1"
        )
    )
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-1234\n")
    assert movielens.layout(tmp_path) == "dat"
    tables = movielens.read(tmp_path)
    assert tables.items["title"].to_list() == ["James and the Giant Peach", "Misérables, Les"]
    assert tables.items["genres"].to_list() == [["Animation", "Children's"], ["Drama"]]
    assert tables.users.rows() == [
        ("1", "F", 1, "K-12 student", "48067"),
        ("2", "M", 56, "self-employed", "70072-1234"),
    ]
    assert tables.interactions.dtypes == [pl.String, pl.String, pl.String, pl.Int64, pl.Int64]


def test_10m_layout_has_half_stars_and_no_users_file(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::122::5::838985046\n1::185::4.5::838983525\n7::122::0.5::838983392\n")
    (tmp_path / "movies.dat").write_text("122::Boomerang (1992)::Comedy|Romance\n185::Net, The (1995)::Action\n")
    tables = movielens.read(tmp_path)
    assert tables.interactions["rating"].to_list() == [5.0, 4.5, 0.5]
    assert tables.users["user_id"].to_list() == ["1", "7"]
    assert tables.users.columns == ["user_id"]


def test_a_folder_without_movielens_files_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(RATINGS_CSV)
    assert movielens.layout(tmp_path) is None
    with pytest.raises(DataError, match=r"no MovieLens layout \(looked for ratings\.csv \+ movies\.csv"):
        movielens.read(tmp_path)


def test_a_missing_column_names_the_file_and_what_belongs_there(tmp_path: Path) -> None:
    write_csv(tmp_path)
    (tmp_path / "ratings.csv").write_text("user,movieId,rating\n1,2,3\n")
    with pytest.raises(DataError, match=r"ratings\.csv: columns 'userId', 'timestamp' are missing \(found: user, "):
        movielens.read(tmp_path)
