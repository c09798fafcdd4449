"""The pages about drift say what moved in plain words, draw every statistic, and escape what they are given."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from mtrec.evaluation.drift_plots import sheet, statistic_names, statistic_plot
from mtrec.evaluation.drift_report import drift_html, in_words, replay_html, what_moved, write_drift, write_replay


def statistic(
    name: str, value: float, limit: float, drifted: bool = False, why: str = "A: 10% → 20%"
) -> dict[str, Any]:
    return {
        "name": name, "value": value, "by_chance": 0.05, "probability": 0.5, "limit": limit, "drifted": drifted,
        "why": why,
    }  # fmt: skip


def window(number: int, *statistics: dict[str, Any]) -> dict[str, Any]:
    drifted = [s["name"] for s in statistics if s["drifted"]]
    start, end = (f"2026-01-{n:02d}T00:00:00+00:00" for n in (7 * number - 6, 7 * number + 1))
    return {"start": start, "end": end, "num_rows": 1234, "drifted": drifted, "statistics": list(statistics)}


WINDOWS = [
    window(1, statistic("event", 0.03, 0.08), statistic("items.category", 0.05, 0.1)),
    window(2, statistic("event", 0.04, 0.08), statistic("items.category", 0.3, 0.1, True, "Books: 5% → 40%")),
    window(
        3,
        statistic("items.category", 0.2, 0.1, True, "Books: 5% → 30%"),
        statistic("quality.rating", 0.25, 0.1, True, "error 0.8 → 1.07"),
    ),
]
TOLD: dict[str, Any] = {
    "scenario": "shop",
    "verdict": "retrain",
    "reason": "drift in 2 of the last 3 windows (items.category)",
    "at": "2026-01-22T10:30:00+00:00",
    "rules": [
        {"rule": "enough new interactions", "value": 3000, "threshold": 1000, "holds": True, "why": "3,000",
         "kind": "guard"},
        {"rule": "rest", "value": None, "threshold": 24.0, "holds": True, "why": "no attempt yet", "kind": "guard"},
        {"rule": "drift in 2", "value": 2, "threshold": 2, "holds": True, "why": "in 2", "kind": "reason"},
        {"rule": "age", "value": 3.0, "threshold": 60.0, "holds": False, "why": "young", "kind": "reason"},
    ],
    "champion": {"name": "shop", "version": "7", "data_version": "abc.dir", "until": "2026-01-01T00:00:00+00:00"},
    "windows": WINDOWS,
    "settings": {"windows": 3, "window_days": 7.0, "min_distance": 0.05},
    "data": {"drop": "drops", "version": "def.dir", "new_rows": 3702, "changed": {}, "problems": []},
    "attempts": [],
}  # fmt: skip


def text_of(page: str) -> str:
    """What people read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<style>.*?</style>", "", page)))


def test_the_page_says_what_was_decided_and_why() -> None:
    text = text_of(drift_html(TOLD))
    for wanted in (
        "↻ Retrain", "The champion should be trained again.", "drift in 2 of the last 3 windows (items.category)",
        "shop version 7", "3,702", "2026-01-01 00:00", "def.dir", "✓ holds", "✓ given", "– not given",
        "no attempt yet",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_numbers_are_written_as_they_were_set() -> None:
    page = drift_html(TOLD)
    text = text_of(page)
    assert "a window of 7 days" in text
    assert "plus 0.05, or" in text
    cells = [re.findall(r'<td class="n">(.*?)</td>', row) for row in re.findall('<th scope="row">.*', page)[:4]]
    assert cells == [["3,000", "1,000"], ["", "24"], ["2", "2"], ["3", "60"]]


def test_what_moved_is_told_in_plain_words() -> None:
    assert what_moved(WINDOWS) == [
        "category of the items: drifted in 2 of the last 3 windows. Until 2026-01-22: Books: 5% → 30%",
        "quality of the answers to rating: drifted in 1 of the last 3 windows, 25 % worse. Until 2026-01-22: "
        "error 0.8 → 1.07",
    ]
    assert what_moved(WINDOWS[:1]) == []
    assert "category of the items: drifted in 2 of the last 3" in text_of(drift_html(TOLD))
    assert "Nothing drifted in the last 1 windows." in text_of(drift_html(TOLD | {"windows": WINDOWS[:1]}))
    assert "There is no complete window" in text_of(drift_html(TOLD | {"windows": []}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("items.price", "price of the items"), ("users.age", "age of the users"), ("event", "kind of event"),
        ("prediction.rating", "predictions of rating"), ("quality.rating", "quality of the answers to rating"),
        ("text", "texts of the items"), ("votes", "votes"),
    ],
)  # fmt: skip
def test_names_in_words(name: str, words: str) -> None:
    assert in_words(name) == words


def test_bad_data_is_told_and_nothing_is_trained() -> None:
    problems = {"problems": ["drops: items: <b>no</b> title"], "version": None, "new_rows": 0}
    told = TOLD | {
        "verdict": "skip",
        "reason": "1 critical failure",
        "windows": [],
        "data": TOLD["data"] | problems,
    }
    page = drift_html(told)
    assert "Nothing is to be trained now." in page
    assert "drops: items: &lt;b&gt;no&lt;/b&gt; title" in page
    assert 'class="verdict fail"' in page


def test_every_statistic_is_drawn_with_its_limit_and_drift_has_a_shape() -> None:
    assert statistic_names(WINDOWS) == ["items.category", "quality.rating", "event"]
    svg = str(statistic_plot("items.category", WINDOWS))
    ElementTree.fromstring(svg)
    assert svg.count("<circle") == 1
    assert svg.count('<rect class="dot moved"') == 2
    assert svg.count('<polyline class="limit"') == svg.count('<polyline class="after"') == 1
    assert "items.category drifted in 2 of 3 windows." in svg
    assert "2026-01-08" in svg
    assert "2026-01-22" in svg
    alone = str(statistic_plot("quality.rating", WINDOWS))
    assert '<polyline class="limit"' in alone
    assert '<polyline class="after"' not in alone
    assert str(statistic_plot("nowhere", WINDOWS)) == ""
    assert drift_html(TOLD).count("<figure") == 3


STEPS = [
    {"at": w["end"], "verdict": verdict, "reason": "because", "until": "2026-01-01T00:00:00+00:00", "window": w}
    for w, verdict in zip(WINDOWS, ("skip", "skip", "retrain"), strict=True)
]
PAST = {
    "scenario": "shop", "from": "2026-01-01T00:00:00+00:00", "to": "2026-01-30T00:00:00+00:00", "steps": STEPS,
    "settings": TOLD["settings"],
}  # fmt: skip


def test_a_replay_lists_every_decision() -> None:
    text = text_of(replay_html(PAST))
    assert "It would have trained 1 time." in text
    assert text.count("because") == 3
    assert text.count("↻ retrain") == 1
    assert "It would not have trained." in text_of(replay_html(PAST | {"steps": STEPS[:2]}))
    nothing = [STEPS[0] | {"window": None}]
    assert "1 decision, one at the end" in text_of(replay_html(PAST | {"steps": nothing}))


def test_the_picture_stands_alone_and_marks_retrainings() -> None:
    svg = sheet(WINDOWS, ["2026-01-22T00:00:00+00:00", "2027-01-01T00:00:00+00:00"])
    ElementTree.fromstring(svg)
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert svg.count('class="retrain"') == 3  # once per statistic; the other mark lies outside
    ElementTree.fromstring(sheet([]))


def test_files_appear_and_the_same_input_is_the_same_bytes(tmp_path: Any) -> None:
    for name in ("one", "two"):
        write_drift(tmp_path / name / "drift.html", TOLD)
        write_replay(tmp_path / name / "replay.html", tmp_path / name / "replay.svg", PAST)
    for name in ("drift.html", "replay.html", "replay.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "drift.html").read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
