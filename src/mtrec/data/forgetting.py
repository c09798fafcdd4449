"""Forgetting users: a data version without them, the list that keeps them out, and which versions hold them still.

forget(users, …)   a new version in the remote, then the list; until the list is written nothing has changed
recall(users, …)   takes users off the list
held_by(…)         which forgotten users a data version holds
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.data.contract import Tables, is_contract
from mtrec.data.drops import drops_in, read_drop
from mtrec.data.forgotten import (
    Forgotten,
    as_user_ids,
    held,
    read_forgotten,
    remember,
    take_back,
    users_in,
    without,
)
from mtrec.data.versioning import push, restore
from mtrec.errors import DataError

if TYPE_CHECKING:
    from mtrec.config import Scenario


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """What `forget` did."""

    before: str
    """The data version that it started from."""
    version: str
    """The one without the users; the same where it had no row of theirs."""
    rows: dict[str, int]
    """Rows per table that went."""
    again: int
    """How many of the users were on the list already."""


def forget(
    users: Iterable[str], *, scenario: str, version: str, root: Path, allow_unknown: bool = False
) -> Deletion:
    """Make a data version without these users, and leave them out of all data to come.

    Whoever the scenario forgot before is left out of the new version too. The list is written last, in one step: a
    kill before it leaves everything as it was, but for a version in the remote that nothing names.

    Args:
        users: ids.
        scenario: name of the scenario whose users they are.
        version: the data version to start from, or its beginning.
        root: the DVC repository.
        allow_unknown: remember also users whom neither the version nor the list has.

    Raises:
        DataError: an unknown user, a version that is not there or holds no contract tables, no interaction would be
            left, or the list cannot be read. Nothing was written.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be used.
    """
    wanted = as_user_ids(users)
    if not (root / ".dvc").is_dir():
        raise DataError(f"{root}: not a DVC repository, so there is no data version to forget users from")
    with held(root):
        before, (tables,) = _read(version, root)
        listed = read_forgotten(root, scenario)
        known = {user for user in wanted if listed.pseudonym(user) in listed.when}
        strange = sorted(set(wanted) - known - users_in(tables))
        if strange and not allow_unknown:
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            raise DataError(
                f"{', '.join(strange[:5])}{more}: not in data version {before}; nothing was changed. With "
                "--allow-unknown they are left out of data to come all the same"
            )
        left = listed.leave_out(tables)
        here = users_in(left).intersection(wanted)
        left = without(left, here) if here else left
        rows = {name: count - left.num_rows[name] for name, count in tables.num_rows.items()}
        if not left.interactions.height:
            raise DataError(f"{before}: without these users it has no interaction left; nothing was changed")
        after = before if left is tables else _pushed(left, root)
        remember(root, scenario, wanted)
    return Deletion(before=before, version=after, rows=rows, again=len(known))


def recall(users: Iterable[str], *, scenario: str, root: Path) -> None:
    """Take users off the list: their rows come back with the next data that has them.

    Raises:
        DataError: one of them was never forgotten, and nothing was changed; or the list cannot be read.
    """
    wanted = as_user_ids(users)
    if not (root / ".dvc").is_dir():
        raise DataError(f"{root}: not a DVC repository, so nobody was forgotten there")
    with held(root):
        take_back(root, scenario, wanted)


def held_by(version: str, forgotten: Forgotten, root: Path, scenario: Scenario | None = None) -> dict[str, str]:
    """Which forgotten users a data version holds.

    Args:
        version: the data version.
        forgotten: the users to look for.
        root: the DVC repository.
        scenario: says how raw drops are read; without it only contract tables are.

    Returns:
        Pseudonym → when it was forgotten.

    Raises:
        DataError: the version is not whole in the remote, or cannot be read.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be read.
    """
    found: dict[str, str] = {}
    for tables in _read(version, root, scenario)[1]:
        found |= forgotten.among(tables)
    return found


def _read(version: str, root: Path, scenario: Scenario | None = None) -> tuple[str, list[Tables]]:
    """A whole version and its tables; of raw drops those of each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        whole = restore(version, folder, root)
        if is_contract(folder):
            return whole, [Tables.read(folder)]
        if scenario is None:
            raise DataError(f"{whole}: holds no contract tables; give a version that a run made of its data")
        try:
            return whole, [read_drop(scenario, drop) for drop in drops_in(scenario, folder)]
        except DataError as error:
            raise DataError(str(error).replace(str(folder), whole)) from error


def _pushed(tables: Tables, root: Path) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        tables.write(Path(temporary) / "tables")
        return push(Path(temporary) / "tables", root)
