import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mtrec.errors import InputError, RunError
from mtrec.tracking import connection


def test_which_mlflow(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.resolve_uri() == uri
    assert connection.resolve_uri("sqlite:///other.db") == f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert connection.resolve_uri() == "http://mlflow:5000"
    assert connection.resolve_uri("") == "http://mlflow:5000"
    assert connection.resolve_uri("sqlite:////data/mlflow.db") == "sqlite:////data/mlflow.db"


def test_artifacts_lie_beside_the_database() -> None:
    assert connection.artifact_root("sqlite:////a b/mlflow.db?timeout=5") == "file:///a%20b/mlartifacts"
    assert connection.artifact_root("https://mlflow.example") is None


def test_a_server_that_is_not_there_is_told_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.time, "sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        pytest.raises(RunError, match=rf"MLflow at http://127.0.0.1:{port}: no answer .*is it up") as caught,
        connection.connected(f"http://me:secret@127.0.0.1:{port}"),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_mlflow_errors_become_one_line(uri: str) -> None:
    with (
        pytest.raises(RunError, match=r"^MLflow at sqlite:.*no-such-run") as caught,
        connection.connected(uri) as client,
    ):
        client.get_run("no-such-run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["text", "cut", "folder"])
def test_a_broken_database_is_told(uri: str, damage: str) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    whole = path.read_bytes()
    path.unlink()
    if damage == "text":
        path.write_text("this is not a database, but it is long enough to look at" * 100)
    elif damage == "cut":
        path.write_bytes(whole[:100] + b"x" * 5000)
    else:
        path.mkdir()
    told = "^.mtrec/mlflow.db: not an SQLite database; restore it or move it away to start anew$"
    with pytest.raises(RunError, match=told), connection.connected(uri) as client:
        client.search_experiments()


def test_a_database_that_is_locked_or_new_is_no_broken_one(uri: str, tmp_path: Path) -> None:
    connection.check_database(f"sqlite:///{tmp_path}/new.db")
    assert not (tmp_path / "new.db").exists()
    (tmp_path / "empty.db").touch()
    connection.check_database(f"sqlite:///{tmp_path}/empty.db")
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        connection.check_database(uri)


def test_an_unknown_kind_of_address_is_wrong_input() -> None:
    told = "^MLflow at foo://bar: unknown kind of address .*--tracking-uri or MLFLOW_TRACKING_URI"
    with pytest.raises(InputError, match=told), connection.connected("foo://me:secret@bar"):
        pass


def test_a_statement_is_no_part_of_a_message() -> None:
    error = ValueError(
        "(sqlite3.X) no such table\n[SQL: SELECT 1]\n(Background on this error at: https://sqlalche.me)"
    )
    assert connection.one_line(error) == "(sqlite3.X) no such table"


def test_the_global_uri_comes_back(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:1")
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:1")
    with connection.as_global(uri):
        assert mlflow.get_tracking_uri() == uri
    assert mlflow.get_tracking_uri() == "http://mine:1"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://mine:1"


def test_the_lock_may_be_nested_and_keeps_others_out(uri: str) -> None:
    code = (
        "import sys; from filelock import FileLock, Timeout\n"
        "try: FileLock(sys.argv[1], timeout=0.2).acquire()\n"
        "except Timeout: print('kept out')\n"
    )
    path = Path(uri.removeprefix("sqlite:///")).with_name(".mlflow.db.mtrec.lock")
    with connection.locked(uri), connection.locked(uri):
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "kept out"
    with connection.locked("http://somewhere"):
        pass


def test_importing_is_cheap_and_does_nothing(tmp_path: Path) -> None:
    code = "import mtrec.tracking, sys; print([m for m in ('mlflow', 'torch', 'filelock') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []
