"""An encoder that holds activations of a few texts at a time learns what it learns holding all of them."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtrec.balancing.features import Cut
from mtrec.config import Encoder
from mtrec.models import encoder as module
from mtrec.models.encoder import TextEncoder, load_encoder, transformer_layers
from mtrec.models.state_cache import StateCache

TEXTS = [
    *("walnut case", "a", "", "power for your phone", "unknownwordzz phone", "phone", "case for a phone"),
    *("sleek walnut veneer power case for your phone in seconds, sleek sleek sleek", "sleek power", "in seconds"),
]
Make = Callable[..., TextEncoder]


@pytest.fixture(scope="module")
def make(tiny_bert: Path, tiny_llama: Path) -> Make:
    def build(kind: str = "tiny_bert", train_layers: int = 2) -> TextEncoder:
        name = {"tiny_bert": tiny_bert, "tiny_llama": tiny_llama}[kind]
        return load_encoder(Encoder(name=str(name), max_length=24, train_layers=train_layers))

    return build


def learned(encoder: TextEncoder, texts_at_once: int) -> tuple[Tensor, list[Tensor]]:
    """Vectors and gradients of a step, with the graph cut above the vectors."""
    encoder.texts_at_once = texts_at_once
    torch.manual_seed(0)
    vectors = encoder(encoder.tokenize(TEXTS))
    cut = Cut.through([vectors])
    wishes = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    (cut.read[0] * wishes).sum().backward()
    cut.backward([cut.read[0].grad])
    grads = [p.grad for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    return vectors.detach(), grads


def check_close(one: tuple[Tensor, list[Tensor]], other: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-6)
    assert len(one[1]) == len(other[1]) > 0
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * float(b.abs().max()) + 1e-8)


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("groups", ["one group", "length groups"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_llama"])
def test_vectors_and_gradients_are_those_of_all_at_once(
    kind: str, kept: bool, groups: str, size: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.GROUP_TOKENS, "cpu", 10_000 if groups == "one group" else 4)
    encoder = make(kind, 1 if kept else 2).eval()
    wanted = learned(encoder, 0)
    if kept:
        encoder.reuse(StateCache(None, 2**24))
        encoder.encode_all(encoder.tokenize(TEXTS[:5]))  # the others run through all layers
    check_close(learned(encoder, size), wanted)


def test_dropout_is_the_same_where_the_groups_are(make: Make) -> None:
    encoder = make().train()
    wanted = learned(encoder, 0)
    found = learned(encoder, len(TEXTS))
    assert found[0].equal(wanted[0])
    assert all(a.equal(b) for a, b in zip(found[1], wanted[1], strict=True))
    assert not learned(encoder, 3)[0].equal(wanted[0]), "other pieces, other draws"


def test_dropout_of_the_second_forward_pass_is_that_of_the_first(make: Make) -> None:
    """Pieces drawn alike with and without recomputation have the same gradients."""
    encoder = make().train()
    tokens = encoder.tokenize(TEXTS)[:4]

    def gradients(encode: Callable[..., Tensor]) -> list[Tensor]:
        torch.manual_seed(0)
        torch.cat([encode([row]) for row in tokens]).square().cumsum(1).sum().backward()
        grads = [p.grad for p in encoder.parameters() if p.grad is not None]
        encoder.zero_grad()
        return grads

    found, wanted = gradients(module.recomputed(encoder._encode)), gradients(encoder._encode)
    assert all(a.equal(b) for a, b in zip(found, wanted, strict=True))


def saved_bytes(encoder: TextEncoder, texts_at_once: int) -> int:
    """What a forward pass keeps for the backward one, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    encoder.texts_at_once = texts_at_once
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        vectors = encoder(encoder.tokenize(TEXTS))
        assert vectors.requires_grad
    return sum(found.values())


def test_a_forward_pass_keeps_next_to_nothing(make: Make) -> None:
    encoder = make().train()
    all_at_once = saved_bytes(encoder, 0)
    assert all_at_once > 100_000
    assert saved_bytes(encoder, 2) < all_at_once / 20


@pytest.mark.parametrize("size", [0, 1, 3])
def test_at_no_time_more_texts_are_held(size: int, make: Make) -> None:
    """Counted by the states between the two matrices of the top layer, which its gradients need."""
    encoder = make().train()
    alive: list[tuple[weakref.ref[Tensor], int]] = []
    most = 0

    def look(layer: nn.Module, args: Any, output: Tensor) -> None:
        nonlocal most
        alive.append((weakref.ref(output), len(output)))
        most = max(most, sum(rows for held, rows in alive if held() is not None))

    top: Any = transformer_layers(encoder.backbone)[-1]
    top.intermediate.dense.register_forward_hook(look)
    learned(encoder, size)
    assert most == (size or len(TEXTS))


def test_nothing_is_computed_twice_without_gradient(make: Make) -> None:
    encoder = make().eval()
    runs = 0

    def count(layer: nn.Module, args: Any) -> None:
        nonlocal runs
        runs += 1

    lowest: Any = transformer_layers(encoder.backbone)[0]
    lowest.register_forward_pre_hook(count)
    encoder.texts_at_once = 1
    with torch.no_grad():
        encoder(encoder.tokenize(TEXTS))
    assert runs == 1
