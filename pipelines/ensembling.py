"""`mtrec ensemble`: registered models joined into one, judged and registered like any candidate."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import InputError
from mtrec.lineage import code_revision, data_fingerprint
from mtrec.progress import listening
from mtrec.stages import ensemble, evaluate, gate, register
from pipelines.following import Following, aside, or_stop
from pipelines.kfp_session import Interrupted, stoppable
from pipelines.local import LOCAL_IMAGE
from pipelines.preflight import preflight
from pipelines.preparing import prepare
from pipelines.results import RunResult, collect
from pipelines.workspace import Run, Workspace, shown

if TYPE_CHECKING:
    from rich.console import Console


def run_ensemble(
    scenario: Scenario,
    references: Sequence[str],
    *,
    workspace: Workspace,
    console: Console,
    data: Path | None = None,
    fit: bool = False,
    tracking_uri: str | None = None,
) -> RunResult:
    """Join registered models, and take the result through evaluate, gate and register.

    Args:
        scenario: tasks, data and gate; the members were trained for the same tasks on the same data.
        references: the members, as `tracking.show_model` takes them.
        workspace: where state is kept.
        console: where people watch.
        data: raw data; None lets the scenario make it.
        fit: fit each member's share in every task on the validation part.
        tracking_uri: MLflow's; None means MLFLOW_TRACKING_URI, else the workspace's SQLite file.

    Returns:
        Evaluation, gate, registration and where the report is. A refusal by the gate is a result, no error.

    Raises:
        InputError: the data is not there or does not pass, fewer than two members, or a member is not there or does
            not fit.
        RunError: MLflow cannot be used, or another run holds the workspace.
        Interrupted: Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    uri = tracking.resolve_uri(tracking_uri)
    preflight(scenario, data, uri)
    data = data.resolve() if data else None
    versions = _versions(references, uri)
    made_of = [scenario.digest, str(fit), *(f"{v.name}/{v.version} {v.tags.get('lineage', '')}" for v in versions)]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
    revision = code_revision()
    with workspace.locked():
        key = hashlib.sha256("\0".join([digest, data_fingerprint(data), revision]).encode()).hexdigest()[:32]
        run = workspace.open_run(f"{scenario.name}-ensemble", key)
        run.folder.mkdir(parents=True, exist_ok=True)
        run.update(state="running", key=key, scenario=scenario.name, data=str(data or ""))
        console.print(f"Run {run.name}, log in {shown(run.log)}", markup=False, highlight=False, soft_wrap=True)
        names = [f"{version.name}/{version.version}" for version in versions]
        with Following(console) as view, aside(run.log), stoppable() as asked, listening(or_stop(view, asked)):
            try:
                version = prepare(scenario, data, run.outputs, view, workspace.dvc_root)
                lineage = {
                    "data_version": version,
                    "code_revision": revision,
                    "parameters_hash": digest,
                    "image": LOCAL_IMAGE,
                    "members": ", ".join(names),
                }
                with view.timed("ensemble"):
                    said = _join(scenario, names, run, fit, uri)
                files = _judge(scenario, run, lineage, uri, view, workspace.dvc_root)
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt)
                run.update(state="interrupted" if stopped else "failed")
                if stopped:
                    raise Interrupted("stopped; nothing was registered") from error
                raise
        result = collect(run, files, tracking_uri=uri, seconds=time.monotonic() - started)
        run.update(state="finished", verdict=result.gate["verdict"], seconds=round(result.seconds, 1))
        workspace.prune()
    console.print(shares_table(said))
    return result


def _versions(references: Sequence[str], uri: str) -> list[tracking.RegisteredVersion]:
    if len(references) < 2:
        raise InputError("an ensemble has at least two members: give each as NAME/VERSION or NAME@ALIAS")
    found = [tracking.show_model(reference, uri) for reference in references]
    names = [f"{version.name}/{version.version}" for version in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"{twice}: named twice; a member has its weight by --fit, not by its number")
    return found


def _join(scenario: Scenario, names: Sequence[str], run: Run, fit: bool, uri: str) -> dict[str, Any]:
    members = []
    for number, name in enumerate(names):
        folder = run.outputs / "members" / str(number)
        if not folder.is_dir():
            tracking.download_model(name, folder, uri)
        members.append(ensemble.Member(name=name, folder=folder))
    return ensemble.run(
        ensemble.Inputs(dataset=run.outputs / "dataset", members=members, fit=fit),
        ensemble.Outputs(model=run.outputs / "model"),
        scenario,
    )


def _judge(
    scenario: Scenario, run: Run, lineage: dict[str, str], uri: str, view: Following, dvc_root: Path
) -> dict[str, Path]:
    """Evaluate, gate and register; the files for people by name."""
    made = run.outputs
    names = {"evaluation": "json", "gate": "json", "report": "html", "registration": "json", "losses": "jsonl"}
    files = {name: made / f"{name}.{kind}" for name, kind in names.items()}
    files["losses"].write_text("", encoding="utf-8")  # the members' own
    with view.timed("evaluate"):
        evaluate.run(
            evaluate.Inputs(dataset=made / "dataset", model=made / "model", tracking_uri=uri),
            evaluate.Outputs(evaluation=files["evaluation"], predictions=made / "predictions"),
            scenario,
        )
    lineage = {**lineage, "pipeline_run": run.name}
    with view.timed("gate"):
        decision = gate.run(
            gate.Inputs(
                evaluation=files["evaluation"],
                losses=files["losses"],
                validation=made / "validation.json",
                lineage=lineage,
                tracking_uri=uri,
            ),
            gate.Outputs(gate=files["gate"], report=files["report"]),
            scenario,
        )
    for name in ("data_docs", "quarantine"):
        files[name] = made / name
    files["validation"] = made / "validation.json"
    if decision["verdict"] != "pass":
        del files["registration"]
        return files
    with view.timed("register"):
        register.run(
            register.Inputs(
                model=made / "model",
                evaluation=files["evaluation"],
                gate=files["gate"],
                report=files["report"],
                validation=files["validation"],
                tracking_uri=uri,
                pipeline_run=run.name,
                lineage=lineage,
                dvc_root=dvc_root,
            ),
            register.Outputs(registration=files["registration"]),
            scenario,
        )
    return files


def shares_table(said: dict[str, Any]) -> Table:
    """Each task's skill on the validation part, of every member alone and together, and the members' shares."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("skill, validation")
    for name in (*said["members"], "together"):
        table.add_column(name, justify="right")
    table.add_column("shares")
    for task, together in said["together"].items():
        alone = [f"{skills[task]:.4f}" for skills in said["alone"]]
        shares = " : ".join(f"{share:.2g}" for share in said["shares"][task])
        table.add_row(task, *alone, f"{together:.4f}", shares)
    return table
