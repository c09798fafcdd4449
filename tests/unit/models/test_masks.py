"""Masks that no host reads give the states that the usual ones give, or are not used."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel

from mtrec.config import Encoder
from mtrec.models.encoder import load_encoder
from mtrec.models.masks import ask_nothing, left_out, ready_made
from mtrec.models.text_batches import padded
from tests.unit.models.test_split import ARCHITECTURES, SIZES

NEAR: dict[str, Any] = {**SIZES, "local_attention": 4, "global_attn_every_n_layers": 2, "pad_token_id": 0}
"""Every second layer looks no further than two tokens to either side."""
FORMS = {
    **dict.fromkeys(("bert", "roberta", "distilbert", "electra"), ready_made),
    **dict.fromkeys(("llama", "qwen2", "gpt2", "gemma3_text"), left_out),
    "mpnet": None,
    "modernbert": None,
}


class Reads(TorchDispatchMode):
    """Counts what a host asks a device for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def texts(*lengths: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    rows = [torch.randint(5, 90, (length,), generator=draws).tolist() for length in lengths]
    return padded(rows, 0, torch.device("cpu"))


def states(backbone: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    found: Any = backbone(input_ids=ids, attention_mask=mask)
    return (found.last_hidden_state * mask.unsqueeze(-1)).detach()


@pytest.mark.parametrize("kind", FORMS)
def test_the_form_that_an_architecture_takes_changes_no_state(kind: str) -> None:
    torch.manual_seed(0)
    sizes = ARCHITECTURES.get(kind, NEAR)
    backbone = AutoModel.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    others = texts(3, 12, 7, 1), texts(5, 5)
    wanted = [states(backbone, *batch) for batch in others]
    assert ask_nothing(backbone, *texts(1, 16)) is FORMS[kind]
    with Reads() as reads:
        found = [states(backbone, *batch) for batch in others]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert (reads.count == 0) == (FORMS[kind] is not None)


def test_a_text_as_long_as_any_shows_that_attention_ends() -> None:
    """Tried on short texts alone the ready-made mask would pass, and far tokens would be seen."""
    torch.manual_seed(0)
    backbone = AutoModel.from_config(AutoConfig.for_model("modernbert", **NEAR)).eval()
    wanted = states(backbone, *texts(12, 7))
    assert ask_nothing(backbone, *texts(1, 2)) is ready_made
    assert (states(backbone, *texts(12, 7)) - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_llama"])
def test_an_encoder_that_leaves_masks_unread_gives_the_same_vectors(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    encoder = load_encoder(Encoder(name=str(folder), max_length=24))
    tokens = encoder.tokenize(["walnut case", "a", "", "sleek walnut veneer power case for your phone in seconds"])
    with torch.no_grad(), Reads() as before:
        wanted = encoder.eval()(tokens)
    encoder.train()
    encoder.leave_masks_unread()
    assert encoder.training
    with torch.no_grad(), Reads() as after:
        found = encoder.eval()(tokens)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert before.count > 0
    assert after.count == 0
