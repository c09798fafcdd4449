"""The DVC remote behind `mtrec.data.versioning`: hash a folder, store its files by hash, read them back.

The layout is that of DVC itself (files/md5/<2 digits>/<30 digits>): `dvc pull` and `dvc push` share the remote.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtrec.data.contract import replacing_file
from mtrec.errors import ConfigError, DataError, RunError, Unavailable

if TYPE_CHECKING:
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

_CONFIG = """\
[core]
    analytics = false
    no_scm = true
    remote = local
['remote "local"']
    url = ../../{name}-remote
"""


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what DVC and the file system raise into one line that names the repository."""
    from dvc.config import ConfigError as RepositoryConfigError
    from dvc.exceptions import DvcException
    from dvc.fs import AuthError, RemoteMissingDepsError
    from dvc_objects.errors import ObjectDBError

    try:
        yield
    except (RepositoryConfigError, RemoteMissingDepsError) as error:
        raise ConfigError(f"{root / '.dvc' / 'config'}: {one_line(error)}") from error
    except OSError as error:
        raise Unavailable(f"DVC remote of {root}: {one_line(error)}") from error
    except (DvcException, AuthError, ObjectDBError) as error:
        raise RunError(f"DVC remote of {root}: {one_line(error)}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "botocore":  # not there, where no remote is a bucket
            raise
        raise Unavailable(f"DVC remote of {root}: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return an exception's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the repository against other processes; the lock ends with the process."""
    from filelock import FileLock

    path = root / ".dvc" / "tmp" / "mtrec.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def _create(root: Path) -> None:
    """Make the folder a DVC repository with a local remote beside it, unless it is one."""
    config = root / ".dvc" / "config"
    if config.is_file():
        return
    if (root / ".dvc").is_dir():
        raise ConfigError(f"{config}: missing, so there is no remote; add one with 'dvc remote add -d NAME URL'")
    with replacing_file(config) as temporary:
        temporary.write_text(_CONFIG.format(name=root.resolve().name), encoding="utf-8")


def open_remote(root: Path) -> HashFileDB:
    """Open the object store of a repository's default remote.

    Raises:
        ConfigError: there is no default remote, or one that mtrec cannot use.
    """
    from dvc.cachemgr import CacheManager
    from dvc.config import Config
    from dvc.fs import get_cloud_fs
    from dvc_data.hashfile.db import get_odb

    with explained(root):
        config = Config(str((root / ".dvc").resolve()))
        name = config["core"].get("remote")
        if not name:
            raise ConfigError(
                f"{root / '.dvc' / 'config'}: no default remote; add one with 'dvc remote add -d NAME URL'"
            )
        kind, options, path = get_cloud_fs(config, name=name)
        if options.get("worktree") or options.get("version_aware"):
            raise ConfigError(
                f"{root / '.dvc' / 'config'}: remote '{name}' is cloud-versioned and keeps no objects by "
                "hash; use a plain remote"
            )
        filesystem = kind(**options)
        path = filesystem.join(path, CacheManager.FILES_DIR, "md5")
        return get_odb(filesystem, path, hash_name="md5", **options)


def hash_folder(folder: Path) -> tuple[Meta, Tree]:
    """Build DVC's tree of a folder in memory: its files with their hashes.

    Raises:
        DataError: no such folder, an empty one, an unreadable file, or a `.dvcignore` inside.
    """
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter
    from dvc_data.hashfile.build import IgnoreInCollectedDirError, build
    from dvc_data.hashfile.db import get_odb
    from dvc_data.hashfile.tree import Tree

    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    path = str(folder.resolve())
    try:
        _, meta, tree = build(
            get_odb(localfs, path, hash_name="md5"),
            path,
            localfs,
            "md5",
            dry_run=True,
            ignore=DvcIgnoreFilter(localfs, path),
        )
    except IgnoreInCollectedDirError as error:
        raise DataError(f"{folder}: holds a .dvcignore file, which DVC refuses inside a data version") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be versioned ({one_line(error)})") from error
    assert isinstance(tree, Tree)
    if not len(tree):
        raise DataError(f"{folder}: holds no file; an empty folder cannot be a data version")
    return meta, tree


def push_folder(folder: Path, root: Path) -> tuple[Meta, Tree]:
    """Hash a folder and store its files in the default remote of the repository at `root`, created if absent.

    Raises:
        DataError: the folder cannot be hashed, or its files changed while they were sent.
        ConfigError: the repository names no usable remote.
        RunError: the remote did not take the bytes.
    """
    from dvc.fs import localfs

    meta, tree = hash_folder(folder)
    _create(root)
    store = open_remote(root)
    source = folder.resolve()
    objects = {str(oid.value): str(source.joinpath(*key)) for key, _, oid in tree if oid}
    with explained(root), locked(root):
        present = set(store.oids_exist(list(objects)))
        missing = {oid: path for oid, path in objects.items() if oid not in present}
        _upload(store, localfs, missing)
        # On a local remote DVC re-reads what it wrote and drops what does not match its hash.
        absent = set(missing) - set(store.oids_exist(list(missing)))
        if absent:
            names = sorted(Path(objects[oid]).relative_to(source).as_posix() for oid in absent)
            raise DataError(f"{folder}: {', '.join(names[:3])} changed while being versioned; try again later")
        _upload(store, tree.fs, {str(tree.oid): str(tree.path)})
    return meta, tree


def _upload(store: HashFileDB, source: Any, objects: dict[str, str]) -> None:
    """Send files of the file system `source` under their hashes."""
    failures: list[str] = []
    store.add(
        list(objects.values()),
        source,
        list(objects),
        check_exists=False,
        batch_size=store.fs.jobs,
        verify=store.fs.protocol == "local",
        on_error=lambda oid, error: failures.append(one_line(error)),
    )
    if failures:
        raise Unavailable(f"{store.path}: {len(failures)} of {len(objects)} files not stored ({failures[0]})")


def read_tree(store: HashFileDB, version: str) -> Tree | None:
    """Read the object that names a folder's files, checked by its own hash.

    Returns:
        The tree, or None where the remote has no such version.

    Raises:
        DataError: the object is damaged.
    """
    from dvc_data.hashfile.tree import Tree

    path = store.oid_to_path(version)
    if not re.fullmatch(r"[0-9a-f]{32}\.dir", version) or not store.fs.exists(path):
        return None
    content = store.fs.cat_file(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir" != version:
        raise _damaged(path, version)
    return Tree.from_list(json.loads(content), hash_name="md5")


def _damaged(path: str, version: str) -> DataError:
    return DataError(
        f"{path}: damaged, its md5 differs from its name, so {version} cannot be restored; "
        "delete that file and push the data again from a good copy"
    )


def download(store: HashFileDB, tree: Tree, to: Path, version: str) -> None:
    """Copy every file of a tree from the remote into the folder `to` and check it by its md5.

    Raises:
        DataError: an object is missing or damaged, or a file would land outside the folder.
    """
    from dvc.fs import generic, localfs
    from dvc_data.hashfile.hash import file_md5

    entries = [("/".join(key), str(oid.value)) for key, _, oid in tree if oid]
    for name, _ in entries:
        if not (to / name).resolve().is_relative_to(to.resolve()):
            raise DataError(f"{version}: names a file outside its folder ({name}); it is not safe to restore")
    sources = [store.oid_to_path(oid) for _, oid in entries]
    targets = [str(to / name) for name, _ in entries]
    absent: list[str] = []

    def on_error(source: str, _target: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error
        absent.append(source)

    generic.copy(store.fs, sources, localfs, targets, batch_size=store.fs.jobs, on_error=on_error)
    if absent:
        raise DataError(f"{absent[0]}: missing in the remote, so {version} cannot be restored; push the data again")
    for (_, oid), source, target in zip(entries, sources, targets, strict=True):
        if file_md5(target, localfs) != oid:
            raise _damaged(source, version)
