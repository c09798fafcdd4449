"""Data versions: DVC's directory hash names the bytes, a DVC remote keeps them.

DVC is used through its Python API, which sends no analytics. A DVC repository is a folder that holds `.dvc`.
Where there is none the embedded one is used: `.mtrec/dvc`, without source control, with the local remote
`.mtrec/dvc-remote` beside it; it is created on first use.

    directory_hash(folder)            the md5 that `dvc add folder` would write, "….dir"
    push(folder, root)                hash, and the bytes into the remote; no pointer file
    snapshot(folder, name, root)      push, plus data/<name>.dvc and a line in data/versions.jsonl
    versions(root)                    every snapshot, oldest first
    known_versions(root)              these and what else the remote has
    restore(version, to, root)        the exact bytes back from the remote, each file checked by its md5

Bytes go from the folder straight to the remote and back: there is no copy in a local DVC cache.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.data.dvc_remote import (
    download,
    explained,
    hash_folder,
    locked,
    one_line,
    open_remote,
    push_folder,
    read_tree,
)
from mtrec.errors import DataError

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

EMBEDDED = Path(".mtrec/dvc")
HISTORY = "data/versions.jsonl"


@dataclass(frozen=True, kw_only=True)
class DataVersion:
    """One data drop that was versioned."""

    name: str
    version: str
    """DVC's hash of the folder: 32 hexadecimal digits and `.dir`."""
    pointer: str
    """The `.dvc` file, relative to the DVC repository's root."""
    num_files: int
    num_bytes: int
    time: str
    """When it was versioned, ISO 8601 in UTC."""


def directory_hash(folder: Path) -> str:
    """Compute DVC's hash of a folder from its bytes alone.

    It equals the md5 that `dvc add` writes. A `.dvcignore` above the folder plays no part: the hash
    depends on the folder's content only, not on where it lies.

    Args:
        folder: any folder with at least one file.

    Returns:
        32 hexadecimal digits and `.dir`.

    Raises:
        DataError: no such folder, an empty one, an unreadable file, or a `.dvcignore` inside.
    """
    _, tree = hash_folder(folder)
    return str(tree.oid)


def push(folder: Path, root: Path = EMBEDDED) -> str:
    """Hash a folder and put its bytes into the DVC remote.

    Files that the remote has are not sent again, so it may be repeated; processes that push at the same time
    wait for each other. Each stored object is complete, and the object that names the folder comes last.

    Args:
        folder: any folder with at least one file.
        root: root of a DVC repository; created with a local remote beside it when it holds no `.dvc`.

    Returns:
        The data version: DVC's hash of the folder.

    Raises:
        DataError: the folder cannot be hashed, or its files changed while they were sent.
        ConfigError: the repository names no usable remote.
        RunError: the remote did not take the bytes.
    """
    return str(push_folder(folder, root)[1].oid)


def snapshot(folder: Path, name: str | None = None, root: Path | None = None) -> DataVersion:
    """Version a new data drop: push its bytes, write its pointer, and remember it.

    In the DVC repository at `root` it writes `data/<name>.dvc`, so that `dvc pull data/<name>.dvc` brings the
    newest drop, and adds a line to `data/versions.jsonl`. The same bytes twice in a row add one line.

    Args:
        folder: the data as it came.
        name: letters, digits, `.`, `_` and `-`; names the series of drops. By default the folder's own name.
        root: the DVC repository; by default the one around the working directory, else the embedded one.

    Returns:
        The version.

    Raises:
        DataError: a bad name, a folder that cannot be versioned, or a name that a pipeline output has taken.
        ConfigError: the repository names no usable remote.
        RunError: the remote did not take the bytes.
    """
    own = "" if name else " (the folder's name; give --name)"
    name = name or folder.resolve().name
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise DataError(
            f"'{name}'{own}: not a name for a data version; use letters, digits, '.', '_' and '-', like sales-2026"
        )
    root = repository() if root is None else root
    meta, tree = push_folder(folder, root)
    drop = DataVersion(
        name=name,
        version=str(tree.oid),
        pointer=f"data/{name}.dvc",
        num_files=int(meta.nfiles or 0),
        num_bytes=int(meta.size or 0),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with locked(root):
        known = versions(root)
        _write_pointer(root, drop, meta, tree)
        earlier = [other for other in known if other.name == name]
        if earlier and earlier[-1].version == drop.version:
            return earlier[-1]
        lines = [json.dumps(asdict(other), ensure_ascii=False) for other in [*known, drop]]
        with replacing_file(root / HISTORY) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return drop


def versions(root: Path | None = None) -> list[DataVersion]:
    """List every snapshot, oldest first.

    Args:
        root: as for `snapshot`.

    Raises:
        DataError: the history file is damaged.
    """
    path = (repository() if root is None else root) / HISTORY
    if not path.is_file():
        return []
    drops = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            drops.append(DataVersion(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a data version ({error}); mend that line") from error
    return drops


def known_versions(root: Path) -> list[str]:
    """The snapshots, and every other version in a remote that is cheap to list.

    Raises:
        DataError: the history file is damaged.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be read.
    """
    if not (root / ".dvc").is_dir():
        return []
    store = open_remote(root)
    with explained(root):
        return list(listed_versions(store, root))


def restore(version: str, to: Path, root: Path | None = None) -> str:
    """Bring back the exact bytes of a data version from the remote.

    Every file is checked by its md5 before anything appears at `to`.

    Args:
        version: what `directory_hash`, `push` or `snapshot` returned, or the beginning of it: at least 4 digits
            that only one version among the snapshots, or in a remote that is cheap to list, begins with.
        to: a folder that does not exist yet or is empty; one that holds this version already is left alone.
        root: as for `snapshot`.

    Returns:
        The whole version.

    Raises:
        DataError: an unknown or ambiguous version (the message names the known ones), a damaged or missing object
            in the remote, or a `to` that holds something else.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be read.
    """
    root = repository() if root is None else root
    if not (root / ".dvc").is_dir():
        raise DataError(f"{root}: not a DVC repository; nothing was versioned there")
    store = open_remote(root)
    version = whole_version(version, store, root)
    with explained(root):
        tree = read_tree(store, version)
    if tree is None:
        raise DataError(f"{version}: no such data version in {store.path} ({_known(store, root)})")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        if to.is_dir() and directory_hash(to) == version:
            return version
        raise DataError(f"{to}: exists and holds something else; give a folder that does not exist yet")
    with explained(root), replacing_folder(to) as temporary:
        download(store, tree, temporary, version)
    return version


def repository() -> Path:
    """The DVC repository around the working directory, else the embedded one."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_root())
    except NotDvcRepoError:
        return EMBEDDED


def _write_pointer(root: Path, drop: DataVersion, meta: Meta, tree: Tree) -> None:
    """Write the `.dvc` file (and the .gitignore entry of the data it points to) as DVC itself does."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    folder = root.resolve() / Path(drop.pointer).parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with Repo(str(root.resolve()), _wait_for_lock=True) as repo, repo.lock, repo.scm_context(quiet=True):
            stage = repo.stage.create(
                single_stage=True,
                validate=False,
                fname=str(root.resolve() / drop.pointer),
                wdir=str(folder),
                outs=[drop.name],
                force=True,
            )
            repo.check_graph(stages=[stage])
            (out,) = stage.outs
            out.hash_info, out.meta = tree.hash_info, meta
            out.ignore()
            stage.dump()
    except DvcException as error:
        raise DataError(f"{root / drop.pointer}: DVC refuses this pointer ({one_line(error)})") from error


def whole_version(version: str, store: HashFileDB, root: Path) -> str:
    """The known version that begins with `version`; itself where none does."""
    if not re.fullmatch(r"[0-9a-f]{4,32}", version):
        return version
    found = [known for known in listed_versions(store, root) if known.startswith(version)]
    if len(found) > 1:
        raise DataError(f"{version}: {len(found)} data versions begin with it ({', '.join(found[:5])}); give more")
    return found[0] if found else version


def _known(store: HashFileDB, root: Path) -> str:
    """Say which versions exist."""
    drops = list(listed_versions(store, root).values())
    rest = f" and {len(drops) - 5} more" if len(drops) > 5 else ""
    return f"known: {', '.join(drops[:5])}{rest}" if drops else "none is known there"


def listed_versions(store: HashFileDB, root: Path) -> dict[str, str]:
    """Each version with a few words: the snapshots, and the other folders of a remote that is cheap to list."""
    drops = {drop.version: f"{drop.version} ({drop.name}, {drop.time})" for drop in reversed(versions(root))}
    if store.fs.protocol == "local" and store.fs.exists(store.path):
        for oid in sorted(store._list_oids()):
            if oid.endswith(".dir"):
                drops.setdefault(oid, oid)
    return drops
