import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtrec.data.contract import Tables
from mtrec.progress import read_line
from mtrec.stages.execution import read_failure


def _run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtrec.stages", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stage_runs_from_a_shell(tmp_path: Path) -> None:
    done = _run(
        *("ingest", "--scenario", "ecommerce"),
        *("--set", "source.options.num_users=20", "--set", "source.options.num_items=24"),
        *("--set", "source.options.num_interactions=200"),
        *("--output", "tables=out/tables", "--output", "summary=out/summary.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    tables = Tables.read(tmp_path / "out" / "tables")
    assert summary["num_users"] == tables.users.height == 20
    assert summary["data_version"].endswith(".dir")
    assert "ingest" in done.stderr


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = _run("ingest", "--scenario", "nothing", "--output", "tables=t", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("mtrec: --scenario nothing: unknown")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_pair_without_an_equals_sign_is_explained(tmp_path: Path) -> None:
    done = _run("ingest", "--scenario", "ecommerce", "--output", "tables", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == "mtrec: --output tables: write it as field=value"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_only_fine_tune_runs_in_several_processes_and_the_first_one_says_so(rank: str, tmp_path: Path) -> None:
    torchrun = {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    done = _run("ingest", "--scenario", "ecommerce", "--output", "tables=t", cwd=tmp_path, **torchrun)
    assert done.returncode == 2
    said = "mtrec: stage 'ingest' runs in one process; only fine_tune takes several\n"
    assert done.stderr == (said if rank == "0" else "")


def test_marked_lines_are_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    given = ("validate", "--marked", "--scenario", "ecommerce", "--summary", "summary.json")
    done = _run(*given, "--input", "tables=nothing", "--output", "validated=v", cwd=tmp_path)
    assert done.returncode == 2
    (failure,) = filter(None, map(read_failure, done.stderr.splitlines()))
    assert failure.exit_code == 2
    assert not (tmp_path / "summary.json").exists()


def test_the_summary_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    done = _run(
        *("ingest", "--marked", "--scenario", "ecommerce", "--summary", "summary.json"),
        *("--set", "source.options.num_users=20", "--set", "source.options.num_items=24"),
        *("--set", "source.options.num_interactions=200"),
        *("--output", "tables=out/tables", "--output", "summary=out/summary.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert json.loads((tmp_path / "summary.json").read_text())["num_users"] == 20
    progress = [found for line in done.stderr.splitlines() if (found := read_line(line))]
    assert {found.stage for found in progress} == {"ingest"}
