"""What a run hands to people: files copied into its folder, and one table at the end."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mtrec.addresses import without_login
from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.evaluation.notes import WITHIN_CHANCE, within_chance
from mtrec.tracking import resolve_uri
from pipelines.workspace import Run, callable_as, shown

_COPIES = {
    "validation": "validation.json",
    "data_docs": "data_docs",
    "quarantine": "quarantine",
    "losses": "losses.jsonl",
    "evaluation": "evaluation.json",
    "gate": "gate.json",
    "report": "report.html",
    "registration": "registration.json",
}


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The end of a run."""

    run: Run
    evaluation: dict[str, Any]
    gate: dict[str, Any]
    validation: dict[str, Any]
    registration: dict[str, Any] | None
    """None when the gate refused the candidate."""
    report: Path
    tracking_uri: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the gate said pass."""
        return bool(self.gate["verdict"] == "pass")

    @property
    def reasons(self) -> list[str]:
        """Each rule that failed, in words."""
        return [f"{rule['rule']}: {rule['why']}" for rule in self.gate["rules"] if rule["verdict"] != "pass"]


def collect(run: Run, artifacts: Mapping[str, Path], *, tracking_uri: str, seconds: float) -> RunResult:
    """Copy a run's artifacts into its folder and read them.

    Args:
        run: the run.
        artifacts: name → path of what the pipeline hands back, and of the registration where there is one.
        tracking_uri: where MLflow keeps the run.
        seconds: duration of the run.
    """
    for name, path in artifacts.items():
        copy = run.folder / _COPIES[name]
        if path.is_dir():
            with replacing_folder(copy) as temporary:
                shutil.copytree(path, temporary, dirs_exist_ok=True)
        else:
            with replacing_file(copy) as temporary:
                shutil.copyfile(path, temporary)
    content = {
        name: json.loads((run.folder / _COPIES[name]).read_text(encoding="utf-8"))
        for name in artifacts
        if _COPIES[name].endswith(".json")
    }
    return RunResult(
        run=run,
        evaluation=content["evaluation"],
        gate=content["gate"],
        validation=content["validation"],
        registration=content.get("registration"),
        report=run.folder / _COPIES["report"],
        tracking_uri=tracking_uri,
        seconds=seconds,
    )


def print_result(result: RunResult, console: Console) -> None:
    """The one table at the end of a run."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(result):
        facts.add_row(name, value)
    minutes = f"{int(result.seconds // 60)} min {int(result.seconds % 60):02d} s"
    title = Text(f"{result.evaluation['scenario']} · {minutes}")
    console.print(Panel(Group(_metrics_table(result), "", facts), title=title, title_align="left", expand=False))
    if (command := promotion(result)) is not None:  # outside of the box, where it can be copied
        console.print(f"To make it the champion:\n{command}", markup=False, highlight=False, soft_wrap=True)


def promotion(result: RunResult) -> str | None:
    """The shell command that makes the candidate the champion; None where it is, or nothing was registered."""
    found = result.registration
    if found is None or found.get("champion"):
        return None
    uri = result.tracking_uri
    where = "" if uri == resolve_uri() else f" --tracking-uri {shlex.quote(without_login(uri))}"
    return f"{callable_as('mtrec')} models approve {found['name']}/{found['version']} --why '…'{where}"


def mlflow_command(tracking_uri: str) -> str:
    """The shell command that opens MLflow's pages for a tracking URI."""
    if tracking_uri.startswith("sqlite:///"):
        path = shown(Path(tracking_uri.removeprefix("sqlite:///")))
        return f"{callable_as('mlflow')} ui --backend-store-uri {shlex.quote(f'sqlite:///{path}')}"
    if tracking_uri.startswith(("http://", "https://")):
        return f"open {tracking_uri}"
    return f"{callable_as('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}"


def _metrics_table(result: RunResult) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    tasks = result.evaluation["tasks"]
    has_champion = any((_primary(task) or {}).get("champion") is not None for task in tasks.values())
    table.add_column("task")
    table.add_column("metric")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if has_champion:
        table.add_column("champion", justify="right")
    table.add_column("gate")
    failed = {rule["task"] for rule in result.gate["rules"] if rule["verdict"] != "pass"}
    for name, task in tasks.items():
        metric = _primary(task)
        if metric is None:
            table.add_row(name, Text("no test example", style="dim"))
            continue
        arrow = "↑" if metric["higher_is_better"] else "↓"
        row = [name, f"{task['primary']} {arrow}", _number(metric["before"]), _after(metric)]
        if has_champion:
            row.append(_number(metric.get("champion")))
        rules = [rule for rule in result.gate["rules"] if rule["task"] == name]
        row.append(Text("fail", style="red") if name in failed else Text(_passed(task, rules), style="green"))
        table.add_row(*row)
    return table


def _passed(task: Mapping[str, Any], rules: list[dict[str, Any]]) -> str:
    """`pass`, and whether a rule holds only because chance alone could explain the loss."""
    compared = {"improvement": "before", "no_regression": "champion"}
    against = [compared[rule["kind"]] for rule in rules if rule.get("kind") in compared]
    return f"pass ({WITHIN_CHANCE})" if any(within_chance(task, other) for other in against) else "pass"


def _facts(result: RunResult) -> list[tuple[str, str | Text]]:
    rules = result.gate["rules"]
    if result.passed:
        verdict = Text(f"pass, {len(rules)} of {len(rules)} rules hold", style="green")
    else:
        verdict = Text("\n".join(["fail", *result.reasons]), style="red")
    facts: list[tuple[str, str | Text]] = [("Gate", verdict)]
    facts.append(("Registered", _registered(result)))
    if promotion(result) is not None:
        facts.append(("Next", _next(result)))
    warnings = result.validation.get("warnings") or []
    quarantined = {
        name: counts["quarantined"]
        for name, counts in result.validation.get("tables", {}).items()
        if counts["quarantined"]
    }
    if quarantined:
        counts = ", ".join(f"{count} {name}" for name, count in quarantined.items())
        facts.append(("Quarantined", f"{counts}, in {shown(result.run.folder / 'quarantine')}"))
    if warnings:
        facts.append(("Warnings", "\n".join(warnings)))
    facts.append(("Data Docs", shown(result.run.folder / "data_docs" / "index.html")))
    facts.append(("Report", f"{shown(result.report)}   ({callable_as('mtrec')} report open)"))
    facts.append(("MLflow", mlflow_command(result.tracking_uri)))
    return facts


def _next(result: RunResult) -> str:
    champion = result.evaluation.get("champion")
    who = f"{champion['name']} version {champion['version']} stays" if champion else "there is none"
    return f"champion: {who}; read the report, then approve this one with the command below, or reject it"


def _registered(result: RunResult) -> str:
    found = result.registration
    if found is None:
        return "nothing: the gate refused this candidate"
    words = [f"{found['name']} version {found['version']}"]
    if not found.get("created", True):
        words.append("which this data, code and scenario had already")
    if (approval := found.get("approval")) is not None:
        words.append(approval)
    if found.get("champion"):
        words.append(f"the champion: {result.evaluation['scenario']} version {found['champion_version']}")
    return ", ".join(words)


def _primary(task: Mapping[str, Any]) -> dict[str, Any] | None:
    metric: dict[str, Any] | None = task["metrics"].get(task["primary"])
    return metric


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _after(metric: Mapping[str, Any]) -> Text:
    before, after = metric["before"], metric["after"]
    if before is None or after is None or before == after:
        return Text(_number(after))
    better = (after > before) == metric["higher_is_better"]
    return Text(_number(after), style="green" if better else "yellow")
