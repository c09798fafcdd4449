"""Students: which layers they get."""

import copy
from pathlib import Path

import pytest
import torch

from mtrec.config import Encoder, Lora
from mtrec.errors import ModelError
from mtrec.models.encoder import TextEncoder, load_encoder, load_saved_encoder, save_encoder, transformer_layers
from mtrec.models.student import cut_encoder, evenly_spaced

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
