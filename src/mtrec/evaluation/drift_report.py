"""The pages about drift, in the style of the report: what one look at the data found, and a replay of the past.

Both ask nothing of the network and are the same bytes for the same input. They take what the monitor and the replay
tell as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mtrec.data.contract import replacing_file
from mtrec.evaluation.drift_plots import STYLE, sheet, statistic_names, statistic_plot
from mtrec.evaluation.wording import number, percent, plural

Json = Mapping[str, Any]
_WORDS = {
    "event": "kind of event",
    "rating": "rating",
    "text": "texts of the items",
    "new_items": "share of items that are new to the champion",
    "new_users": "share of users who are new to the champion",
}


def in_words(name: str) -> str:
    """What a statistic is about: `items.category` → category of the items."""
    table, dot, column = name.partition(".")
    if table in ("items", "users") and dot:
        return f"{column} of the {table}"
    if table == "prediction" and dot:
        return f"predictions of {column}"
    if table == "quality" and dot:
        return f"quality of the answers to {column}"
    return _WORDS.get(name, name)


def write_drift(path: Path, told: Json) -> None:
    """Write the page of one decision; it appears complete or not at all.

    Args:
        path: where to write; folders are made.
        told: what `mtrec.stages.monitor` writes as decision.json.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing_file(path) as temporary:
        temporary.write_text(drift_html(told), encoding="utf-8")


def write_replay(page: Path, picture: Path, told: Json) -> None:
    """Write page and picture of a replay; each appears complete or not at all.

    Args:
        page: the HTML file.
        picture: the SVG file.
        told: `scenario`, `from`, `to`, `settings` and `steps`, each with `at`, `verdict`, `reason`, `until` and
            `window` (or None).

    Raises:
        OSError: a file cannot be written.
    """
    windows, marks = _of_steps(told)
    for path, text in ((page, replay_html(told)), (picture, sheet(windows, marks))):
        with replacing_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def drift_html(told: Json) -> str:
    """The page of one decision as text; all given text is escaped."""
    retrain, champion, data = told["verdict"] == "retrain", told["champion"], told["data"]
    facts = [
        ("Champion", f"{champion['name']} version {champion['version']}"),
        ("It knows the data until", _moment(champion["until"])),
        ("New interactions", number(data["new_rows"])),
        ("Windows", number(len(told["windows"]))),
    ]
    return _page(
        told,
        title="drift",
        verdict={
            "calm": not retrain,
            "word": "Retrain" if retrain else "Skip",
            "mark": "↻" if retrain else "✓" if not data["problems"] else "✗",
            "headline": "The champion should be trained again." if retrain else "Nothing is to be trained now.",
            "told": told["reason"],
            "problems": data["problems"],
        },
        when=_moment(told["at"]),
        facts=facts,
        lineage={"Data to retrain on": data["version"] or "none", "Champion's data": champion["data_version"]},
        windows=told["windows"],
    )


def replay_html(told: Json) -> str:
    """The page of a replay as text; all given text is escaped."""
    windows, marks = _of_steps(told)
    count = len(marks)
    retrained = f"It would have trained {plural(count, 'time')}." if count else "It would not have trained."
    return _page(
        told,
        title="replay",
        verdict={
            "calm": True,
            "word": f"{count} ×",
            "mark": "↻",
            "headline": retrained,
            "told": f"{plural(len(told['steps']), 'decision')}, one at the end of every window.",
            "problems": [],
        },
        when=f"{told['from'][:10]} to {told['to'][:10]}",
        facts=[],
        lineage={},
        windows=windows,
        marks=marks,
    )


def _page(told: Json, *, windows: Sequence[Json], marks: Sequence[str] = (), **given: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    folder = files("mtrec.evaluation")
    template, style = (folder.joinpath(n).read_text(encoding="utf-8") for n in ("drift.html.j2", "report.css"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(num=number, percent=percent, day=_moment, short=_short)
    names = statistic_names(windows)
    return environment.from_string(template).render(
        style=Markup(style + STYLE),
        scenario=told["scenario"],
        rules=told.get("rules", []),
        steps=told.get("steps", []),
        moved=what_moved(windows[-told["settings"]["windows"] :]) if "rules" in told else [],
        looked_at=min(told["settings"]["windows"], len(windows)),
        settings=told["settings"],
        plots=[
            {"name": name, "words": in_words(name), "plot": statistic_plot(name, windows, marks)} for name in names
        ],
        windows=list(reversed(windows)),
        **given,
    )


def what_moved(windows: Sequence[Json]) -> list[str]:
    """What drifted in these windows, as sentences; the most distant first.

    Args:
        windows: oldest first.
    """
    sentences = []
    for name in statistic_names(windows):
        found = [(w, s) for w in windows for s in w["statistics"] if s["name"] == name and s["drifted"]]
        if found:
            window, statistic = found[-1]
            times = f"in {len(found)} of the last {plural(len(windows), 'window')}"
            told = f"{in_words(name)}: drifted {times}"
            if name.startswith("quality."):
                told += f", {percent(statistic['value'])} worse"
            sentences.append(f"{told}. Until {_moment(window['end'])[:10]}: {statistic['why']}")
    return sentences


def _of_steps(told: Json) -> tuple[list[Json], list[str]]:
    """The newest window of every step, and when it would have trained."""
    windows = [step["window"] for step in told["steps"] if step["window"]]
    return windows, [step["at"] for step in told["steps"] if step["verdict"] == "retrain"]


def _short(value: Any) -> str:
    """A setting, or what a rule compares with it, as it was given; nothing where it is no number."""
    if isinstance(value, float):
        return f"{value:g}"
    return number(value) if isinstance(value, int) else ""


def _moment(iso: str) -> str:
    return f"{iso[:10]} {iso[11:16]}".strip()
