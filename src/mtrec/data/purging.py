"""Deleting a data version from the DVC remote, with the objects that no other version there uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mtrec.data.contract import replacing_file
from mtrec.data.dvc_remote import explained, locked, open_remote, read_tree
from mtrec.data.versioning import HISTORY, versions, whole_version
from mtrec.errors import DataError

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB


def purge(version: str, root: Path) -> tuple[str, int]:
    """Delete a data version from the remote, which is listed whole, and its lines in data/versions.jsonl.

    The object that names the folder goes last: after a kill the same call goes on.

    Args:
        version: the version, or its beginning.
        root: the DVC repository.

    Returns:
        The whole version, and how many objects were deleted.

    Raises:
        DataError: no such version, a remote that cannot be listed, a DVC file that points at it, or another
            version there is damaged, so that nobody knows which objects it needs. Nothing was deleted.
        ConfigError: the repository names no usable remote.
        RunError: the remote could not be used.
    """
    if not (root / ".dvc").is_dir():
        raise DataError(f"{root}: not a DVC repository; there is nothing to delete")
    store = open_remote(root)
    if store.fs.protocol in ("http", "https"):
        raise DataError(
            f"{store.path}: cannot be listed, so what else needs the objects is not known; delete there"
        )
    with explained(root), locked(root):
        version = whole_version(version, store, root)
        needed = _objects(store, version)
        pointers = _pointers(root)
        if version in pointers:
            raise DataError(
                f"{pointers[version]}: points at {version}; take a new snapshot, or 'dvc remove' it first"
            )
        others = [oid for oid in store._list_oids() if oid.endswith(".dir") and oid != version]
        free = needed - {oid for other in others for oid in _objects(store, other)} - set(pointers)
        for oid in [*sorted(free), version]:
            if store.exists(oid):
                store.delete(oid)
        kept = [json.dumps(asdict(d), ensure_ascii=False) for d in versions(root) if d.version != version]
        if (root / HISTORY).is_file():
            with replacing_file(root / HISTORY) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    return version, len(free) + 1


def _objects(store: HashFileDB, version: str) -> set[str]:
    """The files of a version."""
    tree = read_tree(store, version)
    if tree is None:
        raise DataError(f"{version}: no such data version in {store.path}; 'mtrec data versions' lists snapshots")
    return {str(oid.value) for _, _, oid in tree if oid}


def _pointers(root: Path) -> dict[str, str]:
    """What DVC's own files name: hash → file."""
    from dvc.repo import Repo

    with Repo(str(root.resolve())) as repo:
        outs = [out for out in repo.index.outs if out.hash_info]
        return {str(out.hash_info.value): out.stage.relpath for out in outs}
