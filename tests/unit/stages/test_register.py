"""The register stage, and the way back from a registered model to the bytes it was made from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtrec.config import Scenario
from mtrec.data.versioning import EMBEDDED, restore
from mtrec.errors import RunError
from mtrec.stages import ingest
from mtrec.stages.execution import run_stage
from mtrec.tracking import show_model


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
