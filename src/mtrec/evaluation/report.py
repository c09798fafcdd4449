"""The report of one run: a self-contained HTML page for the person who decides about the model.

The page asks nothing of the network (a content security policy forbids it), follows the reader's light or dark
scheme, fits a phone, prints, and is the same bytes for the same input. `write_report` takes what the stages
write; `report_html` returns the text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mtrec.data.contract import replacing_file
from mtrec.evaluation import wording
from mtrec.evaluation.curves import learning_curves
from mtrec.evaluation.notes import champion_notes
from mtrec.evaluation.panels import before_after, comparison_rows, task_section
from mtrec.evaluation.relations_panel import together
from mtrec.evaluation.student_facts import student_facts
from mtrec.evaluation.wording import finite, number, percent, plural

Json = Mapping[str, Any]

_LINEAGE = {
    "data_version": "Data version (DVC)",
    "code_revision": "Code revision",
    "parameters_hash": "Parameters (sha256)",
    "image": "Container image",
    "pipeline_run": "Pipeline run",
}


def write_report(
    path: Path,
    *,
    evaluation: dict[str, Any],
    losses: list[dict[str, Any]],
    gate: dict[str, Any],
    validation: dict[str, Any] | None,
    lineage: dict[str, Any],
) -> None:
    """Write the report as one HTML file; it appears complete or not at all.

    Args:
        path: where to write; folders are made.
        evaluation: what the evaluate stage wrote: data set, model, protocol, champion and every task's metrics.
        losses: the lines of losses.jsonl, training and validation mixed, in order.
        gate: the verdict and its rules.
        validation: the summary of the validate stage, or None when there is none.
        lineage: what the model came from; text values, shown for copying.

    Raises:
        OSError: the file cannot be written.
    """
    text = report_html(evaluation=evaluation, losses=losses, gate=gate, validation=validation, lineage=lineage)
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_html(
    *,
    evaluation: Json,
    losses: Sequence[Json],
    gate: Json,
    validation: Json | None,
    lineage: Json,
) -> str:
    """The report as text; arguments as in `write_report`. All given text is escaped."""
    from jinja2 import Environment, StrictUndefined

    folder = files("mtrec.evaluation")
    template, style, script = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.html.j2", "report.css", "report.js")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters.update(num=_data, percent=percent, seconds=wording.seconds, metric=wording.metric_label)
    tasks = {str(name): task for name, task in (evaluation.get("tasks") or {}).items()}
    sections = [task_section(index, name, task) for index, (name, task) in enumerate(tasks.items(), start=1)]
    return environment.from_string(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        scenario=evaluation.get("scenario") or "unnamed",
        description=evaluation.get("description") or "",
        created=_moment(evaluation.get("created")),
        verdict=_verdict(evaluation, gate),
        rules=sorted(map(_rule, gate.get("rules") or []), key=lambda rule: rule["verdict"] != "fail"),
        facts=_facts(evaluation),
        protocol=(evaluation.get("protocol") or {}).get("text") or "",
        champion=_champion_name(evaluation, gate),
        overview=[before_after(index, name, task) for index, (name, task) in enumerate(tasks.items(), start=1)],
        curves=learning_curves(losses, tasks, (evaluation.get("model") or {}).get("best_epoch")),
        together=together(losses, list(tasks)),
        tasks=sections,
        comparisons=comparison_rows(tasks),
        not_compared=champion_notes(evaluation),
        validation=_validation(validation),
        lineage=_lineage(lineage),
        glossary=_glossary(tasks, sections),
    )


def _data(value: Any) -> Markup:
    """A number for people that carries its exact value for machines."""
    x = finite(value)
    if x is None:
        return Markup('<span class="none">n/a</span>')
    return Markup(f'<data value="{value!r}">{escape(number(value))}</data>')


def _moment(created: Any) -> str:
    text = str(created or "")
    if len(text) >= 16 and text[10] == "T":
        return f"{text[:10]} {text[11:16]}" + (" UTC" if text.endswith(("Z", "+00:00")) else "")
    return text


# ------------------------------------------------------------------------------------------------- verdict


def _verdict(evaluation: Json, gate: Json) -> dict[str, Any]:
    rules = gate.get("rules") or []
    missed = [rule for rule in rules if rule.get("verdict") == "fail"]
    passed = gate.get("verdict") == "pass"
    headline = "This model is ready for review." if passed else "This model should not be promoted."
    if not rules:
        told = "The gate has no rules, so nothing was asked of the model."
    elif missed:
        verb = "is" if len(missed) == 1 else "are"
        told = f"{len(missed)} of {plural(len(rules), 'rule')} of the gate {verb} not met."
    elif len(rules) == 1:
        told = "The one rule of the gate is met."
    else:
        told = f"All {len(rules)} rules of the gate are met."
    return {
        "passed": passed,
        "word": "Pass" if passed else "Fail",
        "headline": headline,
        "told": told,
        "more": [*_improved(evaluation), *_against_champion(evaluation)],
        "missed": [_rule(rule) for rule in missed],
    }


def _improved(evaluation: Json) -> list[str]:
    kinds = []
    for task in (evaluation.get("tasks") or {}).values():
        metric = (task.get("metrics") or {}).get(task.get("primary")) or {}
        higher = bool(metric.get("higher_is_better", True))
        kinds.append(wording.change(metric.get("before"), metric.get("after"), higher)["kind"])
    comparable = [kind for kind in kinds if kind != "unknown"]
    if not comparable:
        return []
    better = comparable.count("better")
    return [f"Fine-tuning improved {better} of {plural(len(comparable), 'task')}."]


def _against_champion(evaluation: Json) -> list[str]:
    if not evaluation.get("champion"):
        return ["There is no champion yet to compare with."]
    verdicts = [
        (task.get("comparison") or {}).get("verdict")
        for task in (evaluation.get("tasks") or {}).values()
        if task.get("comparison")
    ]
    told = [f"{word} on {verdicts.count(word)}" for word in ("better", "worse") if word in verdicts]
    if verdicts and not told:
        return [f"Against the champion there is no clear difference on {plural(len(verdicts), 'task')}."]
    if "same" in verdicts:
        told.append(f"no clear difference on {verdicts.count('same')}")
    return [f"Against the champion it is {', '.join(told)}."] if told else []


def _rule(rule: Json) -> dict[str, Any]:
    verdict = str(rule.get("verdict") or "not checked")
    return {
        "rule": rule.get("rule") or "",
        "value": rule.get("value"),
        "threshold": rule.get("threshold"),
        "why": rule.get("why") or "",
        "verdict": verdict,
        "mark": {"pass": "✓", "fail": "✗"}.get(verdict, "–"),
    }


def _champion_name(evaluation: Json, gate: Json) -> str | None:
    champion = evaluation.get("champion") or gate.get("champion")
    if not champion:
        return None
    if isinstance(champion, Mapping):
        return f"{champion.get('name', '')} version {champion.get('version', '')}".strip()
    return str(champion)


# ------------------------------------------------------------------------------------------------- facts


def _facts(evaluation: Json) -> list[dict[str, Any]]:
    data, model = evaluation.get("dataset") or {}, evaluation.get("model") or {}
    facts: list[dict[str, Any]] = []

    def add(label: str, value: Any, note: str = "", *, wide: bool = False) -> None:
        if value not in (None, ""):
            facts.append({"label": label, "value": value, "note": note, "wide": wide})

    for key in ("users", "items", "interactions"):
        add(key.capitalize(), _maybe(data.get(f"num_{key}")))
    parts = [data.get(f"num_{part}") for part in ("train", "valid", "test")]
    if any(part is not None for part in parts):
        add("Train · valid · test", Markup(" · ").join(_data(part) for part in parts), "rows")
    if data.get("first") and data.get("last"):
        days = Markup('<span class="whole">{} –</span> <span class="whole">{}</span>')
        add("Period", days.format(str(data["first"])[:10], str(data["last"])[:10]))
    sharing, balancing = (str(model.get(key) or "").replace("_", " ") for key in ("sharing", "balancing"))
    joined = " · ".join(filter(None, (sharing, balancing and f"{balancing} balancing")))
    add("Ensemble of", " + ".join(model.get("members") or []))
    add("Encoder", model.get("encoder"), joined)
    if model.get("parameters") is not None:
        trained = model.get("trained_parameters")
        note = Markup("{} trained").format(_data(trained)) if trained is not None else ""
        add("Parameters", _data(model["parameters"]), note)
    if model.get("seconds") is not None:
        step, best = model.get("seconds_per_step"), model.get("best_epoch")
        notes = [Markup("best epoch {}").format(_data(best))] if best is not None else []
        notes += [Markup("{} s a step").format(_data(step))] if step is not None else []
        exact = Markup('<data value="{}">{}</data>').format(model["seconds"], wording.seconds(model["seconds"]))
        add("Training", exact, Markup(" · ").join(notes))
    add("Started from", (model.get("started_from") or {}).get("champion"), "the weights of the champion then")
    for label, value, note, wide in student_facts(model.get("distillation")):
        add(label, value, note, wide=wide)
    if model.get("parts"):
        add("Parameters by part", _parts(model), wide=True)
    return facts


def _parts(model: Json) -> Markup:
    """Every part of the model with its parameters, in one line."""
    one = Markup('<span class="whole">{} {}{}</span> ')
    shown = Markup("")
    for part, count in model["parts"].items():
        trained = model.get("trained_encoder") if part == "encoder" else None
        note = "" if trained is None else Markup(" ({} trained)").format(_data(trained))
        shown += one.format(part, _data(count), note)
    if model.get("neighbours_table"):
        shown += one.format("neighbours", _data(model["neighbours_table"]), " (a table, not learned)")
    return shown


def _maybe(value: Any) -> Markup | None:
    return None if value is None else _data(value)


# ------------------------------------------------------------------------------------------------- data, lineage


def _validation(summary: Json | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    tables = []
    for name, counts in (summary.get("tables") or {}).items():
        total, bad = finite(counts.get("input")) or 0.0, finite(counts.get("quarantined")) or 0.0
        tables.append(
            {
                "name": name,
                **{key: counts.get(key) for key in ("input", "good", "quarantined")},
                "share": percent(bad / total) if total else "n/a",
                "reasons": sorted((counts.get("reasons") or {}).items(), key=lambda item: (-item[1], item[0])),
            }
        )
    expectations = [
        {
            "table": e.get("table", ""),
            "expectation": e.get("expectation", ""),
            "severity": e.get("severity", ""),
            "success": bool(e.get("success")),
            "unexpected": e.get("unexpected"),
            "of": e.get("of"),
        }
        for e in summary.get("expectations") or []
    ]
    return {
        "success": bool(summary.get("success")),
        "tables": tables,
        "quarantined": sum(int(finite(t["quarantined"]) or 0) for t in tables),
        "failed": [e for e in expectations if not e["success"]],
        "met": [e for e in expectations if e["success"]],
        "warnings": [str(w) for w in summary.get("warnings") or []],
        "failures": [str(f) for f in summary.get("failures") or []],
    }


def _lineage(lineage: Json) -> list[tuple[str, str | None]]:
    keys = [*_LINEAGE, *(key for key in lineage if key not in _LINEAGE)]
    rows = []
    for key in keys:
        value = lineage.get(key)
        label = _LINEAGE.get(key, str(key).replace("_", " ").capitalize())
        rows.append((label, None if value in (None, "") else str(value)))
    return rows


def _glossary(tasks: Json, sections: Sequence[Json]) -> list[tuple[str, str]]:
    names = [name for task in tasks.values() for name in task.get("metrics") or {}]
    if any(section["reliability"] for section in sections):
        names.append("ece")
    labels: dict[str, list[str]] = {}
    for name in dict.fromkeys(str(name) for name in names):
        meaning = wording.metric_meaning(name)
        if meaning:
            labels.setdefault(meaning, []).append(wording.metric_label(name))
    return sorted(((", ".join(group), meaning) for meaning, group in labels.items()), key=lambda e: e[0].lower())
