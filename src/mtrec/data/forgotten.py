"""The list of the forgotten: users whose rows are left out of every data version from now on, whatever brings them.

In a DVC repository beside its data versions:

    data/forgotten.jsonl   per user one line: scenario, pseudonym, when
    data/forgotten.key     32 random bytes, for the owner's eyes only; git is told to leave it alone

A pseudonym is the BLAKE2b hash of scenario and user id under that key (RFC 7693). A plain hash would give the ids
away to whoever hashes u00001, u00002 … and compares, and so would a salt that lies in the list. The list alone says
nothing; with the key one can test whether a given id is on it, which is what recognising a returning user takes.
Without the key nobody can, so a list whose key is lost stops whoever reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from mtrec.data.contract import Tables, replacing_file
from mtrec.data.parsing import parse_key
from mtrec.errors import DataError

LIST, KEY = "data/forgotten.jsonl", "data/forgotten.key"
_KEY_BYTES = 32
_USER = "user_id"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the list."""

    scenario: str
    user: str
    """The pseudonym."""
    when: str
    """ISO 8601 in UTC."""
    key: str
    """Which key the pseudonym was made with: 8 hexadecimal digits of its hash."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """The users that one scenario forgot."""

    scenario: str
    key: bytes = b""
    when: Mapping[str, str]
    """Pseudonym → ISO time in UTC."""

    def __bool__(self) -> bool:
        return bool(self.when)

    @property
    def fingerprint(self) -> str:
        """Stands for who is left out; empty where nobody is."""
        return hashlib.sha256("\0".join(sorted(self.when)).encode()).hexdigest() if self.when else ""

    def among(self, tables: Tables) -> dict[str, str]:
        """Which of them the tables hold.

        Returns:
            Pseudonym → when it was forgotten.
        """
        found = {self.pseudonym(user) for user in users_in(tables)} if self.when else set()
        return {user: when for user, when in self.when.items() if user in found}

    def leave_out(self, tables: Tables) -> Tables:
        """The tables without their rows; the same object where they have none."""
        if not self.when:
            return tables
        gone = [user for user in users_in(tables) if self.pseudonym(user) in self.when]
        return without(tables, gone) if gone else tables

    def pseudonym(self, user: str) -> str:
        """What stands for a user id in the list."""
        return _pseudonym(self.scenario, user, self.key)


def read_forgotten(root: Path | None, scenario: str) -> Forgotten:
    """Read who a scenario forgot.

    Args:
        root: a DVC repository; None, or one without a list, gives nobody.
        scenario: its name. Equal ids of two scenarios are two users.

    Raises:
        DataError: the list is damaged, or its key is missing or another.
    """
    own = [entry for entry in _entries(root) if entry.scenario == scenario] if root else []
    if root is None or not own:
        return Forgotten(scenario=scenario, when={})
    return Forgotten(scenario=scenario, key=_key_of(root, own), when={entry.user: entry.when for entry in own})


def remember(root: Path, scenario: str, users: Iterable[str]) -> Forgotten:
    """Add users to the list in one step; who is on it stays with the old date. Call it inside `held`.

    Returns:
        Who the scenario forgot, these included.

    Raises:
        DataError: as `read_forgotten`.
    """
    entries = _entries(root)  # of every scenario: they share the key
    key = _key_of(root, entries) if entries else _ensure_key(root)
    known = read_forgotten(root, scenario)
    own = replace(known, key=key)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    fresh = {own.pseudonym(user): now for user in users if own.pseudonym(user) not in known.when}
    name = _key_name(own.key)
    added = [Entry(scenario=scenario, user=user, when=now, key=name) for user in fresh]
    _write(root, [*entries, *added])
    return replace(own, when={**known.when, **fresh})


def take_back(root: Path, scenario: str, users: Collection[str]) -> None:
    """Take users off the list: their rows come back with the next data that has them. Call it inside `held`.

    Raises:
        DataError: one of them was never forgotten, and nothing was written; or as `read_forgotten`.
    """
    known = read_forgotten(root, scenario)
    strange = [user for user in users if known.pseudonym(user) not in known.when]
    if strange:
        raise DataError(f"{', '.join(strange[:5])}: not among the forgotten users of scenario {scenario}")
    gone = {known.pseudonym(user) for user in users}
    _write(root, [entry for entry in _entries(root) if entry.scenario != scenario or entry.user not in gone])


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep other processes from changing the list."""
    from filelock import FileLock

    path = root / ".dvc" / "tmp" / "mtrec-forgotten.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def users_in(tables: Tables) -> set[str]:
    """Every user id of the tables as validation would read it."""
    columns = [frame[_USER] for frame in _frames(tables).values() if _USER in frame.columns]
    return {user for column in columns for user in _as_ids(column.unique()).drop_nulls()}


def without(tables: Tables, users: Iterable[str]) -> Tables:
    """The tables without the rows of these users, in every table that has a column user_id."""
    gone = list(users)
    kept = {
        name: frame.filter(~_as_ids(frame[_USER]).is_in(gone).fill_null(False))
        for name, frame in _frames(tables).items()
        if _USER in frame.columns
    }
    return replace(tables, **kept)


def as_user_ids(texts: Iterable[str]) -> list[str]:
    """User ids as people give them, as validation would read them, each once.

    Raises:
        DataError: one is no id.
    """
    given = list(texts)
    read = _as_ids(pl.Series(_USER, given, dtype=pl.String)).to_list()
    for text, user in zip(given, read, strict=True):
        if user is None:
            raise DataError(f"'{text}': not a user id")
    return list(dict.fromkeys(read))


def _as_ids(column: pl.Series) -> pl.Series:
    return parse_key(column).values.str.normalize("NFC")


def _frames(tables: Tables) -> dict[str, pl.DataFrame]:
    return {field.name: getattr(tables, field.name) for field in fields(tables)}


def _pseudonym(scenario: str, user: str, key: bytes) -> str:
    return hashlib.blake2b(f"{scenario}\0{user}".encode(), key=key, digest_size=16).hexdigest()


def _key_name(key: bytes) -> str:
    return hashlib.blake2b(b"mtrec", key=key, digest_size=4).hexdigest()


def _entries(root: Path) -> list[Entry]:
    path = root / LIST
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a forgotten user ({error}); restore that file") from error
    return entries


def _write(root: Path, entries: Iterable[Entry]) -> None:
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    with replacing_file(root / LIST) as temporary:
        temporary.write_text(lines, encoding="utf-8")


def _key_of(root: Path, entries: Iterable[Entry]) -> bytes:
    """The key that entries of the list were made with."""
    key = _read_key(root)
    if any(entry.key != _key_name(key) for entry in entries):
        raise DataError(
            f"{root / LIST}: made with another key than {root / KEY} holds; bring the right key back. Where it is "
            "lost, remove the list and forget the users again"
        )
    return key


def _read_key(root: Path) -> bytes:
    path = root / KEY
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
        if len(key) != _KEY_BYTES:  # an empty file, as a backup of none leaves, would hide nobody
            raise ValueError(f"{len(key)} bytes")
        return key
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: missing or damaged, so the users in {root / LIST} cannot be recognised; bring it back from "
            "where the list was made. Where it is lost, remove the list and forget the users again"
        ) from error


def _ensure_key(root: Path) -> bytes:
    path, ignored = root / KEY, root / "data" / ".gitignore"
    if path.exists():
        return _read_key(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ignored.read_text(encoding="utf-8").splitlines() if ignored.exists() else []
    if f"/{path.name}" not in lines:
        with replacing_file(ignored) as temporary:
            temporary.write_text("\n".join([*lines, f"/{path.name}"]) + "\n", encoding="utf-8")
    with replacing_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
    return _read_key(root)
