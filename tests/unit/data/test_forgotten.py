"""The list of the forgotten: no readable id, recognised in any spelling, per scenario, safe without its key."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mtrec.data.contract import Tables
from mtrec.data.forgotten import KEY, LIST, as_user_ids, read_forgotten, remember, take_back, users_in, without
from mtrec.errors import DataError


def tables(*users: object, dtype: pl.DataType | None = None) -> Tables:
    ids = pl.Series("user_id", users, dtype=dtype)
    return Tables(
        users=pl.DataFrame([ids, pl.Series("age", range(len(ids)))]),
        items=pl.DataFrame({"item_id": ["a"], "title": ["Apple"]}),
        interactions=pl.DataFrame([ids, pl.Series("item_id", ["a"] * len(ids))]),
    )


def test_the_list_gives_no_id_away(tmp_path: Path) -> None:
    remember(tmp_path, "shop", ["u00042"])
    text = (tmp_path / LIST).read_text()
    (line,) = map(json.loads, text.splitlines())
    assert set(line) == {"scenario", "user", "when", "key"}
    assert "u00042" not in text
    assert len(line["user"]) == 32
    for guess in ("u00042", "shop\0u00042"):
        hashes = [hashlib.new(name, guess.encode()).hexdigest() for name in ("md5", "sha256", "blake2b")]
        assert line["user"] not in [*hashes, hashlib.blake2b(guess.encode(), digest_size=16).hexdigest()]
    key = (tmp_path / KEY).read_text()
    assert len(key) == 64
    assert key not in text
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data" / ".gitignore").read_text() == "/forgotten.key\n"


def test_two_repositories_and_two_scenarios_have_nothing_in_common(tmp_path: Path) -> None:
    lists = [remember(tmp_path / name, "shop", ["u1"]) for name in "ab"]
    lists.append(remember(tmp_path / "a", "films", ["u1"]))
    assert len({user for each in lists for user in each.when}) == 3
    take_back(tmp_path / "a", "films", ["u1"])
    assert not read_forgotten(tmp_path / "a", "films")
    assert read_forgotten(tmp_path / "a", "shop").when == lists[0].when


@pytest.mark.parametrize(
    ("column", "left"),
    [
        (tables("17850", "7", None), ["7", None]),
        (tables(" 17850 ", "7"), ["7"]),
        (tables(17850, 7), [7]),
        (tables(17850.0, 7.5, None), [7.5, None]),
        (tables("17850", "7", dtype=pl.Categorical()), ["7"]),
    ],
    ids=["text", "blanks", "integers", "floats", "categories"],
)
def test_a_user_is_recognised_however_the_id_is_written(tmp_path: Path, column: Tables, left: list[object]) -> None:
    kept = remember(tmp_path, "shop", ["17850"]).leave_out(column)
    assert kept.users["user_id"].to_list() == kept.interactions["user_id"].to_list() == left
    assert kept.users.schema == column.users.schema
    assert kept.items is column.items


def test_both_spellings_of_an_accent_are_one_user(tmp_path: Path) -> None:
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    forgotten = remember(tmp_path, "shop", as_user_ids([apart, f" {composed} "]))
    assert len(forgotten.when) == 1
    assert forgotten.leave_out(tables(composed, apart, "Al")).users["user_id"].to_list() == ["Al"]


def test_tables_without_them_stay_the_same_object(tmp_path: Path) -> None:
    known = tables("u1", "u2")
    assert remember(tmp_path, "shop", ["u3"]).leave_out(known) is known
    assert read_forgotten(tmp_path, "films").leave_out(known) is known
    assert read_forgotten(None, "shop").leave_out(known) is known


def test_every_table_with_user_ids_is_looked_into() -> None:
    lists = replace(tables("u1", "u2"), items=pl.DataFrame({"item_id": ["a", "b"], "user_id": ["u1", "u3"]}))
    assert users_in(lists) == {"u1", "u2", "u3"}
    assert without(lists, ["u1"]).items["item_id"].to_list() == ["b"]


def test_the_first_date_stays_and_the_fingerprint_says_who(tmp_path: Path) -> None:
    first = remember(tmp_path, "shop", ["u1"])
    lines = (tmp_path / LIST).read_text()
    (tmp_path / LIST).write_text(lines.replace(next(iter(first.when.values())), "2026-01-01T00:00:00+00:00"))
    both = remember(tmp_path, "shop", ["u2", "u1"])
    assert both.when[both.pseudonym("u1")] == "2026-01-01T00:00:00+00:00"
    assert len(both.when) == len((tmp_path / LIST).read_text().splitlines()) == 2
    assert read_forgotten(tmp_path, "shop") == both
    assert both.among(tables("u2", "u9")) == {both.pseudonym("u2"): both.when[both.pseudonym("u2")]}
    assert len({first.fingerprint, both.fingerprint, read_forgotten(tmp_path, "films").fingerprint}) == 3
    take_back(tmp_path, "shop", ["u2"])
    assert read_forgotten(tmp_path, "shop").fingerprint == first.fingerprint


def test_taking_back_a_stranger_changes_nothing(tmp_path: Path) -> None:
    remember(tmp_path, "shop", ["u1"])
    before = (tmp_path / LIST).read_text()
    with pytest.raises(DataError, match="not among the forgotten users of scenario shop"):
        take_back(tmp_path, "shop", ["u1", "u2"])
    assert (tmp_path / LIST).read_text() == before


def test_without_its_key_the_list_stops_whoever_reads_it(tmp_path: Path) -> None:
    remember(tmp_path, "shop", ["u1"])
    (tmp_path / KEY).rename(tmp_path / "key")
    for call in (lambda: read_forgotten(tmp_path, "shop"), lambda: remember(tmp_path, "shop", ["u2"])):
        with pytest.raises(DataError, match=r"forgotten\.key: missing or damaged, so the users in .* cannot be"):
            call()
    assert not (tmp_path / KEY).exists()
    (tmp_path / KEY).write_text("ab" * 32)
    with pytest.raises(DataError, match="made with another key than"):
        read_forgotten(tmp_path, "shop")
    (tmp_path / "key").replace(tmp_path / KEY)
    assert read_forgotten(tmp_path, "shop")


@pytest.mark.parametrize(
    ("key", "message"), [("", "missing or damaged"), ("ab" * 32, "made with another key than")]
)
def test_a_key_that_another_scenario_needs_is_not_replaced(tmp_path: Path, key: str, message: str) -> None:
    remember(tmp_path, "shop", ["u1"])
    before = (tmp_path / LIST).read_text()
    (tmp_path / KEY).unlink()
    if key:
        (tmp_path / KEY).write_text(key)
    with pytest.raises(DataError, match=message):
        remember(tmp_path, "films", ["u1"])
    assert (tmp_path / LIST).read_text() == before
    assert (tmp_path / KEY).exists() == bool(key)


@pytest.mark.parametrize("key", ["", "ab" * 31])
def test_a_key_that_would_hide_nobody_is_not_used(tmp_path: Path, key: str) -> None:
    """An empty file is what a backup leaves that was made before anybody was forgotten."""
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_text(key)
    with pytest.raises(DataError, match="missing or damaged"):
        remember(tmp_path, "shop", ["u1"])
    assert not (tmp_path / LIST).exists()


def test_a_damaged_list_is_told_by_its_line(tmp_path: Path) -> None:
    remember(tmp_path, "shop", ["u1"])
    with (tmp_path / LIST).open("a") as file:
        file.write('{"scenario": "shop"}\n')
    with pytest.raises(DataError, match=r"forgotten\.jsonl:2: not a forgotten user"):
        read_forgotten(tmp_path, "films")


@pytest.mark.parametrize("text", ["", "  ", "null", "nan"])
def test_what_is_no_id_cannot_be_forgotten(text: str) -> None:
    with pytest.raises(DataError, match="not a user id"):
        as_user_ids(["u1", text])
