from pathlib import Path

import polars as pl
import pytest

from mtrec.config import Scenario, load_scenario, parse_scenario
from mtrec.data.contract import Tables
from mtrec.data.sources import read_source, recognise_source
from mtrec.errors import ConfigError, DataError


def scenario(kind: str = "auto", **source: object) -> Scenario:
    return parse_scenario(
        {"name": "film", "source": {"type": kind, **source}, "tasks": {"next_item": {"type": "next_item"}}}
    )


def write_movielens(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.0,964982703\n")
    (folder / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Adventure\n")
    return folder


def contract() -> Tables:
    return Tables(
        users=pl.DataFrame({"user_id": [1]}),
        items=pl.DataFrame({"item_id": ["i"], "title": ["x"], "extra": [[1.5]]}),
        interactions=pl.DataFrame({"user_id": [1], "item_id": ["i"], "event": ["view"], "timestamp": [5]}),
    )


@pytest.mark.parametrize("kind", ["auto", "simulated", "movielens", "amazon"])
def test_contract_tables_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    contract().write(tmp_path / "t")
    assert recognise_source(scenario(kind), tmp_path / "t") == "contract"
    found = read_source(scenario(kind), tmp_path / "t")
    assert found.items.equals(contract().items)
    assert found.users.schema == {"user_id": pl.Int64}


def test_contract_tables_must_have_the_contracts_columns(tmp_path: Path) -> None:
    contract().write(tmp_path)
    pl.DataFrame({"item_id": ["i"], "name": ["x"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: column 'title' is missing \(found: item_id, name\)"):
        read_source(scenario(), tmp_path)
    pl.DataFrame(schema={"item_id": pl.String, "title": pl.String}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"items\.parquet: the table has no rows"):
        read_source(scenario(), tmp_path)


def test_without_data_only_the_simulator_answers() -> None:
    options = {"num_users": 5, "num_items": 20, "num_interactions": 60}
    assert recognise_source(scenario("simulated"), None) == "simulated"
    assert read_source(scenario("simulated", options=options), None).num_rows["users"] == 5
    with pytest.raises(DataError, match=r"scenario 'film' needs data \(source type 'auto'\): give --data FOLDER"):
        read_source(scenario(), None)
    with pytest.raises(ConfigError, match=r"source\.options: num_user: unknown dial"):
        read_source(scenario("simulated", options={"num_user": 5}), None)


@pytest.mark.parametrize("kind", ["auto", "simulated", "movielens"])
def test_a_folder_is_recognised_by_its_files(tmp_path: Path, kind: str) -> None:
    write_movielens(tmp_path)
    assert recognise_source(scenario(kind), tmp_path) == "movielens csv"
    assert read_source(scenario(kind), tmp_path).items["title"].to_list() == ["Toy Story"]


def test_an_unknown_folder_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        read_source(scenario(), tmp_path)
    message = str(caught.value)
    for part in ("no known layout", "MovieLens (ratings.csv + movies.csv", "MovieTweetings", "Amazon", "sales.csv",
                 "Map other files in the scenario 'film' with source type 'tables'."):  # fmt: skip
        assert part in message


def test_data_one_level_down_is_pointed_at(tmp_path: Path) -> None:
    write_movielens(tmp_path / "ml-latest-small")
    with pytest.raises(DataError, match=r"the data lies one level down\. Give --data .*ml-latest-small"):
        read_source(scenario(), tmp_path)


def test_a_file_or_nothing_in_place_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"--data takes a folder, this is a file\. Unpack it and give the folder\."):
        read_source(scenario(), path)
    with pytest.raises(DataError, match=r"no such folder\. Check --data\."):
        read_source(scenario(), tmp_path / "nowhere")


def test_a_declared_type_that_does_not_fit_says_so(tmp_path: Path) -> None:
    write_movielens(tmp_path)
    with pytest.raises(DataError, match="no Amazon layout"):
        read_source(scenario("amazon"), tmp_path)
    with pytest.raises(DataError, match="no MovieTweetings layout"):
        read_source(scenario("movietweetings"), tmp_path)


def test_shipped_scenarios_name_sources_that_exist(repository: Path) -> None:
    kinds = {path.stem: load_scenario(path).source.type for path in (repository / "scenarios").glob("*.yaml")}
    assert kinds["ecommerce"] == "simulated"
    assert kinds["video"] == "auto"
    assert kinds["online-retail"] == "tables"
    assert kinds["amazon"] == "amazon"
