"""Forgetting in a real DVC repository: what goes, what stays, kills, two at a time, and who holds them still."""

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from mtrec.config import parse_scenario
from mtrec.data.contract import Tables
from mtrec.data.drops import known_tables
from mtrec.data.forgetting import Deletion, forget, held_by, recall
from mtrec.data.forgotten import KEY, LIST, read_forgotten, users_in
from mtrec.data.versioning import known_versions, push, snapshot
from mtrec.errors import DataError
from mtrec.stages import ingest

SHOP = parse_scenario(
    {"name": "shop", "source": {"type": "auto"}, "tasks": {"next_item": {"type": "next_item"}}},
)


def shop_data() -> Tables:
    users = ["u1", "u2", "u3"]
    interactions = [(u, i, "view", f"2026-01-0{n + 1}") for n, u in enumerate(users) for i in "ab"]
    return Tables(
        users=pl.DataFrame({"user_id": users, "age": [30, 40, 50]}),
        items=pl.DataFrame({"item_id": ["a", "b"], "title": ["Apple", "Bread"]}),
        interactions=pl.DataFrame(interactions, schema=["user_id", "item_id", "event", "timestamp"], orient="row"),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "dvc"


@pytest.fixture
def version(root: Path, tmp_path: Path) -> str:
    """The data version of the shop, in the remote."""
    shop_data().write(tmp_path / "tables")
    return push(tmp_path / "tables", root)


def gone(root: Path, version: str, *users: str) -> Deletion:
    return forget(users, scenario="shop", version=version, root=root)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_new_version_has_no_row_of_the_user(root: Path, version: str) -> None:
    done = gone(root, version, "u2")
    assert (done.before, done.rows, done.again) == (version, {"users": 1, "items": 0, "interactions": 2}, 0)
    left = known_tables(done.version, root)
    assert users_in(left) == {"u1", "u3"}
    assert left.interactions.equals(shop_data().interactions.filter(pl.col("user_id") != "u2"))
    assert left.users.equals(shop_data().users.filter(pl.col("user_id") != "u2"))
    assert known_tables(version, root).interactions.equals(shop_data().interactions), "the old one is as it was"
    known = read_forgotten(root, "shop")
    assert list(held_by(version, known, root)) == [known.pseudonym("u2")]
    assert held_by(done.version, known, root) == {}


def test_ingest_of_data_that_brings_the_user_back_gives_the_same_version(
    root: Path, version: str, tmp_path: Path
) -> None:
    done = gone(root, version, "u2")
    outputs = ingest.Outputs(tables=tmp_path / "again", summary=tmp_path / "summary.json")
    said = ingest.run(ingest.Inputs(data=tmp_path / "tables", dvc_root=root), outputs, SHOP)
    assert said["data_version"] == done.version
    assert (said["num_users"], said["num_interactions"]) == (2, 4)
    recall(["u2"], scenario="shop", root=root)
    said = ingest.run(ingest.Inputs(data=tmp_path / "tables", dvc_root=root), outputs, SHOP)
    assert said["data_version"] == version


def test_who_was_forgotten_before_stays_forgotten(root: Path, version: str) -> None:
    first = gone(root, version, "u2")
    second = gone(root, version[:8], "u3", "u2")
    assert (second.before, second.again, second.rows["users"]) == (version, 1, 2)
    assert users_in(known_tables(second.version, root)) == {"u1"}
    again = gone(root, second.version, "u2")
    assert (again.version, again.again, set(again.rows.values())) == (second.version, 1, {0})
    assert len({version, first.version, second.version}) == len(known_versions(root)) == 3


def test_an_unknown_user_changes_nothing(root: Path, version: str) -> None:
    before = files(root.parent)
    with pytest.raises(DataError, match=f"^u7, u8: not in data version {version}; nothing was changed"):
        gone(root, version, "u2", "u7", "u8")
    assert files(root.parent) == before
    forget(["u7"], scenario="shop", version=version, root=root, allow_unknown=True)
    assert len(read_forgotten(root, "shop").when) == 1
    assert known_versions(root) == [version], "nobody's row went, so there is no other version"


@pytest.mark.parametrize(
    ("users", "other", "message"),
    [
        (["u1", "u2", "u3"], None, "without these users it has no interaction left"),
        (["u1"], "0" * 32 + ".dir", "no such data version"),
        ([" "], None, "' ': not a user id"),
    ],
)
def test_refusals_change_nothing(
    root: Path, version: str, users: list[str], other: str | None, message: str
) -> None:
    before = files(root.parent)
    with pytest.raises(DataError, match=message):
        gone(root, other or version, *users)
    assert files(root.parent) == before


def test_without_a_repository_there_is_nobody_to_forget(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a DVC repository"):
        gone(tmp_path / "nowhere", "0" * 32 + ".dir", "u1")
    with pytest.raises(DataError, match="not a DVC repository"):
        recall(["u1"], scenario="shop", root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from mtrec.data import {module} as module
module.{function} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from mtrec.data.forgetting import forget
forget(["u2"], scenario="shop", version=sys.argv[2], root=Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("module", "function"), [("forgetting", "push"), ("forgetting", "remember")])
def test_a_kill_leaves_the_old_state_and_the_next_call_goes_on(
    root: Path, version: str, module: str, function: str
) -> None:
    code = KILLED.format(module=module, function=function)
    done = subprocess.run([sys.executable, "-c", code, str(root), version], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not read_forgotten(root, "shop")
    assert not (root / LIST).exists()
    assert users_in(known_tables(version, root)) == {"u1", "u2", "u3"}
    after = gone(root, version, "u2")
    assert users_in(known_tables(after.version, root)) == {"u1", "u3"}
    assert (root / KEY).exists()


def test_two_at_a_time_lose_nobody(root: Path, version: str) -> None:
    code = (
        "import sys; from pathlib import Path; from mtrec.data.forgetting import forget; "
        'forget([sys.argv[3]], scenario="shop", version=sys.argv[2], root=Path(sys.argv[1]))'
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(root), version, user]) for user in ("u1", "u3")]
    assert [process.wait() for process in both] == [0, 0]
    assert len(read_forgotten(root, "shop").when) == 2


def test_raw_drops_are_looked_into_with_a_scenario(root: Path, version: str, tmp_path: Path) -> None:
    gone(root, version, "u2")
    recall(["u2"], scenario="shop", root=root)
    forget(["7"], scenario="shop", version=version, root=root, allow_unknown=True)
    for name in ("january", "february"):
        (tmp_path / "drops" / name).mkdir(parents=True)
        (tmp_path / "drops" / name / "movies.csv").write_text("movieId,title,genres\n1,Up (2009),Drama\n")
    for name, user in (("january", 5), ("february", 7)):
        text = f"userId,movieId,rating,timestamp\n{user},1,4,964982703\n"
        (tmp_path / "drops" / name / "ratings.csv").write_text(text)
    known = read_forgotten(root, "shop")
    drops = snapshot(tmp_path / "drops", root=root).version
    january = snapshot(tmp_path / "drops" / "january", root=root).version
    assert list(held_by(drops, known, root, SHOP)) == [known.pseudonym("7")]
    assert held_by(january, known, root, SHOP) == {}
    with pytest.raises(DataError, match=f"^{drops}: holds no contract tables"):
        held_by(drops, known, root)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("7")
    notes = snapshot(tmp_path / "notes", root=root).version
    with pytest.raises(DataError, match=f"^{notes}: no known layout"):
        held_by(notes, known, root, SHOP)
