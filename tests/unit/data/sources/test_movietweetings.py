from pathlib import Path

import pytest

from mtrec.data.sources import movielens, movietweetings
from mtrec.errors import DataError


def write(folder: Path, ratings: str, movies: str, name: str = "movies.dat") -> Path:
    (folder / "ratings.dat").write_text(ratings)
    (folder / name).write_text(movies, encoding="utf-8")
    return folder


MOVIES = "0002844::Fantômas - À l'ombre de la guillotine (1913)::Crime|Drama\n1074638::Skyfall (2012)::\n"


def test_ratings_are_halved_and_ids_keep_their_zeros(tmp_path: Path) -> None:
    write(tmp_path, "1::1074638::7::1365029107\n2::0002844::10::1365029108\n3::0002844::0::1365029109\n", MOVIES)
    tables = movietweetings.read(tmp_path)
    assert tables.interactions.rows() == [
        ("1", "1074638", "rating", 3.5, 1365029107),
        ("2", "0002844", "rating", 5.0, 1365029108),
        ("3", "0002844", "rating", 0.0, 1365029109),
    ]
    assert tables.items.rows() == [
        ("0002844", "Fantômas - À l'ombre de la guillotine", ["Crime", "Drama"], 1913),
        ("1074638", "Skyfall", [], 2012),
    ]


def test_a_rating_that_is_no_number_passes_unharmed(tmp_path: Path) -> None:
    write(tmp_path, "1::1074638::7::1\n1::0002844::ten::2\n", MOVIES)
    assert movietweetings.read(tmp_path).interactions["rating"].to_list() == ["3.5", "ten"]


@pytest.mark.parametrize(
    ("ratings", "movies", "expected"),
    [
        pytest.param("1::0002844::3::1\n", MOVIES, True, id="zero-padded ids"),
        pytest.param("1::1074638::9::1\n", "1074638::Skyfall (2012)::Action\n", True, id="ratings above five"),
        pytest.param("1::1193::5::978300760\n", "1193::Cuckoo (1975)::Drama\n", False, id="MovieLens 1m"),
        pytest.param("1::122::4.5::838985046\n", "122::Boomerang (1992)::Comedy\n", False, id="MovieLens 10m"),
    ],
)
def test_it_is_told_apart_from_movielens(tmp_path: Path, ratings: str, movies: str, expected: bool) -> None:
    write(tmp_path, ratings, movies)
    assert movietweetings.is_movietweetings(tmp_path) is expected
    assert (movielens.layout(tmp_path) == "dat") is not expected


def test_the_readmes_name_items_dat_works_too(tmp_path: Path) -> None:
    write(tmp_path, "1::0002844::8::1\n", MOVIES, name="items.dat")
    assert movietweetings.is_movietweetings(tmp_path)
    assert movietweetings.read(tmp_path).num_rows == {"users": 1, "items": 2, "interactions": 1}


def test_a_missing_file_says_what_was_looked_for(tmp_path: Path) -> None:
    assert not movietweetings.is_movietweetings(tmp_path)
    with pytest.raises(DataError, match=r"no MovieTweetings layout \(looked for ratings\.dat \+ movies\.dat"):
        movietweetings.read(tmp_path)
