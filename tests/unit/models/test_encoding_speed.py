"""Encoders timed in turns on the same texts."""

import time
from pathlib import Path

import pytest

from mtrec.config import Encoder
from mtrec.models.encoder import load_encoder
from mtrec.models.encoding_speed import TEXTS, encoder_parameters, encoding_speed
from mtrec.models.state_cache import StateCache


def test_a_slower_encoder_has_fewer_texts_a_second(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = {name: load_encoder(Encoder(name=str(tiny_bert), max_length=24)) for name in ("plain", "slow")}
    encoders["plain"].reuse(StateCache(None, 2**20))
    frozen = encoders["plain"].frozen
    whole = encoders["slow"].encode_all
    asked: list[int] = []

    def slowly(tokens: list[list[int]]) -> object:
        asked.append(len(tokens))
        time.sleep(0.5)
        return whole(tokens)

    monkeypatch.setattr(encoders["slow"], "encode_all", slowly)
    texts = [f"a blue mug {n}" for n in range(TEXTS + 7)]
    found = encoding_speed(encoders, texts * 2, turns=1)
    assert asked == [found["texts"]] * 2 == [len(texts)] * 2
    assert found["texts_per_second"]["slow"] < min(found["texts_per_second"]["plain"], len(texts) / 0.5)
    tokens = sum(map(len, encoders["plain"].tokenize(texts)))
    ratio = found["tokens_per_second"]["slow"] / found["texts_per_second"]["slow"]
    assert ratio == pytest.approx(tokens / len(texts), rel=0.01)
    assert encoders["plain"].frozen is frozen
    assert frozen is not None
    assert frozen.split is None, "what was kept of earlier passes would be timed"


def test_parameters(tiny_bert: Path) -> None:
    encoder = load_encoder(Encoder(name=str(tiny_bert)))
    assert encoder_parameters(encoder) == sum(p.numel() for p in encoder.backbone.parameters())
