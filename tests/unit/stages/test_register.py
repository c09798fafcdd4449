"""The register stage, and the way back from a registered model to the bytes it was made from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario, parse_scenario
from mtrec.data.forgotten import remember
from mtrec.data.versioning import EMBEDDED, restore
from mtrec.errors import RunError
from mtrec.lease import Lease, Lost
from mtrec.stages import ingest
from mtrec.stages.execution import run_stage
from mtrec.tracking import history, list_models, rollback, show_model


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_from_a_registered_model_back_to_its_bytes(
    uri: str, small: Scenario, tiny_model: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    versioned = ingest.run(
        ingest.Inputs(data=None, dvc_root=EMBEDDED),
        ingest.Outputs(tables=tmp_path / "tables", summary=tmp_path / "ingest.json"),
        small,
    )
    tables = contents(tmp_path / "tables")
    lineage = {
        "data_version": versioned["data_version"],
        "code_revision": "abc",
        "parameters_hash": small.digest,
        "image": "local",
    }
    done = run_stage(
        "register",
        inputs={
            "model": str(tiny_model),
            **{name: str(path) for name, path in judged().items()},
            "tracking_uri": "",
            "pipeline_run": "monday",
            "lineage": json.dumps(lineage),
        },
        outputs={"registration": str(tmp_path / "registration.json")},
        scenario=small,
    )
    for name in tables:
        (tmp_path / "tables" / name).unlink()
    assert json.loads((tmp_path / "registration.json").read_text()) == done
    assert (done["name"], done["version"], done["aliases"]) == ("ecommerce-candidate", "1", ["candidate"])
    assert (done["champion"], done["champion_version"], done["created"]) == (True, "1", True)

    version = show_model("ecommerce@champion").tags["data_version"]
    restore(version, tmp_path / "back")
    assert contents(tmp_path / "back") == tables
    assert set(tables) == {"users.parquet", "items.parquet", "interactions.parquet"}


def test_a_setting_approves_without_a_person(
    uri: str, small: Scenario, tiny_model: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    raw = small.as_dict()
    raw["gate"]["auto_approve"] = True
    automatic = parse_scenario(raw, where="small")

    def register(code: str, champion: str | None, scenario: Scenario = automatic) -> dict[str, Any]:
        compared = {"name": "ecommerce", "version": champion} if champion else None
        (tmp_path / "validation.json").write_text('{"success": true}')
        lineage = {"data_version": "1.dir", "code_revision": code, "parameters_hash": "1", "image": "local"}
        return run_stage(
            "register",
            inputs={
                "model": tiny_model,
                **judged(evaluation={"champion": compared}),
                "validation": tmp_path / "validation.json",
                "tracking_uri": None,
                "pipeline_run": code,
                "lineage": json.dumps(lineage),
            },
            outputs={"registration": tmp_path / "registration.json"},
            scenario=scenario,
        )

    assert register("a", None)["champion_version"] == "1"
    by_hand = register("b", "1", small)
    assert (by_hand["champion"], "approval" in by_hand) == (False, False)
    second = register("c", "1")
    assert (second["champion"], second["champion_version"]) == (True, "2")
    assert second["approval"] == "approved by gate.auto_approve, before: ecommerce/1"
    late = register("d", "1")
    assert not late["champion"]
    assert late["approval"].startswith(
        "left to people: ecommerce-candidate/4: it was compared with ecommerce/1, and"
    )
    rollback("ecommerce", who="ada", why="wrong prices")
    again = register("c", "1")
    assert not again["champion"]
    assert "ada rolled it back" in again["approval"]
    remember(EMBEDDED, small.name, ["u1"])
    unknown = register("e", "1")
    assert not unknown["champion"]
    assert (
        "left to people: ecommerce-candidate/5: may contain users who were forgotten: .mtrec" in unknown["approval"]
    )
    told = [(change.action, change.who, change.why) for change in history("ecommerce")]
    assert told[1:] == [("approve", "mtrec", "gate.auto_approve is true"), ("rollback", "ada", "wrong prices")]


def test_a_run_that_another_has_taken_over_from_registers_nothing(
    uri: str, small: Scenario, tiny_model: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    lease = Lease(tmp_path / "locks" / "training.json")
    lease.acquire("training")
    late = lease.as_text()
    lease.release()
    lineage = {"data_version": "1.dir", "code_revision": "1", "parameters_hash": "1", "image": "local"}

    def register(own: str) -> dict[str, Any]:
        return run_stage(
            "register",
            inputs={
                "model": tiny_model,
                **judged(),
                "tracking_uri": None,
                "pipeline_run": "monday",
                "lineage": json.dumps(lineage),
                "lease": own,
            },
            outputs={"registration": tmp_path / "registration.json"},
            scenario=small,
        )

    other = Lease(tmp_path / "locks" / "training.json")
    other.acquire("training")
    with pytest.raises(Lost, match="this lock was lost"):
        register(late)
    assert list_models() == []
    assert not (tmp_path / "registration.json").exists()
    assert register(other.as_text())["champion"]


def test_nothing_is_written_when_it_fails(
    uri: str, small: Scenario, tiny_model: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"lineage: data_version, code_revision, parameters_hash, image missing"):
        run_stage(
            "register",
            inputs={
                "model": tiny_model,
                **judged(),
                "tracking_uri": None,
                "pipeline_run": "monday",
                "lineage": "{}",
            },
            outputs={"registration": tmp_path / "registration.json"},
            scenario=small,
        )
    assert not (tmp_path / "registration.json").exists()
