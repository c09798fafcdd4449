"""Fetch public data sets that forbid copying, from their publishers.

MovieLens archives are checked against the md5 file that GroupLens publishes beside each of them. The other
publishers give no hash; for those the files' layout is all that can be checked.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mtrec.data.contract import replacing_folder
from mtrec.disk import explain
from mtrec.errors import DataError

Progress = Callable[[str, int, int | None], None]
"""(file name, bytes so far, bytes in all or None)."""

_CHUNK = 1 << 18
_TIMEOUT = 60
_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_TWEETINGS = "https://raw.githubusercontent.com/sidooms/MovieTweetings/master"


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """Where a data set lies."""

    files: dict[str, str]
    """Local name → URL. A .zip is unpacked; other files are kept as they are."""
    md5: bool = False
    """Whether the publisher keeps `<url>.md5` beside each file."""
    scenario: str
    """The scenario that reads it."""
    terms: str
    """Where its licence stands."""


def _movielens(name: str) -> PublicSet:
    readme = "README.txt" if name in ("100k", "1m") else "README.html"
    return PublicSet(
        files={f"ml-{name}.zip": f"{_GROUPLENS}/ml-{name}.zip"},
        md5=True,
        scenario="video",
        terms=f"{_GROUPLENS}/ml-{name}-{readme}",
    )


def _movietweetings(folder: str) -> PublicSet:
    return PublicSet(
        files={name: f"{_TWEETINGS}/{folder}/{name}" for name in ("ratings.dat", "movies.dat")},
        scenario="video",
        terms="https://github.com/sidooms/MovieTweetings",
    )


PUBLIC_SETS: dict[str, PublicSet] = {
    **{
        f"movielens-{name}": _movielens(name)
        for name in ("latest-small", "latest", "100k", "1m", "10m", "20m", "25m", "32m")
    },
    "movietweetings-100k": _movietweetings("snapshots/100K"),
    "movietweetings-200k": _movietweetings("snapshots/200K"),
    "movietweetings-latest": _movietweetings("latest"),
    "online-retail": PublicSet(
        files={"online_retail.csv": "https://archive.ics.uci.edu/static/public/352/data.csv"},
        scenario="online-retail",
        terms="https://archive.ics.uci.edu/dataset/352/online+retail",
    ),
}


def download(name: str, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a public data set into `folder/name`.

    Everything is fetched, checked and unpacked under a temporary name; the folder appears complete or not at
    all. An archive with one top folder is unpacked without it.

    Args:
        name: a key of `PUBLIC_SETS`.
        folder: where data sets are kept.
        progress: called as bytes arrive.

    Returns:
        The data set's folder, ready for `mtrec run --data`.

    Raises:
        DataError: unknown name, no connection, a wrong md5, a broken or unsafe archive, or the folder exists.
    """
    if name not in PUBLIC_SETS:
        raise DataError(f"data set '{name}': unknown; choose one of {', '.join(PUBLIC_SETS)}")
    target = folder / name
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{target}: already there. Remove it to fetch the data set again.")
    public = PUBLIC_SETS[name]
    with replacing_folder(target) as temporary:
        for local, url in public.files.items():
            path = _fetch(url, temporary / local, progress)
            if public.md5:
                _check_md5(path, url)
            if path.suffix == ".zip":
                _unpack(path, temporary, url)
    return target


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "mtrec"})
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _fetch(url: str, path: Path, progress: Progress | None) -> Path:
    """Stream a file to disk, under a temporary name until it is complete."""
    partial = path.with_name(f".{path.name}.part")
    try:
        with _open(url) as response, partial.open("wb") as file:
            length = response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            done = 0
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(path.name, done, total)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the publisher answered {error.code} {error.reason}. Try again later.") from error
    except (OSError, http.client.HTTPException) as error:
        if explain(error):
            raise
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{url}: cannot be reached ({reason}). Check the connection or the proxy settings."
        ) from error
    if total is not None and done != total:
        raise DataError(f"{url}: broke off after {done:,} of {total:,} bytes. Fetch it again.")
    return partial.replace(path)


def _check_md5(path: Path, url: str) -> None:
    """Compare with `<url>.md5`, written as `md5sum` or BSD's `md5` does."""
    try:
        with _open(f"{url}.md5") as response:
            words = response.read(4096).decode("utf-8", errors="replace").split()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{url}.md5: cannot be fetched ({reason}), so the file cannot be checked") from error
    published = next((word.lower() for word in words if _is_md5(word)), None)
    if published is None:
        raise DataError(f"{url}.md5: holds no md5 sum, so the file cannot be checked")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != published:
        raise DataError(f"{url}: md5 is {found}, the publisher says {published}. Fetch it again.")


def _is_md5(word: str) -> bool:
    return len(word) == 32 and all(letter in "0123456789abcdef" for letter in word.lower())


def _unpack(path: Path, folder: Path, url: str) -> None:
    """Unpack next to the archive and remove it; members that point outside are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            parts = {info.filename: PurePosixPath(info.filename.replace("\\", "/")).parts for info in files}
            for name, split in parts.items():
                if not split or split[0] == "/" or ".." in split or ":" in split[0]:
                    raise DataError(f"{url}: the archive holds an unsafe path ({name!r}); nothing was unpacked")
            tops = {split[0] for split in parts.values()}
            strip = len(tops) == 1 and all(len(split) > 1 for split in parts.values())
            for info in files:
                target = folder.joinpath(*parts[info.filename][1 if strip else 0 :])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise DataError(f"{url}: not a readable zip archive ({error}). Fetch it again.") from error
    path.unlink()
