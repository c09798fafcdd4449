"""The bytes of a text file, as UTF-8.

Encodings: UTF-8 (with or without BOM), UTF-16 and UTF-32. Bytes that are no UTF-8 are read as cp1252, or
latin-1 where cp1252 has no character, and a note is logged. Gzip is recognised by its content.
"""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

from mtrec.errors import DataError

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 24
_FOREIGN: dict[bytes, str] = {
    b"PK\x03\x04": "a zip archive or Excel workbook; unpack it, or export the sheet as CSV",
    b"BZh": "bzip2 data; unpack it first",
    b"\xfd7zXZ": "xz data; unpack it first",
    b"\x28\xb5\x2f\xfd": "zstandard data; unpack it first",
    b"7z\xbc\xaf": "a 7-zip archive; unpack it first",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"version https://git-lfs": "a Git LFS pointer; fetch the content with git lfs pull",
}


def check_file(path: Path) -> None:
    """Check that `path` is a readable file.

    Raises:
        DataError: it is missing (the message lists what lies beside it), a folder, or unreadable.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not a file")
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.iterdir())[:12] if path.parent.is_dir() else []
        where = f"the folder holds: {', '.join(beside) or 'nothing'}" if path.parent.is_dir() else "no such folder"
        raise DataError(f"{path}: no such file ({where})")
    try:
        path.open("rb").close()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error


def read_text(path: Path) -> bytes:
    """The file's text as UTF-8 bytes with `\\n` or `\\r\\n` line ends, unzipped and without BOM.

    Raises:
        DataError: missing, empty, broken gzip, or no text.
    """
    check_file(path)
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: the gzip data is broken ({error}). Fetch the file again.") from error
    _refuse_foreign(path, data[:4096])
    data = _to_utf8(path, data)
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    if b"\r" in data[:_CHUNK_BYTES] and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of every non-blank line, in bounded memory whatever the file's size.

    Raises:
        DataError: as `read_text`.
    """
    check_file(path)
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    found = False
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            head = stream.peek(4096)[:4096]
            _refuse_foreign(path, head)
            wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _utf16_without_bom(head)
            for number, line in enumerate(io.BytesIO(read_text(path)) if wide else stream, 1):
                if line.strip():
                    found = True
                    yield number, _decode_line(path, number, line.removeprefix(codecs.BOM_UTF8))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip data is broken ({error}). Fetch the file again.") from error
    if not found:
        raise DataError(f"{path}: the file is empty")


def _decode_line(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        log.warning("%s: line %d is not UTF-8 (%s); such bytes are read as cp1252", path, number, error.reason)
        codecs.register_error("mtrec-cp1252", _as_cp1252)
        return line.decode("utf-8", errors="mtrec-cp1252")


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise DataError(f"{path}: not a text table but {what}")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise DataError(f"{path}: not a text table but an HTML page; a download probably failed. Fetch it again.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _utf16_without_bom(head):
        return
    control = sum(byte < 9 or 13 < byte < 32 for byte in head)
    if control > max(8, 0.05 * len(head)):
        raise DataError(
            f"{path}: not a text table but binary data ({control} control bytes in the first {len(head)})"
        )


def _utf16_without_bom(head: bytes) -> str | None:
    half = len(head) // 2
    if half >= 4:
        if head[1::2].count(0) > 0.6 * half and head[::2].count(0) == 0:
            return "utf-16-le"
        if head[::2].count(0) > 0.6 * half and head[1::2].count(0) == 0:
            return "utf-16-be"
    return None


def _to_utf8(path: Path, data: bytes) -> bytes:
    if data.startswith(codecs.BOM_UTF8):
        data = data[3:]
    encoding = None
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        encoding = _utf16_without_bom(data[:4096])
    if encoding:
        try:
            return data.decode(encoding).encode()
        except UnicodeError as error:
            raise DataError(f"{path}: begins as {encoding} and breaks ({error})") from error
    bad = _first_bad_byte(data)
    if bad is None:
        return data
    line = data.count(b"\n", 0, bad) + 1
    log.warning("%s: line %d is not UTF-8 (byte 0x%02x); such bytes are read as cp1252", path, line, data[bad])
    codecs.register_error("mtrec-cp1252", _as_cp1252)
    return data.decode("utf-8", errors="mtrec-cp1252").encode()


def _first_bad_byte(data: bytes) -> int | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _CHUNK_BYTES):
        piece = data[start : start + _CHUNK_BYTES]
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(piece, final=start + _CHUNK_BYTES >= len(data))
        except UnicodeDecodeError as error:
            return start - pending + error.start
    return None


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    try:
        return wrong.decode("cp1252"), error.end
    except UnicodeDecodeError:
        return wrong.decode("latin-1"), error.end
