"""The model card: what a reviewer reads on a version's page in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LENGTH = 5000
"""MLflow's SQL stores keep this many characters of a description."""


def model_card(
    *,
    name: str,
    evaluation: Mapping[str, Any],
    gate: Mapping[str, Any],
    lineage: Mapping[str, str],
    artifacts: str,
) -> str:
    """Write the card of a candidate in Markdown.

    Args:
        name: the scenario.
        evaluation: content of evaluation.json.
        gate: content of gate.json.
        lineage: what the model was made from.
        artifacts: where among the run's artifacts the report lies.

    Returns:
        At most 5000 characters.
    """
    dataset, model, protocol = (evaluation.get(key) or {} for key in ("dataset", "model", "protocol"))
    made_from = [
        f"- {label}: `{lineage[key]}`"
        for label, key in (
            ("Data version (DVC)", "data_version"),
            ("Code revision", "code_revision"),
            ("Parameters hash", "parameters_hash"),
            ("Image", "image"),
            ("Ensemble of", "members"),
        )
        if lineage.get(key)
    ]
    sections = [
        f"# {name}: {_verdict(gate)}\n\n{evaluation.get('description', '')}".rstrip(),
        "## Quality on the test part (↑ higher is better, ↓ lower)\n\n" + _metrics_table(evaluation),
        "## Gate\n\n" + _rules(gate),
        "## Made from\n\n" + "\n".join([*made_from, *_facts(dataset, model)]),
        "## Limits\n\n" + "\n".join(_limits(evaluation, protocol)),
        f"The full report is among the run's artifacts: `{artifacts}`.",
    ]
    card = "\n\n".join(sections) + "\n"
    return card if len(card) <= _LENGTH else card[: _LENGTH - 20].rsplit("\n", 1)[0] + "\n\n*(shortened)*\n"


def _verdict(gate: Mapping[str, Any]) -> str:
    return "passed the gate" if gate.get("verdict") == "pass" else "refused by the gate"


def _metrics_table(evaluation: Mapping[str, Any]) -> str:
    """The primary metric of each task; the report has the others."""
    rows: list[tuple[str, ...]] = [
        ("task", "metric", "before fine-tuning", "after", "champion", "examples"),
        ("---", "---", "---:", "---:", "---:", "---:"),
    ]
    for task, result in evaluation.get("tasks", {}).items():
        primary = result.get("primary")
        values = result.get("metrics", {}).get(primary)
        if values is None:
            rows.append((task, "no test examples", "–", "–", "–", "0"))
            continue
        arrow = "↑" if values.get("higher_is_better") else "↓"
        numbers = (_number(values.get(key)) for key in ("before", "after", "champion"))
        rows.append((task, f"{primary} {arrow}", *numbers, str(result.get("num_examples", ""))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _rules(gate: Mapping[str, Any]) -> str:
    rules: Sequence[Mapping[str, Any]] = gate.get("rules", [])
    failed = [rule for rule in rules if rule.get("verdict") != "pass"]
    lines = [f"{len(rules) - len(failed)} of {len(rules)} rules hold."]
    lines += [f"- **refused**: {rule.get('rule')}: {rule.get('why')}" for rule in failed]
    lines += [f"- {rule.get('rule')}: {rule.get('why')}" for rule in rules if rule not in failed]
    return "\n".join([lines[0], "", *lines[1:]])


def _facts(dataset: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    facts = []
    if dataset:
        facts.append(
            f"- Data: {dataset.get('num_users')} users, {dataset.get('num_items')} items, "
            f"{dataset.get('num_interactions')} interactions, {dataset.get('first')} to {dataset.get('last')}"
        )
    if model:
        facts.append(
            f"- Model: encoder {model.get('encoder')}, {model.get('parameters')} parameters, "
            f"{model.get('trained_parameters')} of them trained"
        )
        facts += _engine(model)
    return facts


def _engine(model: Mapping[str, Any]) -> list[str]:
    """The parts of the model, how its tasks share and are balanced, and what a step costs, in one line each."""
    lines = []
    if model.get("parts"):
        parts = [f"{part} {count}" for part, count in model["parts"].items()]
        if model.get("trained_encoder") is not None and "encoder" in model["parts"]:
            parts[list(model["parts"]).index("encoder")] += f" ({model['trained_encoder']} trained)"
        if model.get("neighbours_table"):
            parts.append(f"neighbours' table {model['neighbours_table']} (not learned)")
        lines.append(f"- Parameters by part: {', '.join(parts)}")
    if model.get("sharing") and model.get("balancing"):
        lines.append(f"- Tasks: sharing {model['sharing']}, balancing {model['balancing']}")
    if model.get("seconds_per_step") is not None:
        lines.append(f"- Training: {model.get('seconds')} s, {_number(model['seconds_per_step'])} s a step")
    if model.get("started_from"):
        lines.append(f"- Started from the weights of {model['started_from']['champion']}")
    if model.get("distillation"):
        lines.append(_student(model["distillation"]))
    return lines


def _student(told: Mapping[str, Any]) -> str:
    layers, size, speed = (told[key] for key in ("layers", "parameters", "texts_per_second"))
    return (
        f"- Student of {told['teacher']}: {layers['student']} of {layers['teacher']} encoder layers, "
        f"{size['student']} of {size['teacher']} encoder parameters; encodes {speed['student']} texts a second, "
        f"its teacher {speed['teacher']} beside it"
    )


def _limits(evaluation: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    limits = [f"- How it was measured: {protocol['text']}"] if protocol.get("text") else []
    for task, result in evaluation.get("tasks", {}).items():
        for entry in result.get("slices") or []:
            if entry.get("slice") in ("cold items", "cold users"):
                limits.append(
                    f"- {task}, {entry['slice']}: {entry.get('metric')} {_number(entry.get('after'))} "
                    f"on {entry.get('num_examples')} examples"
                )
    limits.append("- It knows the items and users of its data version; others are judged by text and history only.")
    return limits


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
