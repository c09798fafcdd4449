import json
from pathlib import Path

import polars as pl
import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.contract import Tables
from mtrec.data.drops import known_tables
from mtrec.data.forgotten import remember, users_in
from mtrec.data.versioning import EMBEDDED, directory_hash
from mtrec.errors import DataError
from mtrec.progress import Progress, listening
from mtrec.stages import ingest

DIALS = {"num_users": 20, "num_items": 30, "num_interactions": 300}


def scenario(**source: object) -> Scenario:
    return parse_scenario({"name": "shop", "source": source, "tasks": {"next_item": {"type": "next_item"}}})


def outputs(folder: Path) -> ingest.Outputs:
    return ingest.Outputs(tables=folder / "tables", summary=folder / "summary.json")


def simulated() -> Scenario:
    return scenario(type="simulated", options=DIALS)


def test_tables_and_summary_are_written(tmp_path: Path) -> None:
    said: list[Progress] = []
    with listening(said.append):
        summary = ingest.run(ingest.Inputs(data=None, dvc_root=None), outputs(tmp_path), simulated())
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    tables = Tables.read(tmp_path / "tables")
    assert summary["source"] == "simulated"
    assert (summary["num_users"], summary["num_items"]) == (20, 30)
    assert summary["num_interactions"] == tables.interactions.height == sum(summary["events"].values())
    assert summary["columns"]["items"]["tags"] == "List(String)"
    assert summary["first"] == tables.interactions["timestamp"].min().isoformat()  # type: ignore[union-attr]
    assert summary["first"] < summary["last"] < "2025-07-01"
    assert summary["data_version"] == directory_hash(tmp_path / "tables")
    assert said[-1].fraction == 1.0


def test_the_same_source_gives_the_same_version(tmp_path: Path) -> None:
    inputs = ingest.Inputs(data=None, dvc_root=None)
    versions = [ingest.run(inputs, outputs(tmp_path / name), simulated())["data_version"] for name in ("a", "b")]
    other = scenario(type="simulated", options={**DIALS, "seed": 9})
    assert versions[0] == versions[1]
    assert ingest.run(inputs, outputs(tmp_path / "c"), other)["data_version"] != versions[0]


def test_the_tables_can_be_fetched_back_from_dvc(tmp_path: Path) -> None:
    from mtrec.data.versioning import restore

    root = tmp_path / "dvc"
    summary = ingest.run(ingest.Inputs(data=None, dvc_root=root), outputs(tmp_path), simulated())
    assert summary["data_version"] == directory_hash(tmp_path / "tables")
    restore(summary["data_version"], tmp_path / "back", root)
    for path in (tmp_path / "tables").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_dirty_times_pass_and_the_range_covers_the_readable_ones(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1,4,964982703\n1,2,5,soon\n2,1,bad,1136239445\n3,9,3,\n"
    )
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Toy Story (1995),Comedy\n2,Up (2009),Drama\n")
    summary = ingest.run(
        ingest.Inputs(data=str(tmp_path), dvc_root=None), outputs(tmp_path / "out"), scenario(type="auto")
    )
    assert summary["source"] == "movielens csv"
    assert (summary["first"], summary["last"]) == ("2000-07-30T18:45:03+00:00", "2006-01-02T22:04:05+00:00")
    written = pl.read_parquet(tmp_path / "out" / "tables" / "interactions.parquet")
    assert written["timestamp"].to_list() == ["964982703", "soon", "1136239445", None]
    assert written["rating"].to_list() == ["4", "5", "bad", "3"]


def test_times_that_nobody_can_read_give_no_range(tmp_path: Path) -> None:
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "event": ["x"], "timestamp": ["never"]})
    items = pl.DataFrame({"item_id": ["i"], "title": ["t"]})
    summary = ingest.summarise(Tables(users=events.select("user_id"), items=items, interactions=events))
    assert (summary["first"], summary["last"]) == (None, None)


def test_a_failed_ingest_leaves_what_was_there(tmp_path: Path) -> None:
    ingest.run(ingest.Inputs(data=None, dvc_root=None), outputs(tmp_path), simulated())
    before = directory_hash(tmp_path / "tables")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no known layout"):
        ingest.run(ingest.Inputs(data=str(tmp_path / "empty"), dvc_root=None), outputs(tmp_path), simulated())
    assert directory_hash(tmp_path / "tables") == before
    assert not list(tmp_path.glob(".*tmp"))


def test_a_data_version_in_place_of_a_folder_gives_the_same_version(tmp_path: Path) -> None:
    root = tmp_path / "dvc"
    first = ingest.run(ingest.Inputs(data=None, dvc_root=root), outputs(tmp_path / "first"), simulated())
    version = f"dvc:{first['data_version']}"
    again = ingest.run(ingest.Inputs(data=version, dvc_root=root), outputs(tmp_path / "again"), simulated())
    assert again["source"] == version
    assert again["data_version"] == first["data_version"]
    with pytest.raises(DataError, match="no such data version"):
        ingest.run(ingest.Inputs(data=f"dvc:{'0' * 32}.dir", dvc_root=root), outputs(tmp_path), simulated())


def test_a_data_version_comes_from_the_repository_here_where_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list of the forgotten holds, and what is left is a version of its own there."""
    monkeypatch.chdir(tmp_path)
    first = ingest.run(ingest.Inputs(data=None, dvc_root=EMBEDDED), outputs(tmp_path / "first"), simulated())
    user = min(users_in(Tables.read(tmp_path / "first" / "tables")))
    remember(EMBEDDED, simulated().name, [user])
    inputs = ingest.Inputs(data=f"dvc:{first['data_version']}", dvc_root=None)
    again = ingest.run(inputs, outputs(tmp_path / "again"), simulated())
    assert user not in users_in(known_tables(again["data_version"], EMBEDDED))


def test_forgotten_users_are_left_out_and_the_list_alone_may_be_given(tmp_path: Path) -> None:
    source = simulated()
    whole = ingest.run(ingest.Inputs(data=None, dvc_root=None), outputs(tmp_path / "whole"), source)
    gone = sorted(users_in(Tables.read(tmp_path / "whole" / "tables")))[:2]
    remember(tmp_path / "dvc", source.name, gone)
    inputs = ingest.Inputs(data=None, dvc_root=None, forgotten=tmp_path / "dvc")
    summary = ingest.run(inputs, outputs(tmp_path / "left"), source)
    left = Tables.read(tmp_path / "left" / "tables")
    assert not users_in(left).intersection(gone)
    assert summary["num_users"] == whole["num_users"] - 2
    assert 0 < summary["num_interactions"] == left.interactions.height < whole["num_interactions"]
    assert summary["data_version"] == directory_hash(tmp_path / "left" / "tables") != whole["data_version"]
    assert summary["num_items"] == whole["num_items"]


def test_a_list_of_the_forgotten_without_its_key_stops_the_stage(tmp_path: Path) -> None:
    remember(tmp_path / "dvc", simulated().name, ["u1"])
    (tmp_path / "dvc" / "data" / "forgotten.key").unlink()
    with pytest.raises(DataError, match="cannot be recognised"):
        ingest.run(ingest.Inputs(data=None, dvc_root=tmp_path / "dvc"), outputs(tmp_path), simulated())
    assert not (tmp_path / "tables").exists()
