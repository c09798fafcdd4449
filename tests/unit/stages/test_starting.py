"""Students, pretrained encoders and warm starts through the stages: made, resumed, registered, and refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import polars as pl
import pytest
import torch

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.errors import ConfigError, ModelError
from mtrec.models.encoder import transformer_layers
from mtrec.models.store import load_model
from mtrec.progress import listening
from mtrec.serving.predictor import Predictor
from mtrec.stages import evaluate, fine_tune, gate, preprocess, register
from mtrec.stages.parents import Parent, find_teacher
from mtrec.stages.starting import start_for
from mtrec.tracking.connection import connected
from mtrec.training.distributed import Processes
from tests.unit.conftest import EVALUATION
from tests.unit.tiny_shop import DIALS, shop_tables


def asking(scenario: Scenario, section: str, **settings: Any) -> Scenario:
    return scenario.model_copy(update={section: getattr(scenario, section).model_copy(update=settings)})


def registered(model: Path, scenario: Scenario, uri: str, judged: Callable[..., dict[str, Path]]) -> str:
    """Register the first champion; its name with its version."""
    lineage = dict.fromkeys(("data_version", "code_revision", "parameters_hash", "image", "pipeline_run"), "x")
    files = judged(evaluation=EVALUATION)
    done = tracking.register(model, scenario=scenario, lineage=lineage, tracking_uri=uri, **files)
    assert done.champion
    return f"{scenario.name}/{done.champion_version}"


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
    registered(shop_run / "model", shop, uri, judged)
    files = judged(evaluation=EVALUATION)
    summary, _ = run(shop_run / "dataset", tmp_path / "student", scenario, tracking_uri=uri)
    assert summary["distillation"]["teacher"] == "tiny-shop/1"
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


# ------------------------------------------------------------------------------------------------ warm starts


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, shop: Scenario) -> Path:
    """A model of the first 60 % of the shop's events and 40 of its items; texts/ keeps what frozen layers gave."""
    folder = tmp_path_factory.mktemp("earlier")
    tables = shop_tables(DIALS)[0]
    until = tables.interactions["timestamp"].quantile(0.6)
    items = tables.items[10:]
    known = pl.col("item_id").is_in(items["item_id"].to_list())
    rows = tables.interactions.filter((pl.col("timestamp") < until) & known)
    replace(tables, interactions=rows, items=items).write(folder / "tables")
    preprocess.run(
        preprocess.Inputs(tables=folder / "tables"), preprocess.Outputs(dataset=folder / "dataset"), shop
    )
    run(folder / "dataset", folder, shop, text_cache=folder / "texts")
    return folder


def parent(folder: Path) -> Parent:
    return Parent(name="tiny-shop/1", bundle=load_model(folder / "model"), digest="1")


def test_rows_go_over_by_id_and_unseen_ones_start_as_in_a_new_model(
    earlier: Path, shop: Scenario, shop_data: Any, shop_start: Any
) -> None:
    champion = parent(earlier)
    start = start_for(*shop_data, shop, champion=champion)
    assert start.started_from == {"champion": "tiny-shop/1", "digest": "1"}
    mine, theirs, new = (
        dict(bundle.model.named_parameters()) for bundle in (start.bundle, champion.bundle, shop_start[0])
    )
    rows, old = (["", *bundle.encoding.items.ids] for bundle in (start.bundle, champion.bundle))
    unseen = [row for row, item in enumerate(rows) if item not in old]
    assert unseen
    assert rows[: len(old)] != old, "rows have moved"
    for table in ("items.ids.weight", "factors.item.weight", "rankers.next_item.bias.weight"):
        for row, item in enumerate(rows):
            expected = new[table][row] if row in unseen else theirs[table][old.index(item)]
            assert mine[table][row].equal(expected), f"{table}: {item}"
    assert not mine["items.ids.weight"][1:].equal(new["items.ids.weight"][1:])
    for name in ("items.project.weight", "heads.rating.linear.weight"):
        assert mine[name].equal(theirs[name])
        assert not mine[name].equal(new[name])
    learned = [name for name in mine if name.startswith("encoder.") and not mine[name].equal(new[name])]
    assert learned
    assert all(mine[name].equal(theirs[name]) for name in mine if name.startswith("encoder.backbone."))


def test_a_warm_start_begins_where_its_champion_is(shop_run: Path, shop: Scenario, shop_data: Any) -> None:
    dataset, encoding = shop_data
    champion = parent(shop_run)
    view = champion.bundle.view(dataset)
    texts = champion.bundle.model.catalogue(dataset.items["text"].to_list(), view.items)
    expected = fine_tune.validation(shop, encoding)(champion.bundle.model, view, texts)
    start = start_for(dataset, encoding, shop, champion=champion)
    _, trainer = fine_tune.trainer_for(dataset, encoding, shop, start=start)
    assert trainer.progress.best_skills == pytest.approx(expected, abs=1e-4)
    end = trainer.fit()
    assert end.epoch == 2
    assert mean(end.best_skills.values()) >= mean(expected.values()) - 0.01, "the start is kept where it is best"


@pytest.mark.parametrize("learned", [False, True])
def test_kept_states_of_frozen_layers_are_those_of_the_champion(
    earlier: Path, shop: Scenario, shop_data: Any, tmp_path: Path, learned: bool
) -> None:
    champion = parent(earlier)
    encoder = champion.bundle.model.encoder
    if learned:  # what is frozen now
        with torch.no_grad():
            for parameter in transformer_layers(encoder.backbone)[0].parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    start_for(*shop_data, shop, text_cache=tmp_path)
    start = start_for(*shop_data, shop, champion=champion, text_cache=tmp_path)
    expected = encoder.encode_all(encoder.tokenize(shop_data[0].items["text"].to_list()))
    texts = [text_NE[:, : encoder.width] for text_NE in (start.catalogue.text_NE, expected)]
    torch.testing.assert_close(*texts, rtol=0, atol=1e-5)  # not every label is known to both
    reused = start.bundle.model.encoder.reused()
    assert reused is not None
    assert (reused["from_earlier_runs"] > 0) != learned


def test_a_champion_is_started_from_and_named_wherever_people_look(
    uri: str, earlier: Path, shop: Scenario, shop_run: Path, judged: Callable[..., dict[str, Path]], tmp_path: Path
) -> None:
    name = registered(earlier / "model", shop, uri, judged)
    scenario = asking(shop, "training", start="champion", epochs=1)
    summary, said = run(
        shop_run / "dataset",
        tmp_path,
        scenario,
        tracking_uri=uri,
        pipeline_run="tuesday",
        text_cache=earlier / "texts",
    )
    assert "fetching the champion" in said
    assert summary["started_from"]["champion"] == name
    assert summary["text_cache"]["from_earlier_runs"] > 0
    evaluate.run(
        evaluate.Inputs(dataset=shop_run / "dataset", model=tmp_path / "model", champion=False),
        evaluate.Outputs(evaluation=tmp_path / "evaluation.json", predictions=tmp_path / "predictions"),
        scenario,
    )
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    files = judged(evaluation=evaluation)
    gate.run(
        gate.Inputs(evaluation=files["evaluation"], losses=tmp_path / "losses.jsonl", lineage={}),
        gate.Outputs(gate=tmp_path / "gate.json", report=tmp_path / "report.html"),
        scenario,
    )
    assert name in (tmp_path / "report.html").read_text()
    lineage = dict.fromkeys(("data_version", "code_revision", "parameters_hash", "image"), "x")
    done = register.run(
        register.Inputs(
            model=tmp_path / "model", tracking_uri=uri, pipeline_run="tuesday", lineage=lineage, **files
        ),
        register.Outputs(registration=tmp_path / "registration.json"),
        scenario,
    )
    version = tracking.show_model(f"{done['name']}/{done['version']}", uri)
    assert version.version == "2", "another start is another version"
    assert version.tags["started_from"] == name
    assert version.tags["started_from_sha256"] == summary["started_from"]["digest"]
    assert f"- Started from the weights of {name}\n" in version.card
    with connected(uri) as client:
        assert client.get_run(version.run_id).data.tags["mtrec.started_from"] == name


def test_a_first_run_starts_as_pretrained(uri: str, shop: Scenario, shop_run: Path, tmp_path: Path) -> None:
    scenario = asking(shop, "training", start="champion")
    summary, said = run(shop_run / "dataset", tmp_path, scenario, tracking_uri=uri)
    assert "no champion yet: starting from the pretrained encoder" in said
    assert summary["started_from"] is None
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (tmp_path, shop_run)]
    assert weights[0] == weights[1]


def test_a_champion_that_is_built_otherwise_is_no_start(shop_run: Path, shop: Scenario, shop_data: Any) -> None:
    said = "tiny-shop/1 has other tasks, features or sizes than the scenario; set them alike, or set training.start"
    with pytest.raises(ModelError, match=said):
        start_for(*shop_data, asking(shop, "model", width=8), champion=parent(shop_run))
