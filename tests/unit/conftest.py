"""Shared small things: MLflow stores, model folders, and a tiny shop with every type of task.

An MLflow store per test: SQLite, copied from one that was set up once, because setting one up takes seconds.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtrec.config import Scenario, load_scenario
from tests.unit.postgres import postgres  # noqa: F401 (a fixture)
from tests.unit.tiny_shop import DIALS, save_bert, save_llama, shop_scenario, shop_tables, words

if TYPE_CHECKING:
    from mtrec.data.dataset import Dataset, Encoding
    from mtrec.models.inputs import View
    from mtrec.models.recommender import Catalogue
    from mtrec.models.store import Bundle

EVALUATION: dict[str, Any] = {
    "scenario": "ecommerce",
    "description": "A shop.",
    "dataset": {
        "num_users": 20,
        "num_items": 12,
        "num_interactions": 300,
        "first": "2026-01-01",
        "last": "2026-02-01",
    },
    "model": {"encoder": "tiny", "parameters": 1000, "trained_parameters": 900},
    "protocol": {"split": "time", "text": "Every item is ranked; seen items are left out."},
    "champion": None,
    "tasks": {
        "rating": {
            "type": "regression",
            "primary": "rmse",
            "metrics": {
                "mae": {"higher_is_better": False, "before": 1.0, "after": 0.75, "champion": None},
                "rmse": {"higher_is_better": False, "before": 1.21, "after": 0.931, "champion": None},
            },
            "slices": [{"slice": "cold items", "num_examples": 31, "metric": "rmse", "before": 1.3, "after": 1.1}],
        },
        "next_item": {
            "type": "next_item",
            "primary": "ndcg@10",
            "metrics": {"ndcg@10": {"higher_is_better": True, "before": 0.01, "after": 0.2, "champion": None}},
        },
    },
}
GATE: dict[str, Any] = {
    "verdict": "pass",
    "rules": [{"rule": "rating.rmse must be at most 1.2", "verdict": "pass", "why": "0.931 ≤ 1.2"}],
    "champion": None,
}


@pytest.fixture(scope="session")
def prepared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mtrec.tracking.connection import connected

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with connected(f"sqlite:///{path}") as client:
        client.search_experiments()
    return path


@pytest.fixture
def uri(prepared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded MLflow of an otherwise empty working directory."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mtrec").mkdir()
    shutil.copy(prepared_store, tmp_path / ".mtrec" / "mlflow.db")
    return f"sqlite:///{tmp_path}/.mtrec/mlflow.db"


@pytest.fixture(scope="session")
def scenario(repository: Path) -> Scenario:
    return load_scenario(repository / "scenarios" / "ecommerce.yaml")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Scenario:
    """The e-commerce scenario with little data and a random encoder of two small layers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from mtrec.models.encoder import bundled_minilm

    folder = tmp_path_factory.mktemp("small")
    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    tokenizer.save_pretrained(folder / "encoder")
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "encoder")
    return load_scenario(
        repository / "scenarios" / "ecommerce.yaml",
        [
            "source.options={num_users: 60, num_items: 40, num_interactions: 1500}",
            f"model.encoder={{name: {folder / 'encoder'}, max_length: 16, train_layers: 1}}",
            "model.width=16",
        ],
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, small: Scenario) -> Path:
    """A real model folder of the small scenario, untrained."""
    from mtrec.data.cleaning import clean
    from mtrec.data.dataset import prepare
    from mtrec.data.sources import read_source
    from mtrec.models.store import new_model, save_model

    folder = tmp_path_factory.mktemp("tiny")
    tables, _ = clean(read_source(small, None))
    dataset, encoding = prepare(tables, small)
    bundle, _, catalogue = new_model(dataset, encoding, small)
    save_model(folder / "model", bundle, dataset, catalogue, {"epochs": 0})
    return folder / "model"


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Write evaluation.json, gate.json and report.html; keywords change the gate."""

    def write(*, evaluation: dict[str, Any] | None = None, **gate: Any) -> dict[str, Path]:
        folder = tmp_path / "judged"
        folder.mkdir(exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(EVALUATION | (evaluation or {})))
        (folder / "gate.json").write_text(json.dumps(GATE | gate))
        (folder / "report.html").write_text("<p>A report.</p>")
        return {
            "evaluation": folder / "evaluation.json",
            "gate": folder / "gate.json",
            "report": folder / "report.html",
        }

    return write


# ------------------------------------------------------------------------------------------------ the tiny shop


@pytest.fixture(scope="session")
def shop_words() -> list[str]:
    """Every word of the tiny shop's items."""
    items = shop_tables(DIALS)[0].items
    return words([*items["title"].drop_nulls(), *items["description"].drop_nulls()])


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, shop_words: list[str]) -> Path:
    """Folder of a bidirectional encoder: two layers, 32 wide, random weights."""
    return save_bert(tmp_path_factory.mktemp("encoders") / "bert", shop_words)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, shop_words: list[str]) -> Path:
    """Folder of a decoder: two layers, 32 wide, random weights."""
    return save_llama(tmp_path_factory.mktemp("encoders") / "llama", shop_words)


@pytest.fixture(scope="session")
def shop(tiny_bert: Path) -> Scenario:
    """A scenario with every type of task."""
    return shop_scenario(tiny_bert)


@pytest.fixture(scope="session")
def shop_data(shop: Scenario) -> "tuple[Dataset, Encoding]":
    """60 users, 50 items, 2,000 events, split by time."""
    from mtrec.data.dataset import prepare

    return prepare(shop_tables(DIALS)[0], shop)


@pytest.fixture(scope="session")
def shop_start(shop: Scenario, shop_data: "tuple[Dataset, Encoding]") -> "tuple[Bundle, View, Catalogue]":
    """The untrained model of the tiny shop. Shared: copy it before you change it."""
    from mtrec.models.store import new_model

    bundle, view, catalogue = new_model(*shop_data, shop)
    bundle.model.eval()
    return bundle, view, catalogue


@pytest.fixture(scope="session")
def shop_run(tmp_path_factory: pytest.TempPathFactory, shop: Scenario) -> Path:
    """Folder in which preprocess, fine_tune, evaluate and gate ran one after the other. Shared: read only."""
    from mtrec.stages import evaluate, fine_tune, gate, preprocess

    folder = tmp_path_factory.mktemp("shop")
    shop_tables(DIALS)[0].write(folder / "tables")
    said = {
        "preprocess": preprocess.run(
            preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), shop
        ),
        "fine_tune": fine_tune.run(
            fine_tune.Inputs(dataset=folder / "dataset"),
            fine_tune.Outputs(model=folder / "model", losses=folder / "losses.jsonl"),
            shop,
        ),
        "evaluate": evaluate.run(
            evaluate.Inputs(dataset=folder / "dataset", model=folder / "model", champion=False),
            evaluate.Outputs(evaluation=folder / "evaluation.json", predictions=folder / "predictions"),
            shop,
        ),
        "gate": gate.run(
            gate.Inputs(
                evaluation=folder / "evaluation.json", losses=folder / "losses.jsonl", lineage={"image": "local"}
            ),
            gate.Outputs(gate=folder / "gate.json", report=folder / "report.html"),
            shop,
        ),
    }
    (folder / "said.json").write_text(json.dumps(said))
    return folder
