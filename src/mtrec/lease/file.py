"""A lease of one machine: a small JSON file, replaced whole under a file lock; a kill leaves it old or new."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtrec.data.contract import replacing_file
from mtrec.errors import RunError
from mtrec.lease.state import Held, State, Version


class FileStore:
    """A lease by name in a folder.

    Args:
        path: its file, e.g. `.mtrec/locks/shop.json`.
    """

    locks = True

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def shown(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def place(self) -> dict[str, Any]:
        """The file, for processes in any folder."""
        return {"path": str(self.path.resolve())}

    @contextmanager
    def alone(self, patience: float) -> Iterator[None]:
        """Hold the file lock; see `Store.alone`."""
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            found, _ = self.read()
            who = f"{found.what} is under way already ({found.holder})" if found else "another process is at it"
            raise Held(f"{who} and writes under its lock {self.path}; wait for it") from error
        try:
            yield
        finally:
            lock.release()

    def read(self) -> tuple[State | None, Version]:
        """What the file says; see `Store.read`."""
        try:
            return State(**json.loads(self.path.read_text(encoding="utf-8"))), Version()
        except FileNotFoundError:
            return None, Version()
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.path}: not a lock file ({error}); remove it if nothing is running") from error

    def write(self, state: State, version: Version, seconds: float) -> Version:
        """Replace the file; `alone` has kept it as it was read."""
        with replacing_file(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(state)), encoding="utf-8")
        return version

    def now(self) -> float:
        """This machine's clock."""
        return time.time()
