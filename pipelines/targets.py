"""Folders and files that a command may write: what people keep there is never replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

TABLES = ("users.parquet", "items.parquet", "interactions.parquet")
"""What `mtrec data simulate` and `mtrec data ingest` write."""
CHECKED: Mapping[str, tuple[str, ...] | None] = {
    "tables": TABLES,
    "quarantine": ("*.parquet",),
    "data_docs": ("index.html", "expectations", "suites", "validations"),
    "validation.json": None,
}
"""What `mtrec data validate` writes: name → patterns of the names inside, or None for a file."""
_SHOWN = 3


def tables_folder(out: Path, data: Path | None) -> Path:
    """Check a folder that is to receive the three contract tables.

    Args:
        out: as the user gave it.
        data: the raw data that is read meanwhile.

    Returns:
        The folder to write; symbolic links are followed.

    Raises:
        InputError: it is a file, the working directory, the raw data or a folder around one of these, or it holds
            anything but contract tables.
    """
    target = new_folder(out, "--out", data)
    _refuse_others(out, _others(target, TABLES))
    return target


def checked_folder(out: Path, data: Path | None) -> Path:
    """Check a folder that is to receive what `mtrec data validate` writes.

    Args, Returns and Raises as `tables_folder`, but an earlier result of the command may be there.
    """
    target = new_folder(out, "--out", data)
    others = _others(target, CHECKED)
    for name, patterns in CHECKED.items():
        if patterns is not None:
            others += [f"{name}/{other}" for other in _others(target / name, patterns)]
    _refuse_others(out, others)
    return target


def new_folder(folder: Path, option: str, data: Path | None = None) -> Path:
    """Check that a folder may be written: it is no file and not around the working directory or the data.

    Raises:
        InputError: it may not; the message names the option.
    """
    from mtrec.errors import InputError

    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise InputError(f"{option} {folder}: is a file; give a new folder")
    parent = next(above for above in target.parents if above.exists())
    if not parent.is_dir():
        raise InputError(f"{option} {folder}: {parent} is a file; give a new folder")
    here = Path.cwd().resolve()
    if here == target or target in here.parents:
        where = "is the working directory" if here == target else "the working directory lies in it"
        raise InputError(f"{option} {folder}: {where}; give a new folder, e.g. {option} {folder / 'tables'}")
    raw = data.resolve() if data else None
    if raw is not None and (raw == target or target in raw.parents):
        where = "is" if raw == target else "lies above"
        raise InputError(f"{option} {folder}: {where} the raw data (--data {data}); give a new folder")
    return target


def new_file(path: Path, option: str, example: str) -> Path:
    """Check that a file may be written; symbolic links are followed.

    Raises:
        InputError: it is a folder, and the message names a file in it, or a device.
    """
    from mtrec.errors import InputError

    target = path.resolve()
    if target.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file, e.g. {option} {path / example}")
    if target.exists() and not target.is_file():
        raise InputError(f"{option} {path}: is a device or the like, no file; give a file, e.g. {option} {example}")
    return target


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, as far as they exist and hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _others(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Names in a folder that fit no pattern; one with a dot in it stands for files, another for folders."""
    if not folder.is_dir():
        return []
    known = list(patterns)

    def fits(path: Path) -> bool:
        return any(path.match(pattern) and path.is_file() == ("." in pattern) for pattern in known)

    return sorted(path.name for path in folder.iterdir() if not fits(path))


def _refuse_others(out: Path, others: list[str]) -> None:
    from mtrec.errors import InputError

    if others:
        names = ", ".join(others[:_SHOWN]) + (", …" if len(others) > _SHOWN else "")
        raise InputError(f"--out {out}: holds other files ({names}); give a new folder")
