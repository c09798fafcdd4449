import gzip
import logging
from pathlib import Path

import pytest

from mtrec.data import reading_text
from mtrec.data.reading_text import check_file, read_lines, read_text
from mtrec.errors import DataError

TEXT = "title\nAmélie, “Ωμέγα”\n"


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_come_out_as_utf8(tmp_path: Path, encoding: str) -> None:
    text = TEXT if encoding.startswith(("utf-8", "utf-32")) or encoding == "utf-16" else "title\nAmelie\n"
    assert read_text(write(tmp_path, text.encode(encoding))).decode() == text


def test_cp1252_is_read_and_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        text = read_text(write(tmp_path, "id\n1\ncafé – 5 €\n".encode("cp1252")))
    assert text.decode() == "id\n1\ncafé – 5 €\n"
    assert "line 3 is not UTF-8 (byte 0xe9)" in caplog.text


def test_bytes_that_cp1252_lacks_are_read_as_latin1(tmp_path: Path) -> None:
    assert read_text(write(tmp_path, b"id\ncaf\xe9 \x81\n")).decode() == "id\ncafé \x81\n"


def test_one_bad_byte_leaves_the_rest_of_a_utf8_file_intact(tmp_path: Path) -> None:
    content = "id\nΩμέγα\n".encode() + b"caf\xe9\n" + "naïve\n".encode()
    assert read_text(write(tmp_path, content)).decode() == "id\nΩμέγα\ncafé\nnaïve\n"


def test_a_bad_byte_beyond_the_first_chunk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_text, "_CHUNK_BYTES", 8)
    good = "id\n" + "é" * 21 + "\n"
    assert read_text(write(tmp_path, good.encode())).decode() == good
    assert read_text(write(tmp_path, good.encode() + b"x\xe9")).decode() == good + "xé"
    assert read_text(write(tmp_path, b"id\n1234\xc3")).decode() == "id\n1234Ã", "a sequence cut off at the end"


def test_a_stray_nul_is_dirt_not_a_binary_file(tmp_path: Path) -> None:
    content = b"id,name\n" + b"1,somebody\n" * 30 + b"2,a\x00b\n"
    assert read_text(write(tmp_path, content)) == content


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04rest", "a zip archive or Excel workbook"),
        (b"BZh91AY", "bzip2"),
        (b"%PDF-1.7", "a PDF"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (bytes(range(256)) * 4, "binary data"),
        (b"", "empty"),
        (b"\n \n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-6], "gzip data is broken"),
        (b"\x1f\x8bnot really", "gzip data is broken"),
        ("id\n1\n".encode("utf-16")[:-1], "begins as utf-16 and breaks"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_text(write(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path / "t.csv"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_come_with_their_numbers(tmp_path: Path, encoding: str) -> None:
    content = "first\n\n  \nfünfte €\n".encode(encoding)
    expected = [(1, "first"), (4, "fünfte €")]
    assert [(n, line.strip()) for n, line in read_lines(write(tmp_path, content))] == expected
    zipped = write(tmp_path, gzip.compress(content))
    assert [(n, line.strip()) for n, line in read_lines(zipped)] == expected


def test_lines_in_another_encoding_are_read_and_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        lines = [line for _, line in read_lines(write(tmp_path, b"ok\ncaf\xe9\n"))]
    assert lines == ["ok\n", "café\n"]
    assert "line 2 is not UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"), (b"\n \n", "empty"), (b"PK\x03\x04", "zip archive"),
        (gzip.compress(b"a\n" * 9, mtime=0)[:-6], "gzip data is broken"),
        (b"\x1f\x8bnot really", "gzip data is broken"),
    ],
)  # fmt: skip
def test_lines_of_what_is_no_text_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        list(read_lines(write(tmp_path, content)))


def test_a_missing_file_says_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, b"x")
    with pytest.raises(DataError, match=r"r\.csv: no such file \(the folder holds: t\.csv\)"):
        check_file(tmp_path / "r.csv")
    with pytest.raises(DataError, match="no such folder"):
        check_file(tmp_path / "nowhere" / "r.csv")
    with pytest.raises(DataError, match="is a folder, not a file"):
        check_file(tmp_path)
