"""The mtrec command: what it prints, how it fails, what it costs to start."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mtrec import __version__
from mtrec.data.contract import Tables
from mtrec.data.download import PUBLIC_SETS, PublicSet
from pipelines import cli
from pipelines.reference import commands, reference

SMALL_SHOP = [
    *("--set", "source.options.num_users=30"),
    *("--set", "source.options.num_items=24"),
    *("--set", "source.options.num_interactions=400"),
]
Mtrec = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    output = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


def test_help_answers_within_half_a_second(tmp_path: Path) -> None:
    """In processor time, which is the time it takes where nothing else runs."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "pipelines.cli", "--help"], cwd=tmp_path, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0
    assert min(seconds) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pipelines import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = 'torch transformers mlflow kfp great_expectations pandas polars matplotlib pydantic dvc'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_has_help_and_so_has_every_option(name: str) -> None:
    result = CliRunner().invoke(cli.app, [*name.split()[1:], "--help"])
    assert result.exit_code == 0
    command = dict(commands())[name]
    assert command.help
    assert [p.name for p in command.params if not getattr(p, "help", None)] == []


def test_the_reference_is_up_to_date(repository: Path) -> None:
    written = (repository / "docs" / "cli.md").read_text()
    assert written == reference(), "the commands changed: run `make docs`"


def test_version_names_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = _main(capsys, "version")
    assert code == 0
    assert output.startswith(f"mtrec {__version__} (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--scenario", "nope"], "--scenario nope: unknown; choose one of"),
        (["run", "--data", "nowhere"], "--data nowhere: no such file or folder"),
        (["run", "--set", "training.epochs=0"], "training.epochs: Input should be greater than or equal to 1"),
        (["run", "--set", "training.seed=-1"], "--set training.seed: Input should be greater than or equal to 0"),
        (["run", "--set", "source.options.seed=-1"], "source.options: seed: Input should be greater"),
        (["run", "--set", "training"], "--set training: write it as key.sub=value"),
        (["compile", "--release"], "can change under its name"),
        (["compile", "--set", "training.epochs=3"], "--set without --scenario: name the scenario"),
        (["compile", "--scenario", "missing.yaml"], "missing.yaml: no such scenario file"),
        (["report", "open"], "no report yet; make one with 'mtrec run'"),
        (["data", "ingest", "--data", "nowhere"], "nowhere"),
        (["data", "download", "nothing"], "data set 'nothing': unknown; choose one of movielens-latest-small"),
        (["data", "restore", "x", "--to", "there", "--root", "nowhere"], "nowhere: not a DVC repository"),
        (["models", "show", "nothing"], "nothing: no such registered model"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, output, error = _main(capsys, *arguments)
    assert code == 2
    assert error.startswith("mtrec: ")
    assert error.count("\n") == 1
    assert message in error
    assert output == ""


def test_a_wrong_option_is_exit_code_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, error = _main(capsys, "run", "--speed", "9")
    assert (code, output) == (2, "")
    assert error.startswith("mtrec: No such option: --speed")
    assert error.endswith("; see mtrec run --help\n")
    assert error.count("\n") == 1


def test_a_group_without_a_command_is_its_help(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, error = _main(capsys, "models")
    assert (code, error) == (2, "")
    assert "approve" in output


@pytest.mark.parametrize("seed", ["-1", "99999999999999999999"])
def test_a_seed_out_of_bounds_is_refused_before_the_run(
    here: Path, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    code, _, error = _main(capsys, "run", "--seed", seed)
    assert code == 2
    assert "Invalid value for '--seed'" in error
    assert list(here.iterdir()) == []


def test_debug_adds_the_traceback_and_only_then(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" not in _main(capsys, "run", "--data", "nowhere")[2]
    code, _, error = _main(capsys, "run", "--data", "nowhere", "--debug")
    assert code == 2
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("mtrec: --data nowhere")
    assert "Traceback" not in _main(capsys, "run", "--data", "nowhere")[2]


def test_a_bug_is_named_as_such(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr("mtrec.lineage.code_revision", broken)
    code, _, error = _main(capsys, "version")
    assert code == 1
    assert (
        error == "mtrec: unexpected ZeroDivisionError: division by zero; run again with --debug for the traceback\n"
    )


def test_compile_writes_the_pipeline_with_the_scenario_filled_in(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = _main(
        capsys, "compile", "-o", "out/p.yaml", "--scenario", "video", "--set", "training.epochs=3"
    )
    assert (code, output) == (0, "out/p.yaml written\n")
    text = (here / "out" / "p.yaml").read_text()
    assert "name: mtrec-training" in text
    assert '"epochs": 3' in text


@pytest.mark.parametrize(("pipeline", "what"), [("training", "scenario and the lease"), ("search", "scenario")])
def test_compile_fills_in_what_the_cluster_file_says(
    pipeline: str, what: str, here: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("compile", "-o", "p.yaml", "--pipeline", pipeline)
    cluster = str(repository / "k8s" / "cluster" / "cluster.yaml")
    code, output, _ = _main(capsys, *arguments, "--cluster", cluster)
    assert (code, output) == (0, f"p.yaml written; give each run the {what}, or compile with --scenario\n")
    wanted = next(yaml.safe_load_all((here / "p.yaml").read_text()))["root"]["inputDefinitions"]["parameters"]
    assert wanted["dvc_root"]["defaultValue"] == "/mtrec/dvc"
    assert wanted["text_cache"]["defaultValue"] == "/mtrec/texts"
    assert "defaultValue" not in wanted["scenario"]
    code, output, _ = _main(capsys, *arguments, "--cluster", cluster, "--scenario", "video")
    assert (code, output) == (0, "p.yaml written\n")
    wanted = next(yaml.safe_load_all((here / "p.yaml").read_text()))["root"]["inputDefinitions"]["parameters"]
    assert ("mtrec-video-training" in str(wanted.get("lease"))) is (pipeline == "training")


def test_run_ends_with_the_gate_s_verdict_as_exit_code(
    mtrec: Mtrec, tmp_path: Path, small_stages: Callable[[str], None]
) -> None:
    passed = mtrec("run", "--seed", "7")
    assert passed.returncode == 0, passed.stderr
    assert "ecommerce-candidate version 1" in passed.stdout
    assert passed.stderr == ""
    refused = mtrec("run", "--set", "gate.floors={rating.rmse: 0.5}")
    assert refused.returncode == 3
    reason = "rating.rmse must be at most 0.5: 0.93 > 0.5"
    assert refused.stderr == f"mtrec: the gate refused the candidate: {reason}\n"
    assert "nothing: the gate refused this candidate" in refused.stdout
    small_stages("ingest=explain")
    failed = mtrec("run", "--debug", "--no-cache")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("mtrec: data/items.csv: column 'title' is missing")
    assert "In the step's own process:" in failed.stderr
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / ".mtrec" / "runs").glob("*/run.json")]
    assert sorted(states) == ["failed", "finished", "finished"]


def test_report_open_prints_the_newest_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in enumerate(("new", "old")):
        report = here / ".mtrec" / "runs" / name / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text("<html></html>")
        os.utime(report, (1e9 - age, 1e9 - age))
    code, output, _ = _main(capsys, "report", "open", "--path")
    assert (code, output) == (0, ".mtrec/runs/new/report.html\n")


def test_data_is_simulated_validated_and_versioned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = _main(capsys, "data", "simulate", "--out", "shop", *SMALL_SHOP)
    assert code == 0
    assert output.startswith("shop: 30 users, 24 items, ")
    tables = Tables.read(here / "shop")
    code, output, _ = _main(capsys, "data", "ingest", "--data", "shop", "--out", "again")
    assert code == 0
    assert Tables.read(here / "again").interactions.equals(tables.interactions)
    code, output, _ = _main(capsys, "data", "versions")
    assert output.startswith("No data version yet")
    code, output, _ = _main(capsys, "data", "snapshot", "shop", "--name", "shop")
    assert code == 0
    data_version = output.split()[0]
    assert data_version.endswith(".dir")
    assert output.endswith(", .mtrec/dvc/data/shop.dvc\n")
    assert (here / ".mtrec" / "dvc" / "data" / "shop.dvc").is_file()
    assert data_version in _main(capsys, "data", "versions")[1]
    code, output, _ = _main(capsys, "data", "restore", data_version, "--to", "back")
    assert code == 0
    for path in (here / "shop").iterdir():
        assert (here / "back" / path.name).read_bytes() == path.read_bytes()


def test_a_snapshot_is_named_by_its_folder_and_found_by_the_beginning_of_its_version(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "drops" / "sales").mkdir(parents=True)
    (here / "drops" / "sales" / "a.csv").write_text("a\n1\n")
    code, output, error = _main(capsys, "data", "snapshot", "drops/sales/")
    assert code == 0, error
    version = output.split()[0]
    assert "  sales: 1 files, 4 bytes, " in output
    code, output, error = _main(capsys, "data", "restore", version[:8], "--to", "back")
    assert (code, output) == (0, f"back holds {version}\n"), error
    assert (here / "back" / "a.csv").read_text() == "a\n1\n"


def test_data_that_does_not_pass_is_named_as_it_was_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--set", "validation.min_rows={interactions: 9999}")
    code, _, error = _main(capsys, "data", "validate", "--out", "checked", *SMALL_SHOP, *few)
    assert code == 2
    assert error.startswith("mtrec: scenario 'ecommerce': ")
    assert _main(capsys, "data", "simulate", "--out", "shop", *SMALL_SHOP)[0] == 0
    code, _, error = _main(capsys, "data", "validate", "--data", "shop", "--out", "checked", *few)
    assert code == 2
    assert error.startswith("mtrec: shop: ")
    assert "/tmp" not in error.replace(str(here), "")


def test_data_validate_writes_what_it_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, error = _main(capsys, "data", "validate", "--out", "checked", *SMALL_SHOP)
    assert code == 0, error
    summary = json.loads((here / "checked" / "validation.json").read_text())
    assert summary["success"]
    assert (here / "checked" / "data_docs" / "index.html").is_file()
    assert "quarantined" in output
    for name, rows in Tables.read(here / "checked" / "tables").num_rows.items():
        assert summary["tables"][name]["good"] == rows


def test_data_download_fetches_and_says_how_to_use_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = here / "served"
    served.mkdir()
    (served / "rows.csv").write_text("a,b\n1,2\n")
    public = PublicSet(
        files={"rows.csv": (served / "rows.csv").as_uri()}, scenario="video", terms="https://example.org/terms"
    )
    monkeypatch.setitem(PUBLIC_SETS, "rows", public)
    code, output, error = _main(capsys, "data", "download", "rows", "--to", "sets")
    assert code == 0, error
    assert (here / "sets" / "rows" / "rows.csv").read_text() == "a,b\n1,2\n"
    assert "terms: https://example.org/terms" in output
    assert "use it: mtrec run --scenario video --data sets/rows" in output
    assert "rows.csv" in error


def test_a_download_that_fails_leaves_no_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    public = PublicSet(
        files={"rows.csv": (here / "nothing.csv").as_uri()}, scenario="video", terms="https://example.org/terms"
    )
    monkeypatch.setitem(PUBLIC_SETS, "rows", public)
    code, _, error = _main(capsys, "data", "download", "rows", "--to", "deep/sets")
    assert code == 2
    assert "cannot be reached" in error
    assert list(here.iterdir()) == []
    (here / "sets").mkdir()
    assert _main(capsys, "data", "download", "rows", "--to", "sets")[0] == 2
    assert [path.name for path in here.iterdir()] == ["sets"], "a folder that was there stays"


@pytest.mark.parametrize("arguments", [["list"], ["show", "shop"]])
@pytest.mark.parametrize("option", [True, False])
def test_a_database_that_was_asked_for_and_is_not_there_is_wrong_input(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    option: bool,
) -> None:
    uri = f"sqlite:///{here}/no/such/x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "" if option else uri)
    code, output, error = _main(capsys, "models", *arguments, *(["--tracking-uri", uri] if option else []))
    assert (code, output) == (2, "")
    given = "--tracking-uri" if option else "MLFLOW_TRACKING_URI"
    assert error.startswith(f"mtrec: {given} {uri}: no such file {here}/no/such/x.db; ")
    assert list(here.iterdir()) == []


def test_models_list_says_when_there_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = _main(capsys, "models", "list")
    assert code == 0
    assert output == "No model is registered yet; 'mtrec run' registers one.\n"
    assert list(here.iterdir()) == [], "looking must not create a registry"
