"""Where studies are kept: which URLs, one lock, what is said when it fails, and who is alive."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from mtrec.errors import ConfigError, RunError
from mtrec.training import storage
from mtrec.training.storage import Storage

HOLD = """
import sys, time
from pathlib import Path
from mtrec.training.storage import Storage
with Storage(sys.argv[1]).lock():
    Path(sys.argv[2]).touch()
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


def test_folders_of_a_file_are_made(tmp_path: Path) -> None:
    Storage(f"sqlite:///{tmp_path}/deep/er/search.db")
    assert (tmp_path / "deep" / "er" / "search.db").is_file()


def test_a_relative_path_means_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("sqlite:///search.db").url == f"sqlite:///{tmp_path}/search.db"


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "search.db", "", "sqlite://", "sqlite:///", "sqlite:///:memory:", "redis://host"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="write sqlite:///path or postgresql://user:password@host/database"):
        Storage(url)


@pytest.mark.parametrize("password", ["secret", "a/secret="])
def test_a_server_that_is_not_there_is_named_without_its_password(password: str) -> None:
    with pytest.raises(RunError) as caught:
        Storage(f"postgresql://me:{password}@127.0.0.1:9/studies?connect_timeout=5")
    told = str(caught.value)
    assert told.startswith("study storage postgresql://127.0.0.1:9/studies: ")
    assert "refused" in told
    assert "secret" not in told
    assert "\n" not in told


def test_a_database_that_does_not_exist_is_named(postgres: str) -> None:
    with pytest.raises(RunError, match='database "nothing" does not exist'):
        Storage(postgres.replace("@/postgres", "@/nothing"))


def test_a_file_that_is_no_database_and_a_folder_that_cannot_be_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and long enough for a header of one" * 9)
    with pytest.raises(RunError, match="file is not a database"):
        Storage(f"sqlite:///{tmp_path}/text")
    with pytest.raises(ConfigError, match=r"text/below cannot be made"):
        Storage(f"sqlite:///{tmp_path}/text/below/search.db")


def test_one_process_at_a_time_holds_the_lock_and_a_dead_one_lets_go(url: str, tmp_path: Path) -> None:
    mine = Storage(url)
    for wish, least in (("0.7", 0.5), ("60", 0.0)):
        held = tmp_path / f"held-{wish}"
        other = subprocess.Popen([sys.executable, "-c", HOLD, url, str(held), wish])
        while not held.exists():
            assert other.poll() is None
            time.sleep(0.01)
        start = time.monotonic()
        if wish == "60":
            other.kill()
        with mine.lock():
            assert least <= time.monotonic() - start < 30
        other.wait()


def test_a_lock_that_nobody_releases_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LOCK_SECONDS", 0.2)
    url = f"sqlite:///{tmp_path}/s.db"
    first, second = Storage(url), Storage(url)
    said = pytest.raises(RunError, match=r"\.s\.db\.lock: held by another process for 0\.2 seconds")
    with first.lock(), said, second.lock():
        pass


def test_an_error_of_the_database_becomes_one_line(tmp_path: Path) -> None:
    found = Storage(f"sqlite:///{tmp_path}/s.db")
    with pytest.raises(RunError, match=r"^study storage sqlite:////\S+/s\.db: disk I/O error$"), found.reached():
        raise OperationalError("SELECT\n1", {}, Exception("disk I/O\n error"))
    with pytest.raises(RuntimeError, match="a bug"), found.reached():
        raise RuntimeError("a bug")
