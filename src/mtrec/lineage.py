"""What a run was made from: the revision of the code and a cheap fingerprint of the data."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def code_revision() -> str:
    """The revision of the code that runs.

    Returns:
        In an image what it was built from, as in its label. In a git checkout the commit; with local changes
        `<commit>-dirty+<hash of the sources>`. Elsewhere `sources-<hash of the installed package's sources>`.
        Equal text means equal code; an image of uncommitted code says `<commit>-dirty+<hash of its sources>`.
    """
    if built := built_from():
        return built
    root = _checkout()
    if root is None:
        return f"sources-{_hash_files([_PACKAGE])}"
    folders = [folder for folder in (_PACKAGE, root / "components", root / "pipelines") if folder.is_dir()]
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *(str(folder) for folder in folders))
    if commit is None or changed is None:
        return f"sources-{_hash_files([_PACKAGE])}"
    return f"{commit}-dirty+{_hash_files(folders)}" if changed else commit


def built_from() -> str | None:
    """What the image was built from in which this runs; None outside of mtrec's images."""
    written = _PACKAGE / "REVISION"
    if not written.is_file():
        return None
    revision = written.read_text(encoding="utf-8").strip()
    return f"{revision}+{_hash_files([_PACKAGE])}" if revision.endswith("-dirty") else revision


def data_fingerprint(data: Path | None) -> str:
    """A cheap fingerprint of raw data: names, sizes and modification times, never the content.

    Args:
        data: a file or folder; None for data that the scenario makes itself.

    Returns:
        sha256 in hex, or "none". The exact content is what DVC's hash of the ingested tables stands for.
    """
    if data is None:
        return "none"
    digest = hashlib.sha256()
    paths = [data] if data.is_file() else sorted(path for path in data.rglob("*") if path.is_file())
    for path in paths:
        status = path.stat()
        name = path.name if path == data else path.relative_to(data).as_posix()
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _checkout() -> Path | None:
    """Root of the git checkout that tracks this package, or None (an installed copy, or no git)."""
    if not any((folder / ".git").exists() for folder in _PACKAGE.parents):
        return None
    if _git(_PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    top = _git(_PACKAGE, "rev-parse", "--show-toplevel")
    return Path(top) if top else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _hash_files(folders: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(path.read_bytes())
            digest.update(b"\0")
    return digest.hexdigest()[:16]
