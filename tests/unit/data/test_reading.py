import csv
import gzip
import io
import logging
import math
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtrec.data.reading import narrow, read_delimited, read_table, rename_columns, require_columns
from mtrec.errors import DataError


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        pytest.param("a,b\n1,x\n2,y\n", [("1", "x"), ("2", "y")], id="plain"),
        pytest.param("a,b\r\n1,x\r\n2,y\r\n", [("1", "x"), ("2", "y")], id="windows line ends"),
        pytest.param("a,b\r1,x\r2,y", [("1", "x"), ("2", "y")], id="old mac line ends"),
        pytest.param("a,b\n1,x\n2,y", [("1", "x"), ("2", "y")], id="no last line end"),
        pytest.param("a,b\n\n1,x\n\n2,y\n\n", [("1", "x"), ("2", "y")], id="blank lines"),
        pytest.param("\n \na;b\n1;x\n", [("1", "x")], id="blank lines before the header"),
        pytest.param("a;b\n1;x\n2;3,5\n", [("1", "x"), ("2", "3,5")], id="semicolons"),
        pytest.param("a\tb\n1\tx\n", [("1", "x")], id="tabs"),
        pytest.param("a|b\n1|x\n", [("1", "x")], id="bars"),
        pytest.param("a::b\n1::x: y\n", [("1", "x: y")], id="double colons"),
        pytest.param('a,b\n1,"x, y"\n', [("1", "x, y")], id="quoted separator"),
        pytest.param('a,b\n1,"x ""z"" y"\n', [("1", 'x "z" y')], id="doubled quotes"),
        pytest.param('a,b\n1,"x\ny"\n2,z\n', [("1", "x\ny"), ("2", "z")], id="line break in quotes"),
        pytest.param('a,b\n1,5" pipe\n', [("1", '5" pipe')], id="quote inside a field"),
        pytest.param("a,b\n1,\n,x\n", [("1", None), (None, "x")], id="empty cells are null"),
        pytest.param("a,b\n1,x,\n2,y,,\n", [("1", "x"), ("2", "y")], id="separators at the end"),
        pytest.param('a,b\n1,"x",\n', [("1", "x")], id="separators at the end, quoted"),
        pytest.param(" a , b\n1,x\n", [("1", "x")], id="blanks around names"),
    ],
)
def test_delimited_text_is_read_as_text(tmp_path: Path, content: str, rows: list[tuple[str | None, ...]]) -> None:
    frame = read_delimited(write(tmp_path / "t.csv", content))
    assert frame.columns == ["a", "b"]
    assert set(frame.dtypes) == {pl.String}
    assert frame.rows() == rows


def test_a_gzipped_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    text = "a,b\n1,x\n"
    plain = read_table(write(tmp_path / "t.csv", text))
    zipped = read_table(write(tmp_path / "z.csv.gz", gzip.compress(text.encode())))
    misnamed = read_table(write(tmp_path / "m.csv", gzip.compress(text.encode())))
    assert plain.equals(zipped)
    assert plain.equals(misnamed)


def test_files_without_header_take_the_given_names(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", "1::10::5::978300760\n1::11::3::978302109\n")
    frame = read_delimited(path, separator="::", columns=["user", "item", "rating", "time"])
    assert frame.rows() == [("1", "10", "5", "978300760"), ("1", "11", "3", "978302109")]


def test_quotes_mean_nothing_where_a_format_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "u.item", '1|"Open|x\n2|Shut"|y\n')
    frame = read_delimited(path, separator="|", columns=["id", "title", "z"], quoted=False)
    assert frame.rows() == [("1", '"Open', "x"), ("2", 'Shut"', "y")]


def test_short_lines_are_kept_and_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in {"p.csv": "a,b,c\n1,2,3\n4\n5,6\n", "q.csv": 'a,b,c\n1,2,"3"\n4\n5,6\n'}.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            frame = read_delimited(write(tmp_path / name, content))
        assert frame.rows() == [("1", "2", "3"), ("4", None, None), ("5", "6", None)]
        assert "2 lines have fewer than 3 fields (the first is line 3)" in caplog.text


def test_a_long_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    for name, content in {"p.csv": "a,b\n1,2\n\n3,4,5\n", "q.csv": 'a,b\n1,"2\n"\n3,4,5\n'}.items():
        path = write(tmp_path / name, content)
        with pytest.raises(DataError, match=r"[pq]\.csv:4: 3 fields where 2 columns are known \(a, b\)"):
            read_delimited(path)


def test_broken_quotes_name_the_line_where_they_begin(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: broken quotes \(a quote is never closed\)"):
        read_delimited(write(tmp_path / "t.csv", 'a,b\n1,"x"\n2,"y\n3,z\n'))
    with pytest.raises(DataError, match=r"t\.csv:2: broken quotes"):
        read_delimited(write(tmp_path / "t.csv", 'a,b\n1,"x\n2,"y"\n'))


def test_a_huge_field_survives(tmp_path: Path) -> None:
    big = "x" * 3_000_000
    for quote in ("", '"'):
        frame = read_delimited(write(tmp_path / "t.csv", f"a,b\n1,{quote}{big}{quote}\n"))
        assert frame["b"].str.len_chars().to_list() == [3_000_000]
    assert csv.field_size_limit() == 131_072, "the limit of the csv module must be put back"


def test_parquet_and_json_lines_are_recognised(tmp_path: Path) -> None:
    expected = pl.DataFrame({"id": ["7"], "tags": [["a", "b"]]})
    expected.write_parquet(tmp_path / "t.data")
    assert read_table(tmp_path / "t.data").equals(expected)
    assert read_table(write(tmp_path / "t.jsonl", '{"id": 7, "tags": ["a", "b"]}\n')).equals(expected)


CELL = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=8))
def test_whatever_csv_writes_comes_back(rows: list[tuple[str, str, str]]) -> None:
    """Nothing is lost or moved: every non-blank row that Python's csv module writes is read back cell by cell."""
    rows = [("first", *row) for row in rows]  # type: ignore[misc]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("n", "a", "b", "c"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        frame = read_delimited(write(Path(folder) / "t.csv", text.getvalue()), separator=",")
    assert frame.rows() == [tuple(cell or None for cell in row) for row in rows]


# ------------------------------------------------------------------------------------------------- narrow


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(["1", "-2", None], [1, -2, None], id="whole numbers"),
        pytest.param(["1.5", "2", "1e3"], [1.5, 2.0, 1000.0], id="real numbers"),
        pytest.param(["4.0", "3.5"], [4.0, 3.5], id="ratings"),
        pytest.param(["true", "False", None], [True, False, None], id="booleans"),
        pytest.param(["1", "abc"], ["1", "abc"], id="one word keeps the column text"),
        pytest.param(["1", " "], ["1", " "], id="a blank keeps the column text"),
        pytest.param(["0123", "4567"], ["0123", "4567"], id="leading zeros are codes"),
        pytest.param(["+49", "+1"], ["+49", "+1"], id="plus signs are codes"),
        pytest.param(["1234567890123456"], ["1234567890123456"], id="more than 15 digits are codes"),
        pytest.param(["1", "true"], ["1", "true"], id="mixed kinds stay text"),
        pytest.param(["1,5"], ["1,5"], id="decimal commas stay text"),
        pytest.param([None, None], [None, None], id="nothing stays nothing"),
        pytest.param(["1e999"], ["1e999"], id="huge exponents stay text"),
    ],
)
def test_narrow_casts_only_what_survives(values: list[str | None], expected: list[object]) -> None:
    narrowed = narrow(pl.DataFrame({"x": pl.Series(values, dtype=pl.String)}))["x"]
    assert narrowed.to_list() == expected
    assert [type(v) for v in narrowed.to_list()] == [type(v) for v in expected]


def test_narrow_keeps_nan_and_infinity_as_numbers() -> None:
    narrowed = narrow(pl.DataFrame({"x": ["NaN", "inf", "-inf", "1.5"]}))["x"]
    assert narrowed.dtype == pl.Float64
    assert math.isnan(narrowed[0])
    assert narrowed.to_list()[1:] == [math.inf, -math.inf, 1.5]


def test_narrow_leaves_named_columns_alone() -> None:
    frame = pl.DataFrame({"title": ["1984", "300"], "year": ["1949", "2006"]})
    assert narrow(frame, keep=("title",)).schema == {"title": pl.String, "year": pl.Int64}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers().map(str),
            st.floats(allow_nan=False).map(repr),
            st.sampled_from(["007", "x", "", "true", "1.", ".5", "-0", "٣", "1_000", "0x1F"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_narrow_never_changes_a_value(values: list[str]) -> None:
    narrowed = narrow(pl.DataFrame({"x": pl.Series(values, dtype=pl.String)}))["x"]
    if narrowed.dtype == pl.String:
        assert narrowed.to_list() == values
    elif narrowed.dtype == pl.Int64:
        assert [str(v) for v in narrowed.to_list()] == values
    elif narrowed.dtype == pl.Float64:
        assert narrowed.to_list() == [float(v) for v in values]
    else:
        assert narrowed.to_list() == [v == "true" for v in values]


# ------------------------------------------------------------------------------------------------- columns


def test_missing_columns_are_named_with_what_was_found() -> None:
    frame = pl.DataFrame({"id": [1], "name": ["x"]})
    with pytest.raises(DataError) as caught:
        require_columns(
            frame, Path("data/items.csv"), ["title", "id", "price"], "Map it under source.items.columns."
        )
    assert str(caught.value) == (
        "data/items.csv: columns 'title', 'price' are missing (found: id, name). Map it under source.items.columns."
    )
    require_columns(frame, Path("x.csv"), ["id"], "")


def test_rename_selects_and_skips_the_absent() -> None:
    frame = pl.DataFrame({"userId": [1], "noise": [2]})
    assert rename_columns(frame, {"user_id": "userId", "rating": "stars"}).to_dict(as_series=False) == {
        "user_id": [1]
    }
