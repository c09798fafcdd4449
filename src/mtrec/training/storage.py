"""Where studies are kept: SQLite on one machine, PostgreSQL for several; one lock, errors in one line."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.addresses import without_login
from mtrec.errors import ConfigError, RunError, Unavailable

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 90
"""A trial without a sign of life for so long is another machine's that died."""
_LOCK_SECONDS = 300
_BUSY_SECONDS = 60
_SQLITE, _POSTGRES = "sqlite:///", ("postgresql://", "postgresql+psycopg://")


class TakenOver(RunError):
    """The trial is no longer this process's: it seemed dead, and another one has queued the trial again."""


class Storage:
    """A database of studies that processes share.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/database`.

    Raises:
        ConfigError: the URL is of another kind, or the file's folder cannot be made.
        RunError: the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url, self.shown = url, without_login(url).partition("?")[0]
        self.path: Path | None = None
        if url.startswith(_SQLITE) and ":memory:" not in url and len(url) > len(_SQLITE):
            self.path = Path(url.removeprefix(_SQLITE)).absolute()
            self.url = f"{_SQLITE}{self.path}"
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"--storage {self.shown}: {self.path.parent} cannot be made ({error})") from error
        elif not url.startswith(_POSTGRES):
            raise ConfigError(
                f"--storage {self.shown}: write sqlite:///path or postgresql://user:password@host/database"
            )
        with self.lock(), self.reached():
            self.optuna = self._open()

    def _open(self) -> RDBStorage:
        from optuna.storages import RDBStorage

        arguments = {"connect_args": {"timeout": _BUSY_SECONDS}} if self.path else {"pool_pre_ping": True}
        try:
            return RDBStorage(
                self.url, engine_kwargs=arguments, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
            )
        except (ImportError, RuntimeError) as error:  # no driver; tables of another version of Optuna
            raise RunError(f"study storage {self.shown}: {_reason(error)}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the storage against every other process; a process that dies lets go.

        Raises:
            RunError: somebody holds it for minutes, or the database cannot be reached.
        """
        if self.path is None:
            with self._advisory_lock():
                yield
            return
        from filelock import FileLock, Timeout

        path = self.path.with_name(f".{self.path.name}.lock")
        try:
            held = FileLock(path, timeout=_LOCK_SECONDS)
            held.acquire()
        except Timeout as error:
            raise RunError(f"{path}: held by another process for {_LOCK_SECONDS} seconds") from error
        except OSError as error:
            raise RunError(f"study storage {self.shown}: {error}") from error
        try:
            yield
        finally:
            held.release()

    @contextmanager
    def _advisory_lock(self) -> Iterator[None]:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        with self.reached():
            connection = create_engine(self.url, poolclass=NullPool).connect()
            connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(hashtext('mtrec.search'))"))
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                connection.close()  # ends the session, and with it the lock

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Turn what the database says into one line, without a password, and keep Optuna's chatter off stderr."""
        import optuna
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
        from sqlalchemy.exc import SQLAlchemyError

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="optuna")
                warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                yield
        except UpdateFinishedTrialError as error:
            raise TakenOver("another process has taken the trial over") from error
        except (SQLAlchemyError, StorageInternalError) as error:
            raise Unavailable(f"study storage {self.shown}: {_reason(error)}") from error
        finally:
            optuna.logging.set_verbosity(before)

    @contextmanager
    def alive(self, trial_id: int) -> Iterator[None]:
        """Give signs of life for a running trial, from a thread of its own, until the block ends."""
        ended = threading.Event()

        def beat() -> None:
            while True:
                with contextlib.suppress(Exception):  # the database may be away for a moment
                    self.optuna.record_heartbeat(trial_id)
                if ended.wait(HEARTBEAT_SECONDS):
                    break
            self.optuna.remove_session()

        thread = threading.Thread(target=beat, name="mtrec-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _reason(error: BaseException) -> str:
    from sqlalchemy.exc import DBAPIError

    while error.__cause__ is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    told = str(error.orig if isinstance(error, DBAPIError) else error)
    return without_login(" ".join(told.split()))[:400] or type(error).__name__
