import gzip
from pathlib import Path

import polars as pl
import pytest

from mtrec.data import reading_json
from mtrec.data.reading_json import first_object, read_json_lines
from mtrec.errors import DataError


def write(tmp_path: Path, text: str, name: str = "t.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_scalars_become_text_and_lists_become_lists(tmp_path: Path) -> None:
    text = (
        '{"id": 7, "ok": true, "price": 1.50, "tags": ["a", ["b", 3]], "more": {"x": "é"}}\n'
        "\n"
        '{"id": "x", "ok": null, "tags": null, "late": ""}\n'
    )
    frame = read_json_lines(write(tmp_path, text, "t.jsonl.gz"))
    assert frame.to_dicts() == [
        {"id": "7", "ok": "true", "price": "1.5", "tags": ["a", "b", "3"], "more": '{"x": "é"}', "late": None},
        {"id": "x", "ok": None, "price": None, "tags": None, "more": None, "late": None},
    ]


def test_a_key_that_is_a_list_once_is_a_list_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_json, "_CHUNK_ROWS", 2)
    path = write(tmp_path, '{"d": "one"}\n{"d": null}\n{"d": ["two", "three"]}\n{"d": "four"}\n{"e": 1}\n')
    frame = read_json_lines(path)
    assert frame["d"].to_list() == [["one"], None, ["two", "three"], ["four"], None]
    assert frame["e"].to_list() == [None, None, None, None, "1"]


def test_only_the_wanted_keys_are_kept_and_absent_ones_are_null(tmp_path: Path) -> None:
    frame = read_json_lines(write(tmp_path, '{"a": 1, "b": 2}\n'), ["a", "z"])
    assert frame.to_dicts() == [{"a": "1", "z": None}]
    assert frame.schema == {"a": pl.String, "z": pl.String}


def test_python_literals_are_read_where_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, "{'asin': 'B01', 'title': \"It's\", 'categories': [['Toys', 'Kites']]}\n")
    frame = read_json_lines(path, literal=True)
    assert frame.to_dicts() == [{"asin": "B01", "title": "It's", "categories": ["Toys", "Kites"]}]
    with pytest.raises(DataError, match=r"t\.jsonl:1: not valid JSON"):
        read_json_lines(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": \n', r"t\.jsonl:3: not valid JSON"),
        ('{"a": 1}\n[1, 2]\n', r"t\.jsonl:2: a JSON list where an object"),
        ('[{"a": 1}]\n', r"holds one JSON array, not one object per line"),
        ("  \n", "the file is empty"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_json_lines(write(tmp_path, text))


def test_the_first_object_is_found_without_reading_the_rest(tmp_path: Path) -> None:
    assert first_object(write(tmp_path, '\n{"a": 1}\nbroken\n', "t.json.gz")) == {"a": 1}


def test_a_line_that_is_neither_json_nor_literal_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "{'a': 1}\n{'a': __import__('os')}\n")
    with pytest.raises(DataError, match=r"t\.jsonl:2: neither JSON nor a Python literal"):
        read_json_lines(path, literal=True)
