"""The page of a search: its trials drawn and listed, in the style of the report, and the drawing as one SVG file.

Both ask nothing of the network and are the same bytes for the same input.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mtrec.data.contract import replacing_file
from mtrec.evaluation import wording
from mtrec.evaluation.trial_plots import WIDE, history_plot, importance_plot, parallel_plot
from mtrec.evaluation.wording import change, number, plural

Json = Mapping[str, Any]
_STYLE = """
svg { max-width: none; min-width: 560px; }
.card { overflow-x: auto; }
.scroll tbody th { white-space: nowrap; }
svg .bar { fill: var(--after); }
svg .ring { fill: var(--card); stroke: var(--before); stroke-width: 1.8; }
svg polyline.rest { stroke: var(--before); stroke-width: 1; opacity: 0.45; }
svg polyline.good { stroke: var(--after); stroke-width: 1.2; opacity: 0.55; }
td.best { font-weight: 700; }
.trials thead th.n { white-space: normal; }
.trials td:nth-child(3) { min-width: 9em; }
pre { overflow-x: auto; padding: 14px 16px; background: var(--track); border-radius: 8px; font-size: 13.5px; }
"""
_ALONE = """
svg { font-family: system-ui, sans-serif; }
rect.paper { fill: #fff; }
text { fill: #566072; font-size: 11px; }
.strip { font-size: 13px; fill: #1c2430; font-weight: 600; }
polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
polyline.after { stroke: #0072b2; stroke-width: 2.2; }
polyline.good { stroke: #0072b2; stroke-width: 1.2; opacity: 0.55; }
polyline.rest { stroke: #b4bac4; stroke-width: 1; opacity: 0.45; }
.after.dot, .bar { fill: #0072b2; }
.ring { fill: #fff; stroke: #b4bac4; stroke-width: 1.8; }
.grid { stroke: #e4e2db; }
.axis { stroke: #8a93a3; }
.ideal { stroke: #8a93a3; stroke-width: 1.4; stroke-dasharray: 5 4; }
"""


def write_trials(page: Path, picture: Path, study: Json) -> None:
    """Write the page and the picture of a search; each appears complete or not at all.

    Args:
        page: the HTML file.
        picture: the SVG file.
        study: `name`, `scenario`, `sampler`, `pruner`, `space` (setting → parameter), `trials`, `best` (a trial or
            None), `importance` (setting → share), `settings` (the best trial's, as arguments of --set), `command`
            (words of a command line) and `made_from` (text values).

    Raises:
        OSError: a file cannot be written.
    """
    for path, text in ((page, trials_html(study)), (picture, trials_svg(study))):
        with replacing_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def trials_html(study: Json) -> str:
    """The page as text; all given text is escaped."""
    from jinja2 import Environment, StrictUndefined

    folder = files("mtrec.evaluation")
    template, style = (folder.joinpath(n).read_text(encoding="utf-8") for n in ("trials.html.j2", "report.css"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(num=number, seconds=wording.seconds)
    trials, best = list(study["trials"]), study["best"]
    ranked = sorted(trials, key=lambda t: (t["state"] != "complete", -(t["value"] or 0.0), t["number"]))
    return environment.from_string(template).render(
        style=Markup(style + _STYLE),
        study=study,
        headline=_headline(trials, best),
        counts=_counts(trials),
        history=history_plot(trials),
        importance=importance_plot(study["importance"]),
        parallel=parallel_plot(trials, study["space"]),
        trials=[t for t in ranked if t["state"] in ("complete", "pruned")],
        paths=list(study["space"]),
        tasks=_tasks(trials, best),
        command=pasted(study["command"]),
        best=best,
    )


def trials_svg(study: Json) -> str:
    """All drawings below each other, with their colours in the file."""
    drawings = [
        ("Trials", history_plot(study["trials"])),
        ("Importance of the parameters", importance_plot(study["importance"])),
        ("Parameters of the trials", parallel_plot(study["trials"], study["space"])),
    ]
    parts, top = [], 16.0
    for title, svg in drawings:
        if not svg:
            continue
        height = float(str(svg).split('viewBox="')[1].split('"')[0].split()[3])
        parts.append(f'<text class="strip" x="16" y="{top + 12:g}">{escape(title)}</text>')
        place = f'<svg x="16" y="{top + 22:g}" width="{WIDE}" height="{height:g}" '
        parts.append(str(svg).replace("<svg ", place, 1))
        top += height + 46
    width = WIDE + 32
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top:g}" viewBox="0 0 {width} {top:g}">'
        f'<style>{_ALONE}</style><rect class="paper" width="{width}" height="{top:g}"/>{"".join(parts)}</svg>\n'
    )


def pasted(command: Sequence[str]) -> str:
    """A command as lines that a shell takes when pasted: each option on its own."""
    words = [shlex.quote(word) for word in command]
    lines = [""]
    for word in words:
        if word.startswith("--"):
            lines.append(f"  {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _headline(trials: Sequence[Json], best: Json | None) -> str:
    if best is None:
        return "No trial has ended yet."
    if best.get("reference"):
        return "No trial was better than the scenario's own settings."
    told = change(1.0, best["value"], higher_is_better=True)["text"]
    name = f"Trial {best['number']} is the best"
    return f"{name}: over all tasks its skills are {told} than under the scenario's own settings."


def _counts(trials: Sequence[Json]) -> str:
    counts = {state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "failed")}
    told = [f"{number(count)} {state}" for state, count in counts.items() if count]
    return f"{plural(len(trials), 'trial')}: {', '.join(told)}" if told else "no trial yet"


def _tasks(trials: Sequence[Json], best: Json | None) -> list[dict[str, Any]]:
    """Each task's skill under the scenario's settings and under the best ones."""
    reference = next((t for t in trials if t.get("reference") and t["state"] == "complete"), None)
    if best is None or reference is None or best is reference:
        return []
    before, after = reference.get("skills", {}), best.get("skills", {})
    return [
        {"name": name, "before": skill, "after": after.get(name), **change(skill, after.get(name), True)}
        for name, skill in before.items()
    ]
