"""A distilled student beside its teacher, in the words of the report and of the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtrec.evaluation.wording import finite, number

Json = Mapping[str, Any]


def student_facts(student: Json | None) -> list[tuple[str, str, str, bool]]:
    """What the report tells of a student: label, value, note, and whether it takes a whole line.

    Args:
        student: `distillation` of the evaluation's model, as `mtrec.stages.starting.about_student` gives it.
    """
    if not student:
        return []
    layers, size, speed = (student.get(key) or {} for key in ("layers", "parameters", "texts_per_second"))
    note = f"{number(layers.get('student'))} of {number(layers.get('teacher'))} encoder layers" if layers else ""
    facts = [("Student of", str(student.get("teacher") or ""), note, False)]
    mine, theirs = finite(speed.get("student")), finite(speed.get("teacher"))
    if mine is not None and theirs:
        note = f"{number(mine)} texts a second, teacher {number(theirs)}"
        facts.append(("Encoding speed", f"{number(mine / theirs)} ×", note, False))
    if size:
        note = f"teacher {number(size.get('teacher'))}"
        facts.append(("Encoder's parameters", number(size.get("student")), note, False))
    skills = [(name, finite(both.get("teacher")), finite(both.get("student"))) for name, both in _skills(student)]
    kept = [f"{name} {100 * s / t:.1f} %" for name, t, s in skills if t is not None and s is not None and t > 0]
    if kept:
        facts.append(("Kept of the teacher's skill on the validation part", " · ".join(kept), "", True))
    return facts


def _skills(student: Json) -> list[tuple[str, Json]]:
    return [(str(name), both) for name, both in (student.get("skills") or {}).items()]
