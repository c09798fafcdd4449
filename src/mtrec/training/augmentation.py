"""Item texts with words dropped or swapped (Wei & Zou 2019, arXiv:1901.11196), for the encoder to learn from.

Of that paper these are random deletion and random swap; replacing and inserting words needs a thesaurus. Half of
the texts that a step encodes are changed, drawn anew every step; the other half stays, and keeps the catalogue's
vectors up to date. A changed text runs through all layers of the encoder, for what the frozen layers gave for its
original does not hold for it, and it enters neither that cache nor the catalogue.

It acts on an encoder that learns nothing too: a changed text then gives a changed vector, without gradient. With
`training.texts_per_step: 0` no text is encoded, so none is changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch

from mtrec.data.dataset import Dataset
from mtrec.models.encoder import TextEncoder

CHANGED = 0.5
"""Share of the texts of a step that are changed."""


class Augmentation:
    """Makes other texts of some items.

    Args:
        texts: of all items.
        share: of the words that is dropped, or how many pairs are swapped.
        tokenize: turns texts into token ids.
    """

    def __init__(
        self, texts: Sequence[str], share: float, tokenize: Callable[[Sequence[str]], list[list[int]]]
    ) -> None:
        self.texts, self.share, self.tokenize = texts, share, tokenize

    def __call__(self, rows: np.ndarray, generator: torch.Generator | None = None) -> dict[int, list[int]]:
        """Token ids in place of an item's own, for about half of the rows; drawn from a generator of the host."""
        rng = random.Random(int(torch.randint(2**31, (), generator=generator).numpy()))
        chosen = [i for i in rows.tolist() if rng.random() < CHANGED]
        tokens = self.tokenize([altered(self.texts[i], self.share, rng) for i in chosen])
        return dict(zip(chosen, tokens, strict=True))


def augmentation(share: float, dataset: Dataset, encoder: TextEncoder) -> Augmentation | None:
    """What changes the texts of a dataset's items; None where no word is to be changed."""
    return Augmentation(dataset.items["text"].to_list(), share, encoder.tokenize) if share else None


def altered(text: str, share: float, rng: random.Random) -> str:
    """The text with each word dropped by chance `share`, or so many pairs of words swapped (at least one).

    One of the two by a coin. A text of one word stays, and one word always does.
    """
    words = text.split()
    if len(words) < 2:
        return text
    if rng.random() < 0.5:
        kept = [word for word in words if rng.random() >= share]
        return " ".join(kept or [rng.choice(words)])
    for _ in range(max(round(share * len(words)), 1)):
        i, j = rng.sample(range(len(words)), 2)
        words[i], words[j] = words[j], words[i]
    return " ".join(words)
