"""An encoder that runs its frozen layers once per text gives what it gave before, with the same gradients."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mtrec.config import Encoder
from mtrec.models import encoder as module
from mtrec.models import frozen_part
from mtrec.models.encoder import TextEncoder, load_encoder, transformer_layers
from mtrec.models.state_cache import StateCache
from tests.unit.models.test_split import ARCHITECTURES

TEXTS = [
    "walnut case",
    "sleek walnut veneer power case for your phone in seconds, sleek sleek sleek",
    "a",
    "",
    "unknownwordzz phone",
    "walnut case",
    "power for your phone",
]
KINDS = ["tiny_bert", "tiny_llama", "minilm", "distilbert", "roberta", "mpnet"]


@pytest.fixture(scope="module")
def make(tiny_bert: Path, tiny_llama: Path) -> Callable[..., TextEncoder]:
    """An encoder of some kind in eval mode; settings as in a scenario."""

    def build(kind: str = "tiny_bert", **settings: Any) -> TextEncoder:
        config = {"max_length": 24, "train_layers": 1, **settings}
        if kind in ARCHITECTURES:
            tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
            sizes = ARCHITECTURES[kind] | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            torch.manual_seed(0)
            backbone = AutoModel.from_config(AutoConfig.for_model(kind, **sizes))
            return TextEncoder(backbone, tokenizer, Encoder.model_validate(config)).eval()
        name = {"tiny_bert": str(tiny_bert), "tiny_llama": str(tiny_llama)}.get(kind, kind)
        return load_encoder(Encoder.model_validate({"name": name, **config})).eval()

    return build


def gradients(encoder: TextEncoder, tokens: list[list[int]]) -> list[Tensor]:
    torch.manual_seed(0)
    vectors = encoder(tokens)
    loss = (vectors * torch.randn(vectors.shape)).sum()
    return list(torch.autograd.grad(loss, [p for p in encoder.parameters() if p.requires_grad]))


def close(a: list[Tensor], b: list[Tensor]) -> None:
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()) + 1e-7)


def count_rows(encoder: TextEncoder) -> dict[str, int]:
    """Texts that the lowest and the highest layer of a BERT have run on from now on."""
    rows = {"lowest": 0, "highest": 0}
    layers: Any = transformer_layers(encoder.backbone)
    for name, layer in (("lowest", layers[0]), ("highest", layers[-1])):

        def look(module: nn.Module, args: Any, output: Tensor, name: str = name) -> None:
            rows[name] += len(output)

        layer.intermediate.register_forward_hook(look)
    return rows


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_gradients_are_those_of_all_layers(
    kind: str, kept: str, make: Callable[..., TextEncoder], tmp_path: Path
) -> None:
    encoder = make(kind)
    tokens = encoder.tokenize(TEXTS)
    with torch.no_grad():
        plain, all_plain = encoder(tokens), encoder.encode_all(tokens)
    wanted = gradients(encoder, tokens)
    encoder.reuse(StateCache(tmp_path if kept == "on disk" else None, 2**24))
    for _ in range(2):  # the first time some texts are new, the second time none is
        encoder.encode_all(tokens[:3])
        torch.testing.assert_close(encoder(tokens).detach(), plain, rtol=0, atol=1e-5)
        close(gradients(encoder, tokens), wanted)
        torch.testing.assert_close(encoder.encode_all(tokens), all_plain, rtol=0, atol=1e-5)
    said = encoder.reused()
    assert said is not None
    assert said["layers"] == len(transformer_layers(encoder.backbone)) - 1
    assert said["texts"] == len({tuple(row) for row in tokens})
    assert bool(list(tmp_path.rglob("*.safetensors"))) == (kept == "on disk")


def test_dropout_draws_are_the_same_as_without(make: Callable[..., TextEncoder]) -> None:
    encoder = make().train()
    tokens = encoder.tokenize(TEXTS)
    wanted = gradients(encoder, tokens)
    encoder.reuse(StateCache(None, 2**24))
    encoder.encode_all(tokens)
    assert encoder.training
    close(gradients(encoder, tokens), wanted)


def test_frozen_layers_run_once_per_text(make: Callable[..., TextEncoder], tmp_path: Path) -> None:
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    encoder.reuse(StateCache(tmp_path, 2**24))
    encoder.encode_all(tokens[:3])
    rows = count_rows(encoder)
    encoder.encode_all(tokens)
    assert rows == {"lowest": 3, "highest": 6}, "two of the seven are equal, three were known"
    encoder(tokens)
    encoder.encode_all(tokens)
    assert rows == {"lowest": 3, "highest": 18}
    # Another run with the same frozen layers; what is above them may be anything.
    other = make()
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 100)
    other.reuse(StateCache(tmp_path, 2**24))
    rows = count_rows(other)
    found = other.encode_all(tokens)
    trial = 3 * 2  # three texts, as a whole and in parts
    assert rows == {"lowest": trial, "highest": trial + 6}
    other.reuse(None)
    torch.testing.assert_close(found, other.encode_all(tokens), rtol=0, atol=1e-5)


def test_without_room_the_layers_run_each_time(make: Callable[..., TextEncoder]) -> None:
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    plain, wanted = encoder.encode_all(tokens), gradients(encoder, tokens)
    encoder.reuse(StateCache(None, 10 * 32 * 4))
    encoder.encode_all(tokens)
    rows = count_rows(encoder)
    torch.testing.assert_close(encoder.encode_all(tokens), plain, rtol=0, atol=1e-5)
    close(gradients(encoder, tokens), wanted)
    said = encoder.reused()
    assert said is not None
    assert 0 < said["texts"] < 6
    assert said["without_room"] == 6 - said["texts"]
    assert rows["lowest"] == 2 * said["without_room"]


def test_a_change_of_weights_is_noticed(make: Callable[..., TextEncoder]) -> None:
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    encoder.reuse(StateCache(None, 2**24))
    first = encoder.encode_all(tokens)
    state = copy.deepcopy(encoder.state_dict())
    rows = count_rows(encoder)
    encoder.load_state_dict(state)  # the same weights: nothing to compute anew but the trial
    assert encoder.encode_all(tokens).equal(first)
    assert rows["lowest"] == 6
    lowest: Any = transformer_layers(encoder.backbone)[0]
    with torch.no_grad():
        lowest.output.dense.weight.mul_(1.5)
    second = encoder.encode_all(tokens)
    assert (second - first).abs().max() > 1e-3
    encoder.reuse(None)
    torch.testing.assert_close(second, encoder.encode_all(tokens), rtol=0, atol=1e-5)


def test_layers_that_begin_to_learn_are_noticed(make: Callable[..., TextEncoder]) -> None:
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    encoder.reuse(StateCache(None, 2**24))
    encoder.encode_all(tokens)
    transformer_layers(encoder.backbone).requires_grad_(True)
    assert all(g.abs().sum() > 0 for g in gradients(encoder, tokens) if g.dim() > 1)
    assert encoder.reused() is None


def test_a_copy_learns_on_its_own(make: Callable[..., TextEncoder]) -> None:
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    encoder.reuse(StateCache(None, 2**24))
    before = encoder.encode_all(tokens)
    copied = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    changed = copied.encode_all(tokens)
    assert (changed - before).abs().max() > 1e-3
    assert encoder.encode_all(tokens).equal(before)
    copied.reuse(None)
    torch.testing.assert_close(changed, copied.encode_all(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"train_layers": 0}, {"train_layers": 2}, {"lora": {"rank": 2, "alpha": 4}}], ids=str
)
def test_where_nothing_is_frozen_below_nothing_is_kept(
    settings: dict[str, Any], make: Callable[..., TextEncoder], tmp_path: Path
) -> None:
    encoder = make(**settings)
    tokens = encoder.tokenize(TEXTS)
    plain = encoder.encode_all(tokens)
    encoder.reuse(StateCache(tmp_path, 2**24))
    assert encoder.encode_all(tokens).equal(plain)
    assert encoder.reused() is None
    assert not list(tmp_path.iterdir())


def test_lora_on_upper_layers_leaves_the_lower_ones_to_the_cache(make: Callable[..., TextEncoder]) -> None:
    encoder = make(lora={"rank": 2, "alpha": 4, "modules": ["encoder.layer.1.attention.self.query"]})
    tokens = encoder.tokenize(TEXTS)
    plain, wanted = encoder.encode_all(tokens), gradients(encoder, tokens)
    encoder.reuse(StateCache(None, 2**24))
    torch.testing.assert_close(encoder.encode_all(tokens), plain, rtol=0, atol=1e-5)
    close(gradients(encoder, tokens), wanted)
    said = encoder.reused()
    assert said is not None
    assert said["layers"] == 1


def test_an_encoder_that_cannot_be_cut_runs_whole_and_says_so_once(
    make: Callable[..., TextEncoder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise LookupError("its parts differ from the whole by 1.0e+00")

    monkeypatch.setattr(frozen_part, "split_backbone", refuse)
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    plain = encoder.encode_all(tokens)
    encoder.reuse(StateCache(None, 2**24))
    with caplog.at_level(logging.WARNING):
        assert encoder.encode_all(tokens).equal(plain)
        assert encoder(tokens).shape == plain.shape
        assert encoder.encode_all(tokens).equal(plain)
    assert [record.getMessage() for record in caplog.records] == [
        "the encoder's frozen layers run at every step (its parts differ from the whole by 1.0e+00)"
    ]
    assert encoder.reused() is None


def test_bf16_states_take_half_the_room_and_cost_little(make: Callable[..., TextEncoder]) -> None:
    encoder = make("minilm", train_layers=2)
    tokens = encoder.tokenize(TEXTS)
    exact = encoder.encode_all(tokens)
    encoder.reuse(StateCache(None, 2**24))
    encoder.encode_all(tokens)
    room = encoder.frozen.cache.num_bytes if encoder.frozen else 0
    encoder.precision = torch.bfloat16
    encoder.reuse(None)
    whole = encoder.encode_all(tokens)
    encoder.reuse(StateCache(None, 2**24))
    found = encoder.encode_all(tokens)
    assert found.equal(encoder.encode_all(tokens)), "a run that computes the states and one that reads them agree"
    assert encoder.frozen is not None
    assert encoder.frozen.cache.num_bytes == room // 2
    torch.testing.assert_close(found, whole, rtol=0, atol=3e-3)
    assert (found - exact).abs().max() < 2 * (whole - exact).abs().max()


def test_the_trial_leaves_no_weights_without_gradient_behind(make: Callable[..., TextEncoder]) -> None:
    """Autocast would hand on the copies that a pass without gradient has made."""
    encoder = make()
    tokens = encoder.tokenize(TEXTS)
    encoder.precision = torch.bfloat16
    wanted = gradients(encoder, tokens)
    encoder.reuse(StateCache(None, 2**24))
    for found, other in zip(gradients(encoder, tokens), wanted, strict=True):
        torch.testing.assert_close(found, other, rtol=0, atol=0.1 * float(other.abs().max()) + 1e-4)


# ------------------------------------------------------------------------------------------------ fewer texts


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts in each batch that runs; one more group of texts costs nothing."""
    found: list[int] = []
    padded = module.padded

    def look(tokens: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
        found.append(len(tokens))
        return padded(tokens, pad, device)

    monkeypatch.setitem(module.GROUP_TOKENS, "cpu", 0)
    monkeypatch.setattr(module, "padded", look)
    return found


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_llama"])
def test_equal_texts_run_once_and_have_the_gradient_of_each_alone(
    kind: str, cached: bool, make: Callable[..., TextEncoder], ran: list[int]
) -> None:
    encoder = make(kind)
    tokens = encoder.tokenize([TEXTS[0], TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[1], TEXTS[0]])
    weight = torch.randn(len(tokens), encoder.width)
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    alone = torch.cat([encoder([row]) for row in tokens])
    wanted = torch.autograd.grad((alone * weight).sum(), parameters)
    if cached:
        encoder.reuse(StateCache(None, 2**24))
        encoder.encode_all(tokens)
    ran.clear()
    together = encoder(tokens)
    assert sum(ran) == 3
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    close(list(torch.autograd.grad((together * weight).sum(), parameters)), list(wanted))
    ran.clear()
    torch.testing.assert_close(encoder.encode_all(tokens), alone.detach(), rtol=0, atol=1e-5)
    assert sum(ran) == 3


def test_similar_lengths_run_together_and_come_back_in_their_order(
    make: Callable[..., TextEncoder], ran: list[int]
) -> None:
    encoder = make()
    tokens = encoder.tokenize([" ".join(["walnut"] * n) for n in (9, 1, 4, 9, 2, 4)] + ["phone case"])
    with torch.no_grad():
        found = encoder(tokens)
        assert sorted(ran) == [1, 1, 1, 2]
        module.GROUP_TOKENS["cpu"] = 10**9
        ran.clear()
        torch.testing.assert_close(encoder(tokens), found, rtol=0, atol=1e-5)
        assert ran == [5]
