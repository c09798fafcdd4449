"""Pretraining: masked words are learned, and what else the encoder is stays as it was."""

import copy
import shutil
from pathlib import Path

import pytest
import torch

from mtrec.config import Encoder, Lora, Pretraining
from mtrec.errors import ConfigError
from mtrec.models.encoder import TextEncoder, load_encoder
from mtrec.training.pretrain import _Passes, _with_head, pretrain
from tests.unit.tiny_shop import DIALS, shop_tables


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return shop_tables(DIALS)[0].items["description"].drop_nulls().to_list()


def encoder_of(folder: Path, **changes: object) -> TextEncoder:
    return load_encoder(Encoder(name=str(folder), max_length=24, train_layers=1).model_copy(update=changes))


def test_masked_words_of_held_out_texts_are_found_better(tiny_bert: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_bert)
    before = copy.deepcopy(encoder.state_dict())
    asked = [p.requires_grad for p in encoder.parameters()]
    seen: list[float] = []
    lines = pretrain(encoder, texts, Pretraining(epochs=3, lr=3e-3), watch=seen.append)
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["loss"] is None
    assert lines[-1]["held_out"] < lines[0]["held_out"] - 0.1
    assert lines[-1]["loss"] < lines[1]["loss"]
    assert lines[-1]["step"] == len(seen)
    assert lines[0]["step"] * 4 == lines[-1]["step"], "a new head learns over one more pass"
    assert seen[-1] == 1
    moved = {name for name, value in encoder.state_dict().items() if not value.equal(before[name])}
    assert any("word_embeddings" in name for name in moved)
    assert any("layer.0." in name for name in moved)
    assert any("layer.1." in name for name in moved)
    assert [p.requires_grad for p in encoder.parameters()] == asked
    assert all(p.grad is None for p in encoder.parameters())


def test_the_same_seed_gives_the_same_weights(tiny_bert: Path, texts: list[str]) -> None:
    a, b = encoder_of(tiny_bert), encoder_of(tiny_bert)
    one, two = (pretrain(e, texts, Pretraining(epochs=1), seed=3) for e in (a, b))
    assert [line["held_out"] for line in one] == [line["held_out"] for line in two]
    assert all(value.equal(b.state_dict()[name]) for name, value in a.state_dict().items())


def test_the_head_is_the_familys_and_tied_to_the_words(tiny_bert: Path) -> None:
    encoder = encoder_of(tiny_bert)
    model, new = _with_head(encoder)
    assert new
    assert type(model).__name__ == "BertForMaskedLM"
    assert model.bert is encoder.backbone
    assert model.get_output_embeddings().weight is encoder.backbone.get_input_embeddings().weight  # type: ignore[operator]


def test_a_head_that_comes_with_the_encoder_is_kept(tiny_bert: Path, tmp_path: Path, texts: list[str]) -> None:
    model, _ = _with_head(encoder_of(tiny_bert))
    with torch.no_grad():
        model.cls.predictions.bias.fill_(0.5)
    model.save_pretrained(tmp_path / "whole")
    for file in tiny_bert.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "whole")
    encoder = encoder_of(tmp_path / "whole")
    again, new = _with_head(encoder)
    assert not new
    assert bool((again.cls.predictions.bias == 0.5).all())
    lines = pretrain(encoder, texts, Pretraining(epochs=1))
    assert lines[0]["step"] == 0, "no pass for the head alone"


def test_what_is_asked_for(tiny_bert: Path, texts: list[str]) -> None:
    import numpy as np

    encoder = encoder_of(tiny_bert)
    passes = _Passes(torch.nn.Linear(1, 1), encoder, [[1]], np.random.default_rng(0), lambda _: None)
    tokens = encoder.tokenize(texts) * 40
    torch.manual_seed(0)
    batch = passes.masked(tokens)
    asked = batch["labels"] >= 0
    real = batch["attention_mask"].bool()
    longest = max(map(len, tokens))
    plain = torch.tensor([[*row, *[0] * (longest - len(row))] for row in tokens])
    special = torch.isin(plain, torch.tensor(encoder.tokenizer.all_special_ids))
    assert not bool((asked & (special | ~real)).any())
    share = float(asked.sum() / (~special).sum())
    assert share == pytest.approx(0.15, abs=0.015)
    masked = float((batch["input_ids"][asked] == encoder.tokenizer.mask_token_id).float().mean())
    kept = float((batch["input_ids"][asked] == plain[asked]).float().mean())
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)
    assert batch["labels"][asked].equal(plain[asked])


def test_adapters_wait(tiny_bert: Path, texts: list[str]) -> None:
    encoder = encoder_of(tiny_bert, lora=Lora(rank=2))
    before = copy.deepcopy(encoder.state_dict())
    pretrain(encoder, texts[:10], Pretraining(epochs=1, lr=1e-2))
    moved = {name for name, value in encoder.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert not any("lora_" in name for name in moved)
    assert all(p.requires_grad == ("lora_" in name) for name, p in encoder.named_parameters())


def test_decoders_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(ConfigError, match=r"^pretraining.epochs: an encoder of type llama reads from left"):
        pretrain(encoder_of(tiny_llama), ["a", "b"], Pretraining(epochs=1))


def test_a_tokenizer_without_a_mask_and_too_few_texts(tiny_bert: Path) -> None:
    encoder = encoder_of(tiny_bert)
    with pytest.raises(ConfigError, match="at least two different item texts"):
        pretrain(encoder, ["tea", "tea"], Pretraining(epochs=1))
    encoder.tokenizer.mask_token = None
    with pytest.raises(ConfigError, match="has no mask token; set it to 0"):
        pretrain(encoder, ["a", "b"], Pretraining(epochs=1))
