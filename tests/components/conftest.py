"""One component in kfp's local runner, and the outputs of the stages before it, made once."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl, local
from kfp.local import config as local_config

from mtrec.config import Scenario, load_scenario
from mtrec.stages.execution import run_stage

SMALL = (
    "source.options={num_users: 40, num_items: 40, num_interactions: 1200}",
    "model.width=16",
    "training.epochs=1",
    "training.texts_per_step=8",
    "gate={must_improve: false, floors: {rating.rmse: 100}}",
)


@dataclass(frozen=True)
class Done:
    """What a component left behind."""

    folder: Path
    executor_output: dict[str, Any]

    def path(self, artifact: str) -> Path:
        return self.folder / artifact

    def metadata(self, artifact: str) -> dict[str, Any]:
        found: dict[str, Any] = self.executor_output["artifacts"][artifact]["artifacts"][0]["metadata"]
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = self.executor_output.get("parameterValues", {})
        return found


Component = Callable[..., Done]


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """The e-commerce scenario with little data and a random encoder of two small layers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from mtrec.models.encoder import bundled_minilm

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return load_scenario(
        "ecommerce", [*SMALL, f"model.encoder={{name: {folder}, max_length: 16, train_layers: 1}}"]
    )


@pytest.fixture(scope="session")
def scenario_text(scenario: Scenario) -> str:
    return json.dumps(scenario.as_dict())


@pytest.fixture
def run_component(tmp_path: Path, scenario_text: str) -> Component:
    """Run one component through the SubprocessRunner: `run_component(validate_data, {"tables": path}, …)`."""

    def run(
        component: Any, artifacts: dict[str, Path] | None = None, made_from: str = "1.dir", **parameters: str
    ) -> Done:
        types = {name: spec.type for name, spec in component.component_spec.inputs.items()}
        classes = {
            "system.Dataset": dsl.Dataset,
            "system.Model": dsl.Model,
            "system.HTML": dsl.HTML,
            "system.Artifact": dsl.Artifact,
        }

        @dsl.pipeline(name="one-component")
        def one() -> None:
            given: dict[str, Any] = {}
            for name, path in (artifacts or {}).items():
                kind = classes[types[name].split("@")[0]]
                metadata = {"data_version": made_from}
                given[name] = dsl.importer(artifact_uri=str(path), artifact_class=kind, metadata=metadata).output
            component(**{"scenario": scenario_text, **given, **parameters})

        previous = local_config.LocalExecutionConfig.instance
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
        try:
            one()
        finally:
            local_config.LocalExecutionConfig.instance = previous
        (folder,) = (tmp_path / "root").glob(f"*/{component.name}")
        return Done(folder, json.loads((folder / "executor_output.json").read_text()))

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> "Made":
    return Made(tmp_path_factory.mktemp("made"), scenario)


class Made:
    """Outputs of the stages, each run at most once and only when a test asks."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self._folder = folder
        self._scenario = scenario
        self._done: set[str] = set()

    def _stage(self, name: str, inputs: dict[str, Any], *outputs: str) -> None:
        if name not in self._done:
            paths = {output: self._folder / name / output for output in outputs}
            (self._folder / name).mkdir()
            run_stage(name, inputs=inputs, outputs=paths, scenario=self._scenario)
            self._done.add(name)

    @property
    def tables(self) -> Path:
        self._stage("ingest", {}, "tables", "summary")
        return self._folder / "ingest" / "tables"

    def validate(self, output: str) -> Path:
        self._stage("validate", {"tables": self.tables}, "validated", "quarantine", "data_docs", "summary")
        return self._folder / "validate" / output

    @property
    def dataset(self) -> Path:
        self._stage("preprocess", {"tables": self.validate("validated")}, "dataset")
        return self._folder / "preprocess" / "dataset"

    def fine_tune(self, output: str) -> Path:
        self._stage("fine_tune", {"dataset": self.dataset}, "model", "losses")
        return self._folder / "fine_tune" / output

    @property
    def evaluation(self) -> Path:
        inputs = {"dataset": self.dataset, "model": self.fine_tune("model"), "champion": False}
        self._stage("evaluate", inputs, "evaluation", "predictions")
        return self._folder / "evaluate" / "evaluation"

    def gate(self, output: str) -> Path:
        inputs = {
            "evaluation": self.evaluation,
            "losses": self.fine_tune("losses"),
            "validation": self.validate("summary"),
            "lineage": {"data_version": "1.dir"},
        }
        self._stage("gate", inputs, "gate", "report")
        return self._folder / "gate" / output
