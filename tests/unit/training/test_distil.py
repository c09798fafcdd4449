"""Distillation: text vectors are matched, and the guide adds what the teacher says."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtrec.config import Distillation, Scenario
from mtrec.data.dataset import Dataset
from mtrec.models.encoder import transformer_layers
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, load_model
from mtrec.models.student import cut_encoder
from mtrec.training.distil import Guide, match_vectors
from mtrec.training.loop import Trainer
from mtrec.training.step import losses_of, represent

SETTINGS = Distillation(layers=1, epochs=4, lr=3e-3)
Start = tuple[Bundle, View, Catalogue]


@pytest.fixture(scope="module")
def teacher(shop_run: Path) -> Bundle:
    bundle = load_model(shop_run / "model")
    bundle.model.requires_grad_(False)
    return bundle


@pytest.fixture(scope="module")
def dataset(shop_run: Path) -> Dataset:
    return Dataset.read(shop_run / "dataset")


def test_matching_brings_vectors_near_and_leaves_the_rest(
    teacher: Bundle, shop: Scenario, dataset: Dataset
) -> None:
    master = copy.deepcopy(teacher.model.encoder)
    with torch.no_grad():  # layers of random weights would do next to nothing
        for layer in transformer_layers(master.backbone):
            for weights in layer.parameters():
                weights.mul_(10 if weights.dim() > 1 else 1)
    student = cut_encoder(master, 1, shop.model.encoder.model_copy(update={"train_layers": 0}))
    tokens = student.tokenize(dataset.items["text"].to_list())
    target = master.encode_all(tokens)[:, : master.width]
    words = next(student.backbone.parameters()).detach().clone()
    seen: list[float] = []
    lines = match_vectors(student, tokens, target, SETTINGS, watch=seen.append)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert {line["kind"] for line in lines} == {"match"}
    assert lines[-1]["step"] == len(seen) == 4 * -(-len(tokens) // 32)
    assert seen[-1] == 1
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    apart = 1 - float((student.encode_all(tokens) * target).sum(1).mean())
    assert apart <= lines[-1]["loss"] * 1.05
    assert next(student.backbone.parameters()).equal(words)
    assert not student.learns
    assert all(p.grad is None for p in student.parameters())


def test_no_passes_measure_and_learn_nothing(teacher: Bundle, shop: Scenario, dataset: Dataset) -> None:
    student = cut_encoder(teacher.model.encoder, 1, shop.model.encoder)
    before = copy.deepcopy(student.state_dict())
    tokens = student.tokenize(dataset.items["text"].to_list()[:5])
    target = teacher.model.encoder.encode_all(tokens)[:, : student.width]
    (line,) = match_vectors(student, tokens, target, SETTINGS.model_copy(update={"epochs": 0}))
    assert line["loss"] > 0
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())


def guided(
    teacher: Bundle, student: Bundle, dataset: Dataset, *, same_space: bool = True, **settings: float
) -> tuple[Guide, Trainer, np.ndarray]:
    view = student.view(dataset)
    catalogue = student.model.catalogue(dataset.items["text"].to_list(), view.items)
    trainer = Trainer(student, view, catalogue, validate=lambda *_: {})
    text_NE = teacher.model.encoder.encode_all(catalogue.tokens)
    settings_ = SETTINGS.model_copy(update=settings)
    guide = Guide(teacher, dataset, text_NE, student, settings_, same_space=same_space)
    return guide, trainer, next(iter(trainer.batches.epoch(0)))


def added(guide: Guide, trainer: Trainer, rows_BT: np.ndarray) -> dict[str, float]:
    """What the guide adds to each task, with neither dropout nor hidden ids."""
    torch.manual_seed(0)
    data = replace(trainer.data, id_dropout=0.0)
    trainer.model.eval()
    shared = represent(trainer.model, data, rows_BT)
    losses = losses_of(trainer.model, data, shared)
    with_guide = guide.add_to(losses, trainer.model, data, shared, rows_BT)
    return {name: float(with_guide[name] - losses[name]) for name in losses}


def test_a_student_that_is_its_teacher_has_nothing_to_learn(teacher: Bundle, dataset: Dataset) -> None:
    student = replace(teacher, model=copy.deepcopy(teacher.model).requires_grad_(True))
    found = added(*guided(teacher, student, dataset))
    assert list(found) == list(student.scenario.tasks)
    assert all(abs(value) < 1e-4 for value in found.values()), found


def test_every_task_of_another_model_learns_from_the_teacher(
    teacher: Bundle, shop_start: Start, dataset: Dataset
) -> None:
    student = replace(shop_start[0], model=copy.deepcopy(shop_start[0].model))
    found = added(*guided(teacher, student, dataset, same_space=False))
    assert all(value > 1e-6 for value in found.values()), found
    none = added(*guided(teacher, student, dataset, logit_weight=0.0, representation_weight=0.0))
    assert set(none.values()) == {0.0}
    texts = added(*guided(teacher, student, dataset, logit_weight=0.0))
    assert len({round(value, 5) for value in texts.values()}) == 1
    assert min(texts.values()) > 1e-4
    twice = added(*guided(teacher, student, dataset, same_space=False, logit_weight=2.0))
    assert twice["category"] == pytest.approx(2 * found["category"], rel=1e-3)


def test_the_teachers_weights_get_no_gradient_and_the_students_do(
    teacher: Bundle, shop_start: Start, dataset: Dataset
) -> None:
    student = replace(shop_start[0], model=copy.deepcopy(shop_start[0].model))
    guide, trainer, rows_BT = guided(teacher, student, dataset)
    trainer.guide = guide.add_to
    before = copy.deepcopy(teacher.model.state_dict())
    trainer.train_step(rows_BT)
    assert all(p.grad is None for p in teacher.model.parameters())
    assert all(value.equal(before[name]) for name, value in teacher.model.state_dict().items())
    learned = [p for p in student.model.encoder.backbone.parameters() if p.requires_grad]
    assert all(p.grad is not None and bool(p.grad.any()) for p in learned)


def test_gradient_methods_see_the_teachers_part(teacher: Bundle, shop_start: Start, dataset: Dataset) -> None:
    bundle = shop_start[0]
    training = bundle.scenario.training.model_copy(update={"balancing": "pcgrad"})
    student = replace(
        bundle,
        model=copy.deepcopy(bundle.model),
        scenario=bundle.scenario.model_copy(update={"training": training}),
    )
    guide, trainer, rows_BT = guided(teacher, student, dataset)
    trainer.guide = guide.add_to
    trainer.train_step(rows_BT)
    assert trainer.progress.step == 1


def test_only_what_both_know_is_compared(teacher: Bundle, shop_start: Start, dataset: Dataset) -> None:
    encoding = teacher.encoding
    kinds = encoding.labels["category"].values
    labels = {
        **encoding.labels,
        "category": replace(
            encoding.labels["category"], values=["new", *kinds[::-1]], prior=[0.1] * (1 + len(kinds))
        ),
        "tags": replace(encoding.labels["tags"], values=["a", "b"], prior=[0.5, 0.5]),
        "rating": replace(encoding.labels["rating"], prior=[0.0], scale=2 * encoding.labels["rating"].scale),
    }
    from mtrec.models.store import new_model

    tasks = dict(shop_start[0].scenario.tasks)
    tasks["like"] = tasks["like"].model_copy(update={"threshold": 2.0})
    scenario = shop_start[0].scenario.model_copy(update={"tasks": tasks})
    student = new_model(dataset, replace(encoding, labels=labels), scenario)[0]
    guide, trainer, rows_BT = guided(teacher, student, dataset, same_space=False)
    found = added(guide, trainer, rows_BT)
    assert found["like"] == 0, "another question"
    assert found["tags"] == 0, "no common label"
    assert found["category"] > 0
    columns = guide.shared["category"]
    assert columns is not None
    names = student.encoding.labels["category"].values
    assert [kinds[i] for i in columns[0]] == [names[i] for i in columns[1]]
    scale, shift = guide.units["rating"]
    head = teacher.model.head("rating")
    assert scale * 1.5 + shift == pytest.approx((1.5 * head.scale + head.mean) / student.model.head("rating").scale)
