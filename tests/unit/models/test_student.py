"""Students: which layers they get, and what of the teacher's towers."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtrec.config import Encoder, Lora, Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import ModelError
from mtrec.models.encoder import TextEncoder, load_encoder, load_saved_encoder, save_encoder, transformer_layers
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, load_model, new_model
from mtrec.models.student import copy_towers, cut_encoder, evenly_spaced

TEXTS = ["green tea", "a blue mug with a handle", ""]


def vectors(encoder: TextEncoder) -> torch.Tensor:
    return encoder.eval().encode_all(encoder.tokenize(TEXTS))


def test_layers_at_even_distances() -> None:
    assert evenly_spaced(6, 2) == [0, 5]
    assert evenly_spaced(12, 4) == [0, 4, 7, 11]
    assert evenly_spaced(6, 6) == list(range(6))
    assert evenly_spaced(3, 1) == [0]


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_llama"])
def test_a_student_of_all_layers_gives_the_teachers_vectors(family: str, request: pytest.FixtureRequest) -> None:
    config = Encoder(name=str(request.getfixturevalue(family)), max_length=24, train_layers=1)
    teacher = load_encoder(config)
    before = copy.deepcopy(teacher.state_dict())
    whole = cut_encoder(teacher, 2, config)
    assert torch.equal(vectors(whole), vectors(teacher))
    half = cut_encoder(teacher, 1, config)
    first, own = (transformer_layers(e.backbone)[0].state_dict() for e in (teacher, half))
    assert all(value.equal(first[name]) for name, value in own.items())
    assert len(transformer_layers(half.backbone)) == 1
    assert not torch.allclose(vectors(half), vectors(teacher), atol=1e-3)
    with torch.no_grad():
        next(half.backbone.parameters()).zero_()
    assert all(value.equal(before[name]) for name, value in teacher.state_dict().items())


def test_the_last_of_three_layers_becomes_the_second(tiny_bert: Path) -> None:
    config = Encoder(name=str(tiny_bert), max_length=24)
    teacher = load_encoder(config)
    stack = transformer_layers(teacher.backbone)
    stack.append(copy.deepcopy(stack[0]))
    teacher.backbone.config.num_hidden_layers = 3  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in stack[2].parameters():
            parameter.fill_(0.25)
    student = transformer_layers(cut_encoder(teacher, 2, config).backbone)
    assert all(bool((p == 0.25).all()) for p in student[1].parameters())


def test_adapters_are_merged_and_the_student_gets_its_own(tiny_bert: Path) -> None:
    config = Encoder(name=str(tiny_bert), max_length=24, lora=Lora(rank=2))
    teacher = load_encoder(config)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    expected = vectors(teacher)
    plain = load_encoder(config.model_copy(update={"lora": None}))
    assert not torch.allclose(expected, vectors(plain), atol=1e-2)
    student = cut_encoder(teacher, 2, config)
    torch.testing.assert_close(vectors(student), expected, rtol=0, atol=1e-5)
    assert any("lora_" in name for name, _ in student.named_parameters())
    torch.testing.assert_close(vectors(teacher), expected)


def test_a_saved_student_is_loaded_with_its_own_layers(tiny_bert: Path, tmp_path: Path) -> None:
    config = Encoder(name=str(tiny_bert), max_length=24)
    student = cut_encoder(load_encoder(config), 1, config)
    save_encoder(student, tmp_path / "encoder")
    again = load_saved_encoder(tmp_path / "encoder", config)
    again.load_state_dict(student.state_dict())
    assert torch.equal(vectors(again), vectors(student))


def test_more_layers_than_the_teacher_has(tiny_bert: Path) -> None:
    config = Encoder(name=str(tiny_bert))
    with pytest.raises(ModelError, match=r"distillation.layers: 3 are asked for, the teacher's encoder has 2$"):
        cut_encoder(load_encoder(config), 3, config)


# ------------------------------------------------------------------------------------------------ towers


def outside(bundle: Bundle) -> dict[str, torch.Tensor]:
    return {n: p for n, p in bundle.model.named_parameters() if not n.startswith("encoder.backbone.")}


def test_towers_and_heads_are_the_teachers(shop_run: Path, shop_start: tuple[Bundle, View, Catalogue]) -> None:
    teacher = load_model(shop_run / "model")
    student = replace(shop_start[0], model=copy.deepcopy(shop_start[0].model))
    backbone = copy.deepcopy(student.model.encoder.backbone.state_dict())
    assert copy_towers(teacher, student)
    theirs = outside(teacher)
    assert all(value.equal(theirs[name]) for name, value in outside(student).items())
    assert all(value.equal(backbone[name]) for name, value in student.model.encoder.backbone.state_dict().items())


def test_rows_find_their_place_in_other_data(shop_run: Path, shop: Scenario) -> None:
    teacher = load_model(shop_run / "model")
    dataset, encoding = Dataset.read(shop_run / "dataset"), teacher.encoding
    kinds = encoding.labels["category"].values
    label = replace(encoding.labels["category"], values=["new", *kinds[::-1]], prior=[0.1] * (len(kinds) + 1))
    other = replace(
        encoding,
        items=replace(encoding.items, ids=["new", *encoding.items.ids[:0:-1]]),
        item_counts=[1, *encoding.item_counts[:0:-1]],
        labels={**encoding.labels, "category": label},
    )
    student = new_model(dataset, other, shop)[0]
    before = {name: value.detach().clone() for name, value in outside(student).items()}
    assert copy_towers(teacher, student)
    mine, theirs = outside(student), outside(teacher)
    for name in ("items.ids.weight", "rankers.next_item.bias.weight", "factors.item.weight"):
        assert mine[name][2].equal(theirs[name][-1]), name
        assert mine[name][-1].equal(theirs[name][2]), name
        assert mine[name][1].equal(before[name][1]), f"{name}: a new item keeps its start"
    head = "heads.category.linear.weight"
    assert mine[head][1:].equal(theirs[head].flip(0))
    assert mine[head][0].equal(before[head][0])
    looked_for = "encoder.labels.weights"  # of the price, of each category, of each tag
    assert theirs[looked_for].any(dim=1).all()
    assert mine[looked_for][0].equal(theirs[looked_for][0])
    assert not mine[looked_for][1].any()
    assert mine[looked_for][2 : 2 + len(kinds)].equal(theirs[looked_for][1 : 1 + len(kinds)].flip(0))
    assert mine[looked_for][2 + len(kinds) :].equal(theirs[looked_for][1 + len(kinds) :])
    assert mine["items.project.weight"].equal(theirs["items.project.weight"])


def test_label_vectors_find_their_place(shop_data: tuple[Dataset, Encoding], shop: Scenario) -> None:
    dataset, encoding = shop_data
    tags = shop.tasks["tags"].model_copy(update={"strategy": "label_embeddings"})
    scenario = shop.model_copy(update={"tasks": {**shop.tasks, "tags": tags}})
    teacher = new_model(dataset, encoding, scenario)[0]
    with torch.no_grad():
        for parameter in teacher.model.head("tags").parameters():
            parameter.normal_()
    label = encoding.labels["tags"]
    turned = replace(label, values=label.values[::-1], prior=label.prior[::-1])
    student = new_model(dataset, replace(encoding, labels={**encoding.labels, "tags": turned}), scenario)[0]
    assert copy_towers(teacher, student)
    mine, theirs = outside(student), outside(teacher)
    assert mine["heads.tags.linear.weight"].equal(theirs["heads.tags.linear.weight"])
    for part in ("vectors", "bias"):
        assert mine[f"heads.tags.linear.{part}"].equal(theirs[f"heads.tags.linear.{part}"].flip(0))


@pytest.mark.parametrize("change", ["width", "heads", "tasks", "features"])
def test_what_is_built_otherwise_starts_anew(
    change: str, shop_run: Path, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    model = shop.model.model_copy(update={"width": {"width": 8}, "heads": {"user_heads": 4}}.get(change, {}))
    changes = {
        "model": model,
        "tasks": {n: t for n, t in shop.tasks.items() if n != "region" or change != "tasks"},
        "users": shop.users.model_copy(update={"numeric": []}) if change == "features" else shop.users,
    }
    other = shop.model_copy(update=changes)
    dataset, encoding = shop_data
    if change == "features":
        encoding = replace(encoding, users=replace(encoding.users, numeric={}))
    encoding = replace(encoding, labels={n: v for n, v in encoding.labels.items() if n in other.tasks})
    student = new_model(dataset, encoding, other)[0]
    before = {name: value.detach().clone() for name, value in outside(student).items()}
    assert not copy_towers(load_model(shop_run / "model"), student)
    assert all(value.equal(before[name]) for name, value in outside(student).items())
