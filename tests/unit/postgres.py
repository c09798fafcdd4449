"""A real PostgreSQL server, where its programs are installed."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return shutil.which(name) or next(map(str, newest), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of an empty database; the server refuses to run as root, so it gets another user there."""
    initdb, server = _program("initdb"), _program("postgres")
    if not initdb or not server:
        pytest.skip("no PostgreSQL server is installed (initdb, postgres)")
    user: dict[str, int] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
        user = {"user": account.pw_uid, "group": account.pw_gid}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="mtrec-postgres-"))
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        options = ["-D", str(folder / "data"), "-U", "mtrec", "--auth=trust", "--no-sync", "--encoding=UTF8"]
        subprocess.run([initdb, *options], check=True, capture_output=True, cwd=folder, **user)
        process = subprocess.Popen(
            [server, "-D", folder / "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1", "-F"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **user,
        )
        try:
            url = f"postgresql://mtrec:secret@127.0.0.1:{port}/postgres"
            _wait_for(url)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown: open sessions do not hold it up
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    import psycopg

    for _ in range(300):
        try:
            psycopg.connect(url, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise TimeoutError("PostgreSQL did not start")
