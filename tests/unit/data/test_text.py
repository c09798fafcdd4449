"""Text templates."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.data.text import fill_template
from mtrec.errors import ConfigError

ITEMS = pl.DataFrame(
    {
        "title": ["Heat", "  Alien \n 3 ", None],
        "year": [1995.0, None, 2.5],
        "genres": [["Crime", "Drama"], [], None],
        "count": [3, None, 0],
    }
)


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{title}", ["Heat", "Alien 3", ""]),
        ("{title} ({year})", ["Heat (1995)", "Alien 3", "(2.5)"]),
        ("{title}. {genres}", ["Heat. Crime, Drama", "Alien 3.", ""]),
        ("{title}, {genres}; {count}", ["Heat, Crime, Drama; 3", "Alien 3,", "0"]),
        ("[{genres}] {title}", ["[Crime, Drama] Heat", "Alien 3", ""]),
        ("{{{title}}} film", ["{Heat} film", "{ Alien 3 } film", "{} film"]),
    ],
)
def test_templates(template: str, texts: list[str]) -> None:
    assert fill_template(ITEMS, template).to_list() == texts


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{title", "not a valid template"),
        ("{plot}", "column 'plot' is not in the items table (found: title, year, genres, count)"),
        ("{}", "column '' is not in the items table"),
        ("{title.upper}", "column 'title.upper' is not in the items table"),
    ],
)
def test_wrong_templates_say_what_is_wrong(template: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fill_template(ITEMS, template)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_are_none_become_nothing(value: float) -> None:
    items = pl.DataFrame({"title": ["Heat"], "year": [value]})
    assert fill_template(items, "{title} ({year})").to_list() == ["Heat"]


@given(st.lists(st.tuples(st.none() | st.text(), st.none() | st.text()), min_size=1, max_size=5))
def test_texts_are_tidy_whatever_the_cells_hold(cells: list[tuple[str | None, str | None]]) -> None:
    schema = {"title": pl.String, "description": pl.String}
    items = pl.DataFrame(cells, schema=schema, orient="row")
    texts = fill_template(items, "{title}. {description}")
    assert texts.len() == len(cells)
    assert texts.dtype == pl.String
    for text, (title, description) in zip(texts, cells, strict=True):
        assert text == text.strip()
        assert "  " not in text
        if not (title or "").strip() and not (description or "").strip():
            assert text == ""


def test_an_empty_table_has_no_texts() -> None:
    assert fill_template(ITEMS.clear(), "{title} {year}").to_list() == []
