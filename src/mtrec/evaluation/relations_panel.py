"""What the report shows of how tasks get along: two heat maps, a table and a reading of them in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mtrec.evaluation.relations import MIN_STEPS, Relation, Relations, relations
from mtrec.evaluation.wording import and_list, percent, plural

Json = Mapping[str, Any]

NAMED = 3
"""Pairs that a sentence names before it counts the rest."""
CHANGED = 0.1
"""Change of a mean cosine from the first to the last third of training that is worth a name."""
MUCH = 0.1
"""Share of a task's own step from which another task's step is worth a sentence."""

_WORDS = {
    "helps": "help each other",
    "conflicts": "in conflict",
    "indifferent": "indifferent",
    "apart": "separate parts",
    "unknown": "too few steps",
}


def together(losses: Sequence[Json], tasks: Sequence[str]) -> dict[str, Any] | None:
    """The section on how tasks get along.

    Args:
        losses: lines of losses.jsonl.
        tasks: names of the evaluated tasks.

    Returns:
        `too_few` (a sentence, or empty), `names`, `steps`, `cosines` and `pulls` (rows of cells; `pulls` is empty
        where the gradients' lengths were not recorded), `reading` (sentences), `reach` (a sentence) and `pairs`
        (rows of a table). None for a single task.
    """
    found = relations(losses)
    if max(len(tasks), len(found.tasks) if found else 0) < 2:
        return None
    if found is None or found.steps < MIN_STEPS:
        return {"too_few": _too_few(found.steps if found else 0)}
    places = range(len(found.tasks))
    measured = any(value is not None for row in found.pulls for value in row)
    return {
        "too_few": "",
        "steps": found.steps,
        "names": found.tasks,
        "cosines": [[_cosine_cell(found, i, j) for j in places] for i in places],
        "pulls": [[_pull_cell(found, i, j) for j in places] for i in places] if measured else [],
        "reading": reading(found),
        "reach": reach(found),
        "pairs": [vars(pair) | {"words": _WORDS[pair.kind]} for pair in _ordered(found.pairs)],
    }


def _too_few(count: int) -> str:
    if not count:
        return (
            "The tasks' gradients were not compared in this run. Training does so every training.compare_every "
            "steps, and never where that is 0."
        )
    return (
        f"The tasks' gradients were compared at {plural(count, 'training step')} only, which is too little to say "
        f"how the tasks get along; it takes {MIN_STEPS}. Lower training.compare_every or train longer."
    )


# ------------------------------------------------------------------------------------------------- cells


def _cosine_cell(found: Relations, i: int, j: int) -> dict[str, Any]:
    if i == j:
        return {"style": "self", "text": "", "mix": "", "title": ""}
    pair = found.between(i, j)
    names = f"{found.tasks[i]} and {found.tasks[j]}"
    if pair.mean is None:
        return {"style": "lost", "text": "–", "mix": "", "title": f"{names}: never both in one step"}
    if pair.kind == "apart":
        return {"style": "lost", "text": "·", "mix": "", "title": f"{names}: {_WORDS['apart']}"}
    told = f"{names}: {_WORDS[pair.kind]}, above 0 in {percent(pair.above)} of {plural(pair.steps, 'step')}"
    return _cell(pair.mean, two(pair.mean), told)


def _pull_cell(found: Relations, i: int, j: int) -> dict[str, Any]:
    if i == j:
        return {"style": "self", "text": "", "mix": "", "title": ""}
    value, row, column = found.pulls[i][j], found.tasks[i], found.tasks[j]
    if value is None or found.between(i, j).kind == "apart":
        text = "–" if value is None else "·"
        return {"style": "lost", "text": text, "mix": "", "title": f"{row} on {column}: not to be seen here"}
    way = "lowers" if value >= 0 else "raises"
    told = f"A step on {row} {way} the loss of {column} by {percent(abs(value))} of what its own step gains"
    text = f"{100 * value:.0f}".replace("-0", "0").replace("-", "−") if abs(value) < 9.995 else _beyond(value)
    return _cell(max(-1.0, min(1.0, value)), text, told)


def _beyond(value: float) -> str:
    return ">999" if value > 0 else "<−999"


def _cell(value: float, text: str, title: str) -> dict[str, Any]:
    """Colour strength grows faster near 0, where most values are; full strength is 1."""
    mix = 100 * abs(value) ** 0.6 if text.strip("−0.") else 0.0
    style = "plus" if value > 0 else "minus"
    return {
        "style": f"{style} strong" if mix > 75 else style,
        "text": text,
        "mix": f"{mix:.0f}",
        "title": title,
    }


def two(value: float) -> str:
    """A cosine for people: two decimals, never −0.00."""
    text = f"{value:.2f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "−")


# ------------------------------------------------------------------------------------------------- words


def _ordered(pairs: Sequence[Relation]) -> list[Relation]:
    """From the best friends to the worst conflict; those that cannot be measured last."""
    return sorted(pairs, key=lambda p: (p.kind in ("apart", "unknown"), -(p.mean or 0.0)))


def reading(found: Relations) -> list[dict[str, str]]:
    """Two to four sentences on who helps whom, who is in conflict, the others, and how it changed.

    Returns:
        `kind` (helps, conflicts, others or change) and `text` of each.
    """
    by_kind = {kind: [p for p in _ordered(found.pairs) if p.kind == kind] for kind in _WORDS}
    helping, fighting = by_kind["helps"], by_kind["conflicts"][::-1]
    told = {
        "helps": _sentence(helping, "help each other", "above") or "No two tasks steadily help each other.",
        "conflicts": _sentence(fighting, "are in conflict", "below") or "No two tasks are in steady conflict.",
        "others": _others(by_kind, len(helping) + len(fighting)),
        "change": _change(found.pairs),
    }
    if not helping and not fighting:
        told["helps"] = "No two tasks steadily help each other, and none are in steady conflict."
        del told["conflicts"]
    return [{"kind": kind, "text": text.replace(" %", "\u00a0%")} for kind, text in told.items() if text]


def _sentence(pairs: Sequence[Relation], verb: str, side: str) -> str:
    """Name the clearest pairs and count the others; the first one says what its numbers are."""
    if not pairs:
        return ""
    first, *more = pairs[:NAMED]
    shares = [percent(getattr(pair, side)) for pair in pairs[:NAMED]]
    numbers = f"(mean cosine {two(first.mean or 0.0)}, {shares[0]} of the steps {side} 0)"
    names = f"{first.first} and {first.second}"
    if len(pairs) == 1:
        return f"{names} {verb} {numbers}."
    named = [f"{names} {numbers}"]
    for pair, share in zip(more, shares[1:], strict=True):
        named.append(f"{pair.first} and {pair.second} ({two(pair.mean or 0.0)}, {share})")
    if len(pairs) > NAMED:
        named.append(plural(len(pairs) - NAMED, "other pair"))
    return f"{plural(len(pairs), 'pair')} {verb}: {and_list(named)}."


def _others(by_kind: Mapping[str, Sequence[Relation]], told: int) -> str:
    counts = {kind: len(by_kind[kind]) for kind in ("indifferent", "apart", "unknown")}
    words = {
        "indifferent": ("has no steady direction", "have no steady direction"),
        "apart": (
            "reads separate parts of the shared representation, where its gradients cannot meet",
            "read separate parts of the shared representation, where their gradients cannot meet",
        ),
        "unknown": ("met in too few steps to say", "met in too few steps to say"),
    }
    pair = "other pair" if told else "pair"
    parts = [f"{plural(n, pair)} {words[kind][n > 1]}" for kind, n in counts.items() if n]
    return f"{and_list(parts)}." if parts else ""


def _change(pairs: Sequence[Relation]) -> str:
    known = [(p, p.start, p.end) for p in pairs if p.kind != "apart" and p.start is not None and p.end is not None]
    if not known:
        return ""
    pair, start, end = max(known, key=lambda row: abs(row[2] - row[1]))
    when, most = "From the first to the last third of training", abs(end - start)
    if most < CHANGED:
        return f"{when} this changed little: no mean cosine by more than {two(most)}."
    one = f"{pair.first} and {pair.second} went from {two(start)} to {two(end)}"
    if len(known) == 1:
        return f"{when} {one}."
    first, last = (two(fmean(ends)) for ends in zip(*((a, b) for _, a, b in known), strict=True))
    whole = f"stayed at {first}" if first == last else f"went from {first} to {last}"
    return f"{when} {one}, the largest change; the mean over all pairs that meet {whole}."


def reach(found: Relations) -> str:
    """The strongest help and the strongest harm between two tasks, in one or two sentences; may be empty."""
    met = [
        (value, found.tasks[i], found.tasks[j])
        for i, row in enumerate(found.pulls)
        for j, value in enumerate(row)
        if i != j and value is not None and found.between(i, j).kind in ("helps", "conflicts")
    ]
    told = []
    best, worst = max(met, default=None), min(met, default=None)
    if best and best[0] >= MUCH:
        told.append(
            f"Strongest help: a step on {best[1]} lowers the loss of {best[2]} by {percent(best[0])} of what its "
            "own step does."
        )
    if worst and worst[0] <= -MUCH:
        harm = "more than undoes" if worst[0] <= -1 else f"undoes {percent(-worst[0])} of"
        told.append(f"Strongest harm: a step on {worst[1]} {harm} what {worst[2]} gains by its own.")
    return " ".join(told).replace(" %", "\u00a0%")
