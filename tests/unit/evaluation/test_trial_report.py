"""The page and the picture of a search: whole, self-contained, and they say what was found."""

import itertools
import re
import shlex
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mtrec.evaluation.trial_report import pasted, trials_html, trials_svg, write_trials

SPACE = {"training.lr": {"low": 0.001, "high": 0.1, "log": True, "choices": None}}


def study(*values: float, **changes: Any) -> dict[str, Any]:
    """A study whose first trial is the reference."""
    trials: list[dict[str, Any]] = [
        {
            "number": number,
            "state": "complete",
            "value": value,
            "point": {"training.lr": 0.002 * (number + 1)},
            "epochs": [0.5, value],
            "seconds": 61.0,
            "skills": {"rating": 0.2 * value, "next_item": 0.05},
            **({"reference": True} if number == 0 else {}),
        }
        for number, value in enumerate(values)
    ]
    best = max(trials, key=lambda trial: trial["value"], default=None)
    return {
        "name": "shop-1234",
        "scenario": "shop",
        "sampler": "tpe",
        "pruner": "median",
        "space": SPACE,
        "trials": trials,
        "best": best,
        "importance": {"training.lr": 1.0},
        "settings": [],
        "command": ["mtrec", "run", "--data", "my data", "--set", "training.lr=0.004"],
        "made_from": {"data_version": "abc.dir"},
        **changes,
    }


class Page(HTMLParser):
    """The words of a page, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words = ""
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = [value or "" for key, value in attrs if key in ("src", "href", "data")]
        self.loads += [value for value in found if not value.startswith("#")]

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"


def words(html: str) -> str:
    return " ".join(Page(html).words.split())


def test_the_page_says_which_settings_are_best_and_how_to_train_with_them() -> None:
    html = trials_html(study(1.0, 1.25, 0.9))
    said = words(html)
    assert "Trial 1 is the best: over all tasks its skills are 25 % better than under the scenario's own" in said
    assert "mtrec run \\ --data 'my data' \\ --set training.lr=0.004" in said
    assert "Study shop-1234, 3 trials: 3 complete. Sampler tpe, pruner median." in said
    assert "rating 0.200 0.250 25 % better" in said
    assert "next_item 0.0500 0.0500 unchanged" in said
    assert html.count("<svg") == 3
    assert re.findall(r'<tr><td class="n">(\d)</td>', html) == ["1", "0", "2"], "the best first"


@pytest.mark.parametrize(
    ("values", "said"),
    [((1.0, 0.9), "No trial was better than the scenario's own"), ((), "No trial has ended yet")],
)
def test_a_page_without_a_better_trial_says_so(values: tuple[float, ...], said: str) -> None:
    assert said in words(trials_html(study(*values, **({} if values else {"importance": {}}))))


def test_pruned_trials_have_their_reason_and_waiting_ones_are_left_out() -> None:
    given = study(1.0, 1.2)
    given["trials"][1] |= {"state": "pruned", "why": "worse than others after epoch 2"}
    waiting = {"number": 2, "state": "waiting", "value": None, "point": {}, "epochs": [], "seconds": None}
    given["trials"].append(waiting)
    given["best"] = given["trials"][0]
    said = words(trials_html(given))
    assert "pruned worse than others after epoch 2" in said
    assert "3 trials: 1 complete, 1 pruned" in said


def test_both_ask_nothing_of_the_network_and_are_the_same_for_the_same_input(tmp_path: Path) -> None:
    given = study(1.0, 1.25, 0.9)
    assert Page(trials_html(given)).loads == []
    assert "default-src 'none'" in trials_html(given)
    for text in (trials_html(given), trials_svg(given)):
        addresses = set(re.findall(r"https?://[^\s\"'<>]+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set()
    write_trials(tmp_path / "deep" / "trials.html", tmp_path / "trials.svg", given)
    assert (tmp_path / "deep" / "trials.html").read_text() == trials_html(study(1.0, 1.25, 0.9))
    assert (tmp_path / "trials.svg").read_text() == trials_svg(given)


def test_the_picture_is_one_whole_svg_with_the_drawings_below_each_other() -> None:
    root = ElementTree.fromstring(trials_svg(study(1.0, 1.25, 0.9)))
    inner = root.findall("{http://www.w3.org/2000/svg}svg")
    assert len(inner) == 3
    ends = [(float(svg.attrib["y"]), float(svg.attrib["y"]) + float(svg.attrib["height"])) for svg in inner]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))
    assert ends[-1][1] <= float(root.attrib["height"])
    assert "var(" not in trials_svg(study(1.0, 1.25)), "a picture has no style sheet around it"
    ElementTree.fromstring(trials_svg(study(importance={})))


def test_given_text_is_escaped() -> None:
    given = study(1.0, 1.2, name="<script>", command=["mtrec", "<b>"], made_from={"data_version": "<i>"})
    given["trials"][1]["why"] = "<u>"
    html = trials_html(given)
    assert not re.search("<script>|<b>|<i>|<u>", html)


def test_a_command_is_written_for_pasting() -> None:
    command = ["mtrec", "run", "--scenario", "my shop.yaml", "--set", "a.b=[1, 2]", "--set", "c=3"]
    assert pasted(command) == "mtrec run \\\n  --scenario 'my shop.yaml' \\\n  --set 'a.b=[1, 2]' \\\n  --set c=3"
    assert shlex.split(pasted(command).replace("\\\n", "")) == command
    assert pasted(["mtrec", "run"]) == "mtrec run"
