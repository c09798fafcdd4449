"""Backbones of several architectures cut in two."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mtrec.models.encoder import bundled_minilm, transformer_layers
from mtrec.models.split import SplitBackbone, split_backbone

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = {**SIZES, "num_key_value_heads": 1, "head_dim": 16}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": SIZES,
    "mpnet": SIZES,
    "distilbert": {"vocab_size": 100, "dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64, "pad_token_id": 0},
    "electra": {**SIZES, "embedding_size": 16},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "gpt2": {"vocab_size": 100, "n_embd": 32, "n_layer": 4, "n_head": 2, "n_positions": 64},
    # Layers differ by their place in the stack: local attention of 4 tokens, and of all.
    "gemma3_text": {
        **GROUPED,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
    },
}


def texts() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    lengths = torch.tensor([20, 3, 11])
    mask = (torch.arange(20) < lengths.unsqueeze(1)).long()
    return torch.randint(5, 100, (3, 20)) * mask, mask


def backbone(kind: str, frozen: int) -> nn.Module:
    """A random model whose lower layers are frozen, without dropout."""
    torch.manual_seed(0)
    model: nn.Module = AutoModel.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind]))
    model.requires_grad_(False)
    for layer in list(transformer_layers(model))[frozen:]:
        layer.requires_grad_(True)
    return model.eval()


def whole(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    hidden: Tensor = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden


@pytest.mark.parametrize("frozen", [1, 3])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_parts_give_what_the_whole_gives_with_the_same_gradients(kind: str, frozen: int) -> None:
    model = backbone(kind, frozen)
    ids, mask = texts()
    split = split_backbone(model, transformer_layers(model), ids, mask)
    assert split is not None
    assert (len(split.lower), len(split.upper)) == (frozen, 4 - frozen)
    states = split.below(ids, mask)
    assert not states.requires_grad
    states = torch.where(mask.unsqueeze(-1).bool(), states, torch.full_like(states, 7.0))  # padding: any number
    weight = torch.randn(3, 20, 32) * mask.unsqueeze(-1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = [whole(model, ids, mask), split.above(states, ids, mask)]
    torch.testing.assert_close(found[0][mask.bool()], found[1][mask.bool()], rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad((hidden * weight).sum(), parameters) for hidden in found]
    assert parameters
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    # Nothing is left behind: the whole is as it was.
    assert whole(model, ids, mask).equal(found[0])
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_upper_part_runs_no_layer_below_and_the_lower_none_above() -> None:
    model = backbone("bert", 2)
    ids, mask = texts()
    layers = transformer_layers(model)
    split = SplitBackbone(model, list(layers), 2)
    ran: list[int] = []
    for number, layer in enumerate(layers):
        dense: Any = layer
        dense.intermediate.register_forward_hook(lambda *_, number=number: ran.append(number))
    states = split.below(ids, mask)
    assert ran == [0, 1]
    split.above(states, ids, mask)
    assert ran == [0, 1, 2, 3]


def test_the_bundled_encoder_can_be_cut() -> None:
    model = AutoModel.from_pretrained(bundled_minilm()).eval().requires_grad_(False)
    layers = transformer_layers(model)
    layers[-2:].requires_grad_(True)
    ids, mask = texts()
    split = split_backbone(model, layers, ids, mask)
    assert split is not None
    assert len(split.lower) == 4
    with torch.no_grad():
        parts = split.above(split.below(ids, mask), ids, mask)
        torch.testing.assert_close(parts[mask.bool()], whole(model, ids, mask)[mask.bool()], rtol=0, atol=1e-5)


def test_an_error_on_the_way_leaves_the_layers_as_they_were() -> None:
    model = backbone("llama", 2)
    ids, mask = texts()
    split = SplitBackbone(model, list(transformer_layers(model)), 2)
    before = whole(model, ids, mask)
    with pytest.raises(Exception, match="size"):
        split.above(torch.zeros(3, 20, 7), ids, mask)
    assert whole(model, ids, mask).equal(before)


# ------------------------------------------------------------------------------------------------ no cut


@pytest.mark.parametrize("learns", ["all layers", "nothing", "the embeddings"])
def test_there_is_nothing_to_cut_without_frozen_layers_below(learns: str) -> None:
    model: Any = backbone("bert", {"all layers": 0, "nothing": 4, "the embeddings": 2}[learns])
    if learns == "the embeddings":
        model.embeddings.requires_grad_(True)
    assert split_backbone(model, transformer_layers(model), *texts()) is None


class Reminding(nn.Module):
    """Looks back at the input of its first layer, past every cut."""

    def __init__(self, broken: str = "") -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.embeddings = nn.Embedding(100, 8)
        self.broken = broken

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        states = self.embeddings(input_ids)
        if self.broken == "order":
            return type("Output", (), {"last_hidden_state": self.layers[0](states)})
        if self.broken == "error" and attention_mask.shape[0] == 3 and "forward" in vars(self.layers[0]):
            raise RuntimeError("no forward of yours\nand more")
        first = self.layers[0](states)
        return type("Output", (), {"last_hidden_state": self.layers[2](self.layers[1](first)) + first})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "its parts differ from the whole by "),
        ("order", "it does not run its layers one after the other"),
        ("error", "RuntimeError: no forward of yours"),
    ],
)
def test_an_architecture_that_cannot_be_cut_is_found_out(broken: str, message: str) -> None:
    torch.manual_seed(0)
    model = Reminding(broken).requires_grad_(False)
    model.layers[2].requires_grad_(True)
    model.train()
    with pytest.raises(LookupError) as caught:
        split_backbone(model, list(model.layers), *texts())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert all(module.training for module in model.modules())


# ------------------------------------------------------------------------------------------------ fingerprint


def fingerprint(model: nn.Module, frozen: int = 2) -> str:
    return SplitBackbone(model, list(transformer_layers(model)), frozen).fingerprint()


def test_the_fingerprint_is_that_of_the_frozen_part() -> None:
    model: Any = backbone("bert", 2)
    start = fingerprint(model)
    assert fingerprint(backbone("bert", 2)) == start
    with torch.no_grad():
        for parameter in model.encoder.layer[2:].parameters():
            parameter.add_(1)
    model.config._name_or_path = "elsewhere"
    assert fingerprint(model) == start


@pytest.mark.parametrize("change", ["a lower layer", "the embeddings", "the settings", "the depth", "the type"])
def test_whatever_the_states_depend_on_changes_the_fingerprint(change: str) -> None:
    model: Any = backbone("bert", 2)
    start = fingerprint(model)
    with torch.no_grad():
        if change == "a lower layer":
            model.encoder.layer[1].output.dense.bias[3] += 1e-3
        elif change == "the embeddings":
            model.embeddings.word_embeddings.weight[7, 0] += 1e-3
        elif change == "the settings":
            model.config.layer_norm_eps = 1e-3
        elif change == "the type":
            model.to(torch.bfloat16)
    assert fingerprint(model, 3 if change == "the depth" else 2) != start
