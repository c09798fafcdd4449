import json
from pathlib import Path
from typing import Any

from components.ingest_data import ingest_data
from mtrec.data.contract import Tables
from mtrec.data.versioning import directory_hash, restore
from mtrec.lineage import code_revision


def test_the_tables_are_written_versioned_and_pushed(run_component: Any, tmp_path: Path) -> None:
    done = run_component(
        ingest_data, dvc_root=str(tmp_path / "dvc"), job_id="job-7", code_revision="abc", pipeline_run="mine"
    )
    tables = Tables.read(done.path("tables"))
    assert tables.users.height == 40
    version = directory_hash(done.path("tables"))
    assert done.parameters == {"data_version": version, "code_revision": "abc", "pipeline_run": "mine"}
    assert done.metadata("tables")["data_version"] == version
    assert done.metadata("tables")["num_interactions"] == tables.interactions.height
    assert json.loads(done.path("summary").read_text())["data_version"] == version
    restore(version, tmp_path / "back", tmp_path / "dvc")
    assert Tables.read(tmp_path / "back").items.equals(tables.items)


def test_what_is_not_given_comes_from_the_workflow_and_the_image(run_component: Any) -> None:
    done = run_component(ingest_data, job_id="job-7")
    assert done.parameters["pipeline_run"] == "job-7"
    assert done.parameters["code_revision"] == code_revision()
