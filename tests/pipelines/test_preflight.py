"""Wrong input is told before a run begins, in one line, and nothing is written."""

import socket
from pathlib import Path

import pytest

from mtrec.config import load_scenario
from mtrec.errors import ModelError, RunError
from pipelines import cli
from pipelines.preflight import preflight


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def _refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", *arguments])
    output = capsys.readouterr()
    assert caught.value.code == code, output.err
    assert output.out == "", "nothing may begin before wrong input is told"
    assert output.err.count("\n") == 1
    assert not Path(".mtrec", "runs").exists()
    return output.err


def test_an_unknown_kind_of_mlflow_address(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    error = _refused(capsys, 2, "--tracking-uri", "foo://bar")
    assert error.startswith("mtrec: MLflow at foo://bar: unknown kind of address")
    assert "--tracking-uri or MLFLOW_TRACKING_URI" in error
    assert list(here.iterdir()) == []


def test_a_broken_embedded_mlflow(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / ".mtrec").mkdir()
    (here / ".mtrec" / "mlflow.db").write_text("no database" * 1000)
    error = _refused(capsys, 1)
    told = "not an SQLite database; restore it or move it away to start anew"
    assert error == f"mtrec: .mtrec/mlflow.db: {told}\n"


def test_a_server_that_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert _refused(capsys, 1, "--tracking-uri", uri).startswith(f"mtrec: MLflow at {uri}: no answer")


@pytest.mark.parametrize("source", ["auto", "movielens"])
def test_a_scenario_that_needs_data_and_gets_none(capsys: pytest.CaptureFixture[str], source: str) -> None:
    error = _refused(capsys, 2, "--set", f"source.type={source}")
    assert "needs data" in error
    assert "give --data FOLDER" in error


def test_a_folder_without_data(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "raw").mkdir()
    assert "raw: no known layout" in _refused(capsys, 2, "--data", "raw")
    assert "--data nowhere: no such file or folder" in _refused(capsys, 2, "--data", "nowhere")


@pytest.mark.parametrize("name", ["no/such/encoder", "./encoder", "/nowhere/encoder", "../encoder", "~/encoder"])
def test_an_encoder_that_is_neither_folder_nor_hub_id(capsys: pytest.CaptureFixture[str], name: str) -> None:
    error = _refused(capsys, 2, "--set", f"model.encoder.name={name}")
    assert f"model.encoder.name '{name}': no such folder, and no hub id" in error


@pytest.mark.parametrize("name", ["minilm", "bert-base-uncased", "sentence-transformers/gtr-t5-base", "my/own/one"])
def test_encoders_that_may_be_there(here: Path, name: str) -> None:
    (here / "my" / "own" / "one").mkdir(parents=True)
    scenario = load_scenario("ecommerce", [f"model.encoder.name={name}"])
    preflight(scenario, None, f"sqlite:///{here}/.mtrec/mlflow.db")
    assert not (here / ".mtrec").exists()


def test_a_champion_without_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtrec import tracking

    def gone(name: str, uri: str) -> None:
        raise RunError(f"champion {name}: gone")

    monkeypatch.setattr(tracking, "check_champion", gone)
    scenario = load_scenario("ecommerce")
    uri = f"sqlite:///{here}/mlflow.db"
    preflight(scenario, None, uri)
    (here / "mlflow.db").touch()
    with pytest.raises(RunError, match="champion ecommerce: gone"):
        preflight(scenario, None, uri)


# ------------------------------------------------------------------------------------------------ teachers


def test_a_student_without_a_champion(capsys: pytest.CaptureFixture[str]) -> None:
    error = _refused(capsys, 2, "--set", "distillation.layers=2")
    assert "scenario ecommerce has no champion yet. Train one first with distillation.layers=0" in error


def test_a_student_of_a_folder_that_is_no_model(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    error = _refused(capsys, 2, "--set", "distillation.layers=2", "--set", "distillation.teacher=models/big")
    assert "distillation.teacher 'models/big': not a model folder" in error
    (here / "models" / "big").mkdir(parents=True)
    (here / "models" / "big" / "model.safetensors").touch()
    scenario = load_scenario("ecommerce", ["distillation={layers: 2, teacher: models/big}"])
    preflight(scenario, None, f"sqlite:///{here}/mlflow.db")


def test_a_student_of_the_champion(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtrec import tracking

    (here / "mlflow.db").touch()
    scenario = load_scenario("ecommerce", ["distillation.layers=2"])
    for champion in (True, False):
        monkeypatch.setattr(tracking, "check_champion", lambda name, uri, there=champion: there)
        if champion:
            preflight(scenario, None, f"sqlite:///{here}/mlflow.db")
        else:
            with pytest.raises(ModelError, match="no champion yet"):
                preflight(scenario, None, f"sqlite:///{here}/mlflow.db")
