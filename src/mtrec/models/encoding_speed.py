"""How fast encoders are, side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch

from mtrec.models.encoder import TextEncoder

TEXTS = 128
"""Texts that are encoded per turn, evenly spread over those given."""


def encoding_speed(encoders: Mapping[str, TextEncoder], texts: Sequence[str], turns: int = 3) -> dict[str, Any]:
    """Time encoders in turns on the same texts, without what they keep of earlier passes.

    Args:
        encoders: name → encoder.
        texts: at least one; duplicates count once.
        turns: how often each is timed, after one turn to warm up.

    Returns:
        `texts_per_second` and `tokens_per_second` by name (of the median turn), and `texts`, how many were encoded.
    """
    distinct = sorted(set(texts), key=len)
    chosen = distinct[:: max(len(distinct) // TEXTS, 1)]
    tokens = {name: encoder.tokenize(chosen) for name, encoder in encoders.items()}
    kept = {name: encoder.frozen for name, encoder in encoders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    try:
        for turn in range(turns + 1):
            for name, encoder in encoders.items():
                encoder.frozen = None
                started = time.perf_counter()
                float(encoder.encode_all(tokens[name]).sum())  # waits for a GPU
                if turn:
                    seconds[name].append(time.perf_counter() - started)
    finally:
        for name, encoder in encoders.items():
            encoder.frozen = kept[name]
    count = {name: sum(map(len, rows)) for name, rows in tokens.items()}
    return {
        "texts": len(chosen),
        "texts_per_second": {name: round(len(chosen) / median(times), 1) for name, times in seconds.items()},
        "tokens_per_second": {name: round(count[name] / median(times)) for name, times in seconds.items()},
    }


def encoder_parameters(encoder: TextEncoder) -> int:
    """Numbers in the encoder's weights."""
    with torch.no_grad():
        return sum(p.numel() for p in encoder.parameters())
