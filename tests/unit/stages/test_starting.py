"""Students and pretrained encoders through the stages: made, resumed, registered, and refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import ConfigError, ModelError
from mtrec.models.encoder import transformer_layers
from mtrec.models.store import load_model
from mtrec.progress import listening
from mtrec.serving.predictor import Predictor
from mtrec.stages import evaluate, fine_tune, register
from mtrec.stages.starting import find_teacher, start_for
from mtrec.training.distributed import Processes
from tests.unit.conftest import EVALUATION


def asking(scenario: Scenario, section: str, **settings: Any) -> Scenario:
    return scenario.model_copy(update={section: getattr(scenario, section).model_copy(update=settings)})


@pytest.fixture(scope="module")
def student_scenario(shop: Scenario, shop_run: Path) -> Scenario:
    return asking(shop, "distillation", layers=1, teacher=str(shop_run / "model"), epochs=2, lr=3e-3)


def run(dataset: Path, folder: Path, scenario: Scenario, **inputs: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    with listening(lambda progress: said.append(progress.message)):
        summary = fine_tune.run(
            fine_tune.Inputs(dataset=dataset, **inputs),
            fine_tune.Outputs(model=folder / "model", losses=folder / "losses.jsonl"),
            scenario,
        )
    return summary, said


@pytest.fixture(scope="module")
def student_run(
    tmp_path_factory: pytest.TempPathFactory, shop_run: Path, student_scenario: Scenario
) -> tuple[Path, dict[str, Any], list[str]]:
    folder = tmp_path_factory.mktemp("student")
    summary, said = run(shop_run / "dataset", folder, student_scenario, checkpoints=folder / "checkpoints")
    return folder, summary, said


def kinds(folder: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in (folder / "losses.jsonl").read_text().splitlines()]


def test_a_student_has_fewer_layers_and_is_a_model_like_any(
    student_run: tuple[Path, dict[str, Any], list[str]], student_scenario: Scenario, shop_run: Path
) -> None:
    folder, summary, said = student_run
    bundle = load_model(folder / "model")
    assert bundle.scenario == student_scenario
    assert len(transformer_layers(bundle.model.encoder.backbone)) == 1
    assert len(Predictor.load(folder / "model").recommend(history=[], num_items=3)) == 3
    assert kinds(folder)[:4] == ["match", "match", "match", "tasks"]
    assert any(message.startswith("matching the teacher's text vectors, ") for message in said)
    told = summary["distillation"]
    assert told["teacher"] == str(shop_run / "model")
    assert told["layers"] == {"teacher": 2, "student": 1}
    assert told["parameters"]["student"] < told["parameters"]["teacher"]
    assert set(told["skills"]) == set(student_scenario.tasks)
    assert min(told["texts_per_second"].values()) > 0
    assert told["text_distance"][1] == json.loads((folder / "losses.jsonl").read_text().splitlines()[2])["loss"]


def test_a_student_is_evaluated_with_what_is_known_of_its_teacher(
    student_run: tuple[Path, dict[str, Any], list[str]],
    student_scenario: Scenario,
    shop_run: Path,
    tmp_path: Path,
) -> None:
    folder, summary, _ = student_run
    evaluate.run(
        evaluate.Inputs(dataset=shop_run / "dataset", model=folder / "model", champion=False),
        evaluate.Outputs(evaluation=tmp_path / "evaluation.json", predictions=tmp_path / "predictions"),
        student_scenario,
    )
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["model"]["distillation"] == summary["distillation"]
    assert evaluation["model"]["parts"]["encoder"] == summary["distillation"]["parameters"]["student"]


def test_a_student_that_no_epoch_improves_is_kept_as_it_began(
    shop_run: Path, student_scenario: Scenario, tmp_path: Path
) -> None:
    worse = student_scenario.model_copy(
        update={"training": student_scenario.training.model_copy(update={"lr": 3.0, "lr_ids": 3.0, "epochs": 1})}
    )
    summary, _ = run(shop_run / "dataset", tmp_path, worse)
    assert summary["best_epoch"] == 0
    assert summary["epochs"] == 1
    mine, theirs = load_model(tmp_path / "model").model, load_model(shop_run / "model").model
    assert mine.head("rating").linear.weight.equal(theirs.head("rating").linear.weight)


def test_a_resumed_student_matches_nothing_again(
    student_run: tuple[Path, dict[str, Any], list[str]], student_scenario: Scenario, shop_run: Path, tmp_path: Path
) -> None:
    folder, _, _ = student_run
    _, said = run(shop_run / "dataset", tmp_path, student_scenario, checkpoints=folder / "checkpoints")
    assert not any("matching" in message for message in said)
    for name in ("losses.jsonl", "model/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    inputs = fine_tune.Inputs(dataset=shop_run / "dataset", code_revision="1")
    teacher = find_teacher(student_scenario)
    assert fine_tune._key(inputs, student_scenario, teacher) != fine_tune._key(inputs, student_scenario)


def test_a_pretrained_encoder_is_fine_tuned_and_a_resumed_run_does_without(
    shop_run: Path, shop: Scenario, tmp_path: Path
) -> None:
    scenario = asking(shop, "pretraining", epochs=1, lr=1e-3)
    summary, said = run(shop_run / "dataset", tmp_path / "a", scenario, checkpoints=tmp_path / "checkpoints")
    assert any(message.startswith("pretraining on the item texts, ") for message in said)
    assert kinds(tmp_path / "a")[:3] == ["pretrain", "pretrain", "tasks"]
    assert summary["distillation"] is None
    words = "encoder.backbone.embeddings.word_embeddings.weight"
    mine, plain = (load_model(f / "model").model.state_dict()[words] for f in (tmp_path / "a", shop_run))
    assert not mine.equal(plain)
    _, said = run(shop_run / "dataset", tmp_path / "b", scenario, checkpoints=tmp_path / "checkpoints")
    assert not any("pretraining" in message for message in said)
    for name in ("losses.jsonl", "model/model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_neither_is_there_unless_asked_for(shop: Scenario, shop_run: Path) -> None:
    assert find_teacher(shop) is None
    assert set(kinds(shop_run)) == {"train", "valid", "tasks"}


# ------------------------------------------------------------------------------------------------ champions


def test_the_champion_teaches(
    uri: str, shop: Scenario, shop_run: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    scenario = asking(shop, "distillation", layers=1, epochs=0)
    none = "scenario tiny-shop has no champion yet. Train one first with distillation.layers=0"
    with pytest.raises(ModelError, match=none):
        find_teacher(scenario, uri)
    keys = ("data_version", "code_revision", "parameters_hash", "image", "pipeline_run")
    files = judged(evaluation=EVALUATION)
    done = tracking.register(
        shop_run / "model", scenario=shop, lineage=dict.fromkeys(keys, "x"), tracking_uri=uri, **files
    )
    assert done.champion
    summary, _ = run(shop_run / "dataset", tmp_path / "student", scenario, tracking_uri=uri)
    assert summary["distillation"]["teacher"] == "tiny-shop version 1"
    student = register.run(
        register.Inputs(
            model=tmp_path / "student" / "model",
            tracking_uri=uri,
            pipeline_run="tuesday",
            lineage=dict.fromkeys(keys, "x"),
            **files,
        ),
        register.Outputs(registration=tmp_path / "registration.json"),
        scenario,
    )
    assert (student["version"], student["champion"]) == ("2", False)
    tags = tracking.show_model(f"{student['name']}/2").tags
    assert tags["teacher"] == summary["distillation"]["digest"]


def test_a_teacher_with_another_encoder_and_a_folder_that_is_none(
    shop: Scenario, shop_run: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    scenario = asking(shop, "distillation", layers=1, teacher=str(shop_run / "model"))
    encoder = shop.model.encoder.model_copy(update={"name": str(tiny_llama)})
    other = scenario.model_copy(update={"model": shop.model.model_copy(update={"encoder": encoder})})
    with pytest.raises(ModelError, match=r"from which the student's is cut, but the scenario names '.*llama'"):
        find_teacher(other)
    with pytest.raises(ModelError, match=r"not a model folder, scenario\.json is missing"):
        find_teacher(asking(shop, "distillation", layers=1, teacher=str(tmp_path)))


def test_a_student_starts_with_what_its_teachers_labels_find_in_texts(
    student_scenario: Scenario, shop_data: Any
) -> None:
    start = start_for(*shop_data, student_scenario, teacher=find_teacher(student_scenario))
    encoder = start.bundle.model.encoder
    assert start.catalogue.text_NE[:, encoder.width :].any()
    torch.testing.assert_close(start.catalogue.text_NE, encoder.encode_all(start.catalogue.tokens))


def test_several_processes_train_no_student(shop: Scenario, shop_data: Any) -> None:
    with pytest.raises(ConfigError, match="a student is trained in one process"):
        start_for(*shop_data, asking(shop, "distillation", layers=1), processes=Processes(0, 2))


def test_a_search_has_no_teacher(shop: Scenario, shop_data: Any) -> None:
    with pytest.raises(ConfigError, match="a search trains without a teacher; set it to 0"):
        start_for(*shop_data, asking(shop, "distillation", layers=1))
