"""Compiled layers give what the plain ones give, and leave no trace in a saved model."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtrec.config import Encoder, Scenario, parse_scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.errors import ConfigError, ModelError
from mtrec.models.encoder import TextEncoder, load_encoder, transformer_layers
from mtrec.models.state_cache import StateCache
from mtrec.models.store import new_model

TEXTS = ["walnut case", "a", "", "power for your phone", "sleek walnut veneer power case for your phone in seconds"]


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    """What one test compiled is not there for the next."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def make(tiny_bert: Path) -> Callable[[], TextEncoder]:
    return lambda: load_encoder(Encoder(name=str(tiny_bert), max_length=24, train_layers=1)).eval()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are traced, and what was traced is run as it is: all of torch.compile but the making of fast code."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def learned(encoder: TextEncoder) -> tuple[Tensor, list[Tensor]]:
    vectors = encoder(encoder.tokenize(TEXTS))
    wishes = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    (vectors * wishes).sum().backward()
    grads = [p.grad for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    return vectors.detach(), grads


def check_close(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-5)
    assert len(one[1]) == len(other[1]) > 0
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def check_same_as_plain(make: Callable[[], TextEncoder]) -> TextEncoder:
    plain, encoder = make(), make()
    tokens = plain.tokenize(TEXTS)
    encoder.compile_layers()
    assert [layer._compiled_call_impl is not None for layer in transformer_layers(encoder.backbone)] == [
        False,
        True,
    ]
    torch.testing.assert_close(encoder.encode_all(tokens), plain.encode_all(tokens), rtol=0, atol=1e-5)
    check_close(learned(encoder), learned(plain))
    return encoder


def test_traced_layers_give_the_same_with_kept_states_and_in_pieces(
    make: Callable[[], TextEncoder], traced: None
) -> None:
    encoder = check_same_as_plain(make)
    wanted = learned(make())
    encoder.texts_at_once = 2
    check_close(learned(encoder), wanted)
    encoder.reuse(StateCache(None, 2**24))
    encoder.encode_all(encoder.tokenize(TEXTS[:3]))
    check_close(learned(encoder), wanted)
    assert encoder.reused() is not None
    assert transformer_layers(encoder.backbone)[-1]._compiled_call_impl is not None, "it is still there afterwards"


def test_a_saved_model_does_not_know(make: Callable[[], TextEncoder], traced: None) -> None:
    plain, encoder = make(), make()
    encoder.compile_layers()
    assert list(encoder.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(encoder)
    copied.load_state_dict({name: value + 0.01 for name, value in encoder.state_dict().items()})
    found = copied.encode_all(copied.tokenize(TEXTS))
    assert (found - encoder.encode_all(encoder.tokenize(TEXTS))).abs().max() > 1e-4, "a copy runs its own weights"


@pytest.mark.slow
def test_compiled_layers_give_what_the_plain_ones_give(make: Callable[[], TextEncoder]) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("there is no C++ compiler")
    check_same_as_plain(make)


def test_without_a_compiler_one_line_says_so_at_once(
    make: Callable[[], TextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    with pytest.raises(
        ModelError, match=r"training.compile: the encoder cannot be compiled \(.*No working C\+\+"
    ) as caught:
        make().compile_layers()
    assert str(caught.value).endswith("install a C++ compiler (g++ or clang), or set it to false")
    assert "\n" not in str(caught.value)


def test_only_a_model_that_is_to_be_trained_is_compiled(
    shop: Scenario, shop_data: tuple[Dataset, Encoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[TextEncoder] = []
    monkeypatch.setattr(TextEncoder, "compile_layers", lambda encoder: compiled.append(encoder))
    asked = shop.model_copy(update={"training": shop.training.model_copy(update={"compile": True})})
    new_model(*shop_data, shop)
    new_model(*shop_data, asked, to_train=False)
    assert compiled == []
    bundle, _, _ = new_model(*shop_data, asked)
    assert compiled == [bundle.model.encoder]


def test_shards_are_not_compiled(shop: Scenario) -> None:
    raw = shop.as_dict()
    raw["training"] |= {"compile": True, "parallel": "fsdp"}
    with pytest.raises(
        ConfigError, match="training: compile does not go with parallel: fsdp; set compile to false"
    ):
        parse_scenario(raw)
