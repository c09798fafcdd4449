"""The fine_tune stage: a dataset to a model folder and its loss history."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from mtrec import lineage, tracking
from mtrec.config import Scenario
from mtrec.data.dataset import Dataset
from mtrec.data.splits import TEST, VALID
from mtrec.errors import ConfigError, DataError, ModelError
from mtrec.models.store import load_model
from mtrec.progress import Progress, listening
from mtrec.serving.predictor import Predictor
from mtrec.stages import fine_tune
from mtrec.tracking.connection import connected
from mtrec.training.loop import Trainer
from tests.unit.tiny_shop import shop_scenario


def run(dataset: Path, folder: Path, scenario: Scenario) -> dict[str, Any]:
    return fine_tune.run(
        fine_tune.Inputs(dataset=dataset),
        fine_tune.Outputs(model=folder / "model", losses=folder / "losses.jsonl"),
        scenario,
    )


def test_the_summary_counts_the_run(shop_run: Path, shop: Scenario) -> None:
    said = json.loads((shop_run / "said.json").read_text())["fine_tune"]
    assert set(said) >= {"epochs", "best_epoch", "steps", "seconds", "parameters", "trained_parameters"}
    assert 0 < said["seconds_per_step"] * said["steps"] < 1.2 * said["seconds"]
    assert said == json.loads((shop_run / "model" / "training.json").read_text())
    assert said["epochs"] == shop.training.epochs == 2
    assert 1 <= said["best_epoch"] <= 2
    weights = load_file(shop_run / "model" / "model.safetensors")
    model = load_model(shop_run / "model").model
    assert said["parameters"] == sum(p.numel() for p in model.parameters())
    assert said["parameters"] <= sum(v.numel() for v in weights.values())
    assert 0 < said["trained_parameters"] < said["parameters"]


def test_temperatures_come_from_the_validation_part_alone(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    said = json.loads((shop_run / "said.json").read_text())["fine_tune"]["temperatures"]
    probable = {n for n, t in shop.tasks.items() if t.type in ("binary", "classification", "multilabel")}
    assert set(said) == probable
    model = load_model(shop_run / "model").model
    assert {name: float(model.head(name).temperature) for name in said} == pytest.approx(said)
    dataset = Dataset.read(shop_run / "dataset")
    rows = dataset.interactions
    for part, same in ((TEST, True), (VALID, False)):
        wrong = rows.with_columns(
            rating=pl.when((pl.col("part") == part) & pl.col("rating").is_not_null()).then(6 - pl.col("rating"))
            .otherwise("rating")
        )  # fmt: skip
        bundle = load_model(shop_run / "model")
        for name in said:
            bundle.model.head(name).temperature.fill_(1)
        other = replace(dataset, interactions=wrong)
        view = bundle.view(other)
        catalogue = bundle.model.catalogue(other.items["text"].to_list(), view.items)
        trainer = Trainer(bundle, view, catalogue, validate=lambda *_: {})
        found = fine_tune.settle(bundle, trainer)["temperatures"]
        assert (found["like"] == pytest.approx(said["like"], rel=1e-3)) == same
    plain = shop.model_copy(update={"training": shop.training.model_copy(update={"calibrate": False, "epochs": 1})})
    assert run(shop_run / "dataset", tmp_path, plain)["temperatures"] == {}
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert all(float(weights[f"heads.{name}.temperature"]) == 1 for name in probable)


def test_the_loss_history_has_the_promised_shape(shop_run: Path, shop: Scenario) -> None:
    lines = [json.loads(line) for line in (shop_run / "losses.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert set(kinds) == {"train", "valid", "tasks"}
    assert kinds.count("valid") == 2
    for line in lines:
        if line["kind"] == "train":
            assert set(line) >= {"kind", "step", "epoch", "loss", "losses", "lr", "seconds"}
            assert set(line["losses"]) == set(shop.tasks)
            assert all(math.isfinite(value) for value in line["losses"].values())
        elif line["kind"] == "tasks":
            assert line["tasks"] == list(shop.tasks)
            assert np.shape(line["cosines"]) == np.shape(line["effects"]) == (len(shop.tasks),) * 2
            assert np.shape(line["norms"]) == (len(shop.tasks),)
            assert np.isfinite(line["cosines"]).all()
        else:
            assert set(line) >= {"kind", "step", "epoch", "score", "metrics", "seconds"}
            assert line["metrics"]
            assert all(math.isfinite(value) for value in line["metrics"].values())
    assert [line["epoch"] for line in lines if line["kind"] == "valid"] == [1, 2]


def test_progress_is_reported_from_the_start_to_the_end(shop_run: Path, shop: Scenario, tmp_path: Path) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        run(shop_run / "dataset", tmp_path, shop)
    assert heard[0].fraction == 0
    assert {p.stage for p in heard} == {"fine_tune"}
    fractions = [p.fraction or 0.0 for p in heard]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.8
    # The same data, scenario and seed: the same weights as the shared run.
    files = [folder / "model" / "model.safetensors" for folder in (shop_run, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


def fixed_training(folder: Path) -> None:
    """Other code."""


def changed_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    changed = {name: value + 0.01 for name, value in weights.items() if value.is_floating_point()}
    save_file(weights | changed, folder / "model.safetensors", {"format": "pt"})


def changed_tokenizer(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    assert '"lowercase":true' in "".join(text.split())
    (folder / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'))


@pytest.mark.parametrize("change", [None, fixed_training, changed_weights, changed_tokenizer])
def test_a_checkpoint_of_other_code_or_of_another_encoder_is_not_resumed(
    change: Callable[[Path], None] | None, shop_run: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    encoder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    scenario = shop_scenario(encoder)

    def steps(code_revision: str) -> int:
        """How many steps a run reports."""
        heard: list[Progress] = []
        outputs = fine_tune.Outputs(model=tmp_path / "model", losses=tmp_path / "losses.jsonl")
        inputs = fine_tune.Inputs(
            dataset=shop_run / "dataset", checkpoints=tmp_path / "checkpoints", code_revision=code_revision
        )
        with listening(heard.append):
            fine_tune.run(inputs, outputs, scenario)
        return sum(bool(progress.fraction) for progress in heard)

    whole = steps("one")
    assert whole > 2
    if change:
        change(encoder)
    assert steps("two" if change is fixed_training else "one") == (whole if change else 0)


def test_the_revision_of_a_checkpoint_is_asked_from_the_code_where_none_is_given(
    shop_run: Path, shop: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tune, "code_revision", lambda: "installed")
    given, asked, other = (
        fine_tune._key(fine_tune.Inputs(dataset=shop_run / "dataset", code_revision=revision), shop)
        for revision in ("installed", None, "other")
    )
    assert given == asked != other


# ------------------------------------------------------------------------------------------------ MLflow

SKILLS = (0.3, 0.5, 0.7, 0.6)
Scripted = Callable[..., None]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Let validation say given skills, one per epoch; an error among them is raised."""

    def script(*skills: float | Exception) -> None:
        left: Iterator[float | Exception] = iter(skills)

        def validate(*_: Any) -> dict[str, float]:
            said = next(left)
            if isinstance(said, Exception):
                raise said
            return {"rating": said}

        monkeypatch.setattr(fine_tune, "validation", lambda *_: validate)

    return script


def tracked(shop_run: Path, folder: Path, shop: Scenario, pipeline_run: str) -> list[dict[str, Any]]:
    """Run the stage with four epochs, checkpoints and MLflow; the loss history."""
    training = shop.training.model_copy(update={"epochs": len(SKILLS)})
    fine_tune.run(
        fine_tune.Inputs(
            dataset=shop_run / "dataset",
            checkpoints=folder / "checkpoints",
            code_revision="a-revision",
            pipeline_run=pipeline_run,
        ),
        fine_tune.Outputs(model=folder / "model", losses=folder / "losses.jsonl"),
        shop.model_copy(update={"training": training}),
    )
    return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]


def curves(uri: str, pipeline_run: str) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of every curve in the one child of a pipeline run's run."""
    with connected(uri) as client:
        experiments = [e.experiment_id for e in client.search_experiments()]
        (parent,) = client.search_runs(experiments, f"tags.`mtrec.pipeline_run` = '{pipeline_run}'")
        (child,) = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        names = [name for name in child.data.metrics if not name.startswith("system/")]
        histories = {name: client.get_metric_history(child.info.run_id, name) for name in names}
    return {name: sorted((p.step, p.value) for p in points) for name, points in histories.items()}


def promised(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """What MLflow should hold of a loss history, but for the tasks' losses."""
    train, valid = ([line for line in lines if line["kind"] == kind] for kind in ("train", "valid"))
    return {
        "train/loss": [(line["step"], line["loss"]) for line in train],
        "train/lr": [(line["step"], line["lr"]) for line in train],
        "valid/rating": [(line["step"], line["metrics"]["rating"]) for line in valid],
        "valid/score": [(line["step"], line["score"]) for line in valid],
    }


def test_mlflow_has_the_curves_of_the_loss_history(
    shop_run: Path, shop: Scenario, tmp_path: Path, uri: str, scripted: Scripted
) -> None:
    scripted(*SKILLS)
    lines = tracked(shop_run, tmp_path, shop, "monday")
    scores = [line["score"] for line in lines if line["kind"] == "valid"]
    assert scores == pytest.approx([3 / 7, 5 / 7, 1, 6 / 7]), "in the unit of the whole run"
    found = curves(uri, "monday")
    for name, curve in promised(lines).items():
        assert found[name] == curve, name


@pytest.mark.parametrize("then", ["monday", "tuesday"])
@pytest.mark.parametrize("broken", ["validation", "MLflow"])
def test_a_resumed_run_has_every_line_in_mlflow_once(
    broken: str,
    then: str,
    shop_run: Path,
    shop: Scenario,
    tmp_path: Path,
    uri: str,
    scripted: Scripted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It breaks off in the third epoch, or after the second one's checkpoint and before its lines are sent."""
    scripted(*SKILLS[:2], RuntimeError("power cut"))
    log, sent = tracking.log_losses, Counter[str]()

    def cut(*arguments: Any) -> None:
        sent["epochs"] += 1
        if sent["epochs"] == 2:
            raise RuntimeError("power cut")
        log(*arguments)

    with monkeypatch.context() as patch:
        if broken == "MLflow":
            patch.setattr(tracking, "log_losses", cut)
        with pytest.raises(RuntimeError, match="power cut"):
            tracked(shop_run, tmp_path, shop, "monday")
    assert len(curves(uri, "monday")["valid/rating"]) == (1 if broken == "MLflow" else 2)
    scripted(*SKILLS[2:])
    lines = tracked(shop_run, tmp_path, shop, then)
    assert [line["metrics"]["rating"] for line in lines if line["kind"] == "valid"] == list(SKILLS)
    found = curves(uri, then)
    for name, curve in promised(lines).items():
        assert found[name] == curve, name


# ------------------------------------------------------------------------------------------------ encoders


def test_a_decoder_with_lora_runs_through_the_same_stage(
    shop_run: Path, shop: Scenario, tiny_llama: Path, tmp_path: Path
) -> None:
    lora = {"rank": 2, "alpha": 4, "modules": ["q_proj", "v_proj"]}
    sizes = shop.model.model_dump() | {"encoder": {"name": str(tiny_llama), "max_length": 24, "lora": lora}}
    training = shop.training.model_dump() | {"epochs": 1, "lr_encoder": 1e-2}
    scenario = shop_scenario(tiny_llama, model=sizes, training=training)
    run(shop_run / "dataset", tmp_path, scenario)
    bundle = load_model(tmp_path / "model")
    assert bundle.model.encoder.pooling == "last"
    weights = load_file(tmp_path / "model" / "model.safetensors")
    base = load_file(tiny_llama / "model.safetensors")
    kept = 0
    for name, value in weights.items():
        if not name.startswith("encoder.backbone."):
            continue
        if "lora_B" in name:
            assert value.abs().sum() > 0, name  # starts at zero, so it learned
        elif "lora_" not in name:
            plain = name.split("base_model.model.")[1].replace(".base_layer", "")
            assert value.equal(base[plain]), name
            kept += 1
    assert kept == len(base)
    predictor = Predictor.load(tmp_path / "model")
    assert len(predictor.recommend(history=predictor.item_ids[:2], num_items=5)) == 5


def test_an_image_of_other_code_than_the_run_trains_nothing(
    shop: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "REVISION").write_text("0123abcd\n")
    monkeypatch.setattr(lineage, "_PACKAGE", tmp_path)
    outputs = fine_tune.Outputs(model=tmp_path / "model", losses=tmp_path / "losses.jsonl")

    def train(revision: str) -> None:
        fine_tune.run(fine_tune.Inputs(dataset=tmp_path / "none", code_revision=revision), outputs, shop)

    with pytest.raises(ConfigError, match="that trains was built from 0123abcd, the run's other steps from 4567ef"):
        train("4567ef")
    with pytest.raises(DataError):  # goes on, to the dataset that is not there
        train("0123abcd")


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"encoder": {"name": "no/such-model"}}, ModelError, "encoder 'no/such-model': cannot be loaded"),
        ({"encoder": {"name": "nowhere"}}, ModelError, "encoder 'nowhere': cannot be loaded"),
    ],
)
def test_an_unknown_encoder_is_refused_and_nothing_is_left(
    change: dict[str, Any], error: type[Exception], said: str, shop_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        run(shop_run / "dataset", tmp_path, shop_scenario("unused", model=change))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_dataset_is_named(shop: Scenario, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"users\.parquet: no such file"):
        run(tmp_path / "dataset", tmp_path, shop)
