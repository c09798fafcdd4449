"""Towers and heads of another model, row by row."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.models.copying import copy_towers
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, load_model, new_model


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
