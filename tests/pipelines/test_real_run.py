"""`mtrec run` with the real stages: small data, a small random encoder, everything else as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtrec.data.contract import Tables
from mtrec.data.versioning import restore
from mtrec.tracking import list_models


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, BertConfig, BertModel

    from mtrec.models.encoder import bundled_minilm

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


def _mtrec_run(folder: Path, encoder: Path) -> subprocess.CompletedProcess[str]:
    settings = [
        "source.options={num_users: 40, num_items: 40, num_interactions: 1200}",
        f"model.encoder={{name: {encoder}, max_length: 16, train_layers: 1}}",
        "model.width=16",
        "training.epochs=1",
        "gate={must_improve: false, floors: {rating.rmse: 100}}",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(Path(__file__).parent / "steady_code")
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", *(part for s in settings for part in ("--set", s))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_two_equal_runs_end_in_one_registered_version(tmp_path: Path, encoder: Path) -> None:
    folder = tmp_path / "a shop"
    folder.mkdir()
    first = _mtrec_run(folder, encoder)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    second = _mtrec_run(folder, encoder)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("(cached)") == 2
    models = [json.loads(p.read_text())["model"] for p in (folder / ".mtrec" / "runs").glob("*/evaluation.json")]
    assert len(models) == 2
    assert models[0] == models[1], "the seconds of training are the first run's: it is not trained again"
    uri = f"sqlite:///{folder / '.mtrec' / 'mlflow.db'}"
    candidates = [model for model in list_models(uri) if model.name == "ecommerce-candidate"]
    assert [candidate.version for candidate in candidates] == ["1"]
    for run in (first, second):
        assert "ecommerce-candidate version 1" in run.stdout
    runs = sorted((folder / ".mtrec" / "runs").iterdir())
    assert len(runs) == 2
    for path in runs:
        assert json.loads((path / "gate.json").read_text())["verdict"] == "pass"
        assert (path / "report.html").stat().st_size > 10_000
        assert (path / "data_docs" / "index.html").is_file()
    registration = json.loads((runs[-1] / "registration.json").read_text())
    assert registration["version"] == "1"
    restore(candidates[0].tags["data_version"], tmp_path / "back", folder / ".mtrec" / "dvc")
    assert Tables.read(tmp_path / "back").users.height == 40
    assert sorted(path.name for path in folder.iterdir()) == [".mtrec"], "nothing but the state folder is made"
