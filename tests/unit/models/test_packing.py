"""Texts without padding have the states, vectors and gradients that they have with it, or are run with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from mtrec.config import Encoder
from mtrec.models.encoder import TextEncoder, load_encoder
from mtrec.models.packing import Layout, packing_for, run
from mtrec.models.state_cache import StateCache
from tests.unit.models.test_masks import NEAR, texts
from tests.unit.models.test_split import ARCHITECTURES

FIRST = {
    **dict.fromkeys(("bert", "electra", "llama", "qwen2", "gpt2"), 0),
    "roberta": 1,  # its padding token, 0 here, and one
    **dict.fromkeys(("gemma3_text", "modernbert")),  # attention to near tokens only
    "mpnet": None,
}
WORDS = ["walnut case", "a", "", "sleek walnut veneer power case for your phone in seconds", "walnut case"]


@pytest.mark.parametrize("kind", FIRST)
def test_an_architecture_gives_the_same_states_or_is_refused(kind: str) -> None:
    torch.manual_seed(0)
    backbone = AutoModel.from_config(AutoConfig.for_model(kind, **ARCHITECTURES.get(kind, NEAR))).eval()
    attention = backbone.config._attn_implementation
    packing = packing_for(backbone, *texts(1, 5, 16), first=(0, 1))
    assert backbone.config._attn_implementation == attention
    assert (packing.first if packing else None) == FIRST[kind]
    if packing is None:
        return
    ids, mask = texts(3, 12, 7, 1)
    with torch.no_grad():
        wanted, found = (run(backbone, ids, mask, how) for how in (None, packing.layout([3, 12, 7, 1], ids.device)))
    real = mask.bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=1e-5)
    assert (found[~real] == 0).all()


def test_packing_and_unpacking() -> None:
    layout = Layout.of([2, 3, 1], 5, torch.device("cpu"))
    batch = torch.tensor([[1, 2, 0], [3, 4, 5], [6, 0, 0]])
    assert layout.pack(batch).tolist() == [[1, 2, 3, 4, 5, 6]]
    assert layout.positions_1T.tolist() == [[5, 6, 5, 6, 7, 5]]
    assert layout.ends_B.tolist() == [0, 2, 5, 6]
    assert layout.unpack(layout.pack(batch.unsqueeze(-1))).squeeze(-1).tolist() == batch.tolist()


def steps(encoder: TextEncoder) -> tuple[Tensor, dict[str, Tensor]]:
    """Vectors, and the gradients of a sum over them."""
    encoder.zero_grad()
    vectors = encoder(encoder.tokenize(WORDS))
    (vectors * torch.linspace(-1, 1, vectors.shape[1])).sum().backward()
    return vectors.detach(), {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_llama"])
@pytest.mark.parametrize("given", ["plain", "labels", "frozen", "recomputed", "lora"])
def test_an_encoder_gives_the_same_vectors_and_gradients(
    kind: str, given: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    settings: dict[str, Any] = {"train_layers": 1}
    if given == "lora":
        settings = {
            "train_layers": 0,
            "lora": {"modules": ["query", "value"] if kind == "tiny_bert" else ["q_proj"]},
        }
    torch.manual_seed(0)
    encoder = load_encoder(Encoder.model_validate({"name": str(folder), "max_length": 24, **settings})).eval()
    if given == "labels":
        encoder.look_for(3)
    if given == "frozen":
        encoder.reuse(StateCache(None, 2**20))
    if given == "recomputed":
        encoder.texts_at_once = 2
    wanted, slopes = steps(encoder)
    encoder.pack_texts()
    assert encoder.packing is not None
    for _ in range(2):  # the second time frozen layers come from the cache
        found, packed = steps(encoder)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
        assert packed.keys() == slopes.keys()
        for name, slope in slopes.items():
            torch.testing.assert_close(packed[name], slope, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(encoder.encode_all(encoder.tokenize(WORDS)), wanted, rtol=0, atol=1e-5)
    if given == "frozen":
        assert encoder.reused() is not None
