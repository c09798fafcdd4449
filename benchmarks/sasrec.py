"""SASRec for the ranking benchmark, as published: self-attention over the ids of a user's last items.

Kang & McAuley 2018, arXiv:1808.09781: learned positions, two blocks, one head, width 50, Adam at 0.001, binary
cross-entropy against one random negative per position. `loss="full"` replaces that by cross-entropy over the whole
catalogue, which Klenitskiy & Vasilev 2023 (arXiv:2309.07602) found to be much stronger.

The number of epochs is chosen on validation rows; the model is then trained anew on training and validation rows.

    python -m benchmarks.sasrec FOLDER [--loss sampled|full] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ranking import gains, mean_tie_ranks, means_and_errors
from benchmarks.ratings import Parts, Ratings, from_tables, load_tables, split

EVERY = 10
"""Epochs between two looks at the validation rows."""
PATIENCE = 5
"""Looks without a better NDCG@10 before the search for the number of epochs ends."""


class SasRec(nn.Module):
    """Scores every item after each of the last `length` items."""

    def __init__(
        self,
        num_items: int,
        *,
        loss: Literal["sampled", "full"] = "sampled",
        width: int = 50,
        length: int = 50,
        blocks: int = 2,
        dropout: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.loss, self.length, self.seed = loss, length, seed
        self.items = nn.Embedding(num_items + 1, width, padding_idx=0)
        self.places = nn.Embedding(length, width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(width, 1, width, dropout, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, blocks, nn.LayerNorm(width), enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.optimiser = torch.optim.Adam(self.parameters(), lr=0.001, betas=(0.9, 0.98))

    def forward(self, items_BT: Tensor) -> Tensor:
        """States after each item, (B, T, D); item 0 is padding, on the left."""
        x = self.items(items_BT) * self.items.embedding_dim**0.5 + self.places.weight
        hidden = torch.ones(self.length, self.length, dtype=torch.bool).triu(1)
        states: Tensor = self.blocks(self.dropout(x) * (items_BT > 0).unsqueeze(2), mask=hidden)
        return states

    def epoch(self, sequences: list[np.ndarray], number: int, batch_size: int = 128) -> None:
        """One pass over the users."""
        self.train()
        draw = np.random.default_rng((self.seed, number))
        for chosen in np.array_split(draw.permutation(len(sequences)), max(len(sequences) // batch_size, 1)):
            rows_BT = padded([sequences[c] for c in chosen], self.length + 1)
            before, after = rows_BT[:, :-1], rows_BT[:, 1:]
            states, taken = self(before)[(after > 0) & (before > 0)], after[(after > 0) & (before > 0)]
            if self.loss == "full":
                loss = F.cross_entropy(states @ self.items.weight[1:].T, taken - 1)
            else:
                other = torch.from_numpy(draw.integers(1, len(self.items.weight), len(taken)))
                logits = torch.stack([(states * self.items(i)).sum(1) for i in (taken, other)])
                loss = F.binary_cross_entropy_with_logits(logits, torch.eye(2)[0].unsqueeze(1).expand_as(logits))
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    @torch.no_grad()
    def ranks(self, train: Ratings, test: Ratings) -> np.ndarray:
        """Rank of each test row's item among those its user has not seen, from 1."""
        self.eval()
        sequences, found = by_user(train), []
        for start in range(0, len(test), 256):
            users, targets = test.users[start : start + 256], test.items[start : start + 256]
            states = self(padded([sequences[u] for u in users], self.length))[:, -1]
            seen = np.zeros((len(users), train.num_items), dtype=bool)
            for row, user in enumerate(users):
                seen[row, sequences[user] - 1] = True
            scores = (states @ self.items.weight[1:].T).numpy()
            found.append(mean_tie_ranks(scores, targets, _Sparse(seen)))
        return np.concatenate(found)


class _Sparse:
    """The one method of a sparse matrix that `mean_tie_ranks` calls."""

    def __init__(self, dense: np.ndarray) -> None:
        self.nonzero = dense.nonzero


def by_user(ratings: Ratings) -> list[np.ndarray]:
    """Item numbers from 1 of every user, oldest first."""
    ends = np.cumsum(np.bincount(ratings.users, minlength=ratings.num_users))
    return np.split(ratings.items + 1, ends[:-1])


def padded(sequences: list[np.ndarray], length: int) -> Tensor:
    """The last `length` items of each sequence, zeros on the left, (B, length)."""
    rows = np.zeros((len(sequences), length), dtype=np.int64)
    for row, items in zip(rows, sequences, strict=True):
        recent = items[-length:]
        row[length - len(recent) :] = recent
    return torch.from_numpy(rows)


def measure(parts: Parts, *, max_epochs: int = 300, **settings: Any) -> dict[str, Any]:
    """HR@10 and NDCG@10 on the test part, with their standard errors over users.

    Args:
        parts: a leave-last-out split.
        max_epochs: at most so many; the best number on the validation part is used.
        settings: of `SasRec`.
    """
    started = time.perf_counter()
    sequences = [s for s in by_user(parts.train) if len(s) > 1]
    model, best, best_epochs = SasRec(parts.train.num_items, **settings), -1.0, EVERY
    for number in range(max_epochs):
        model.epoch(sequences, number)
        if (number + 1) % EVERY == 0:
            now = float(gains(model.ranks(parts.train, parts.valid))["ndcg@10"].mean())
            if now > best:
                best, best_epochs = now, number + 1
            if number + 1 - best_epochs >= PATIENCE * EVERY:
                break
    model, everything = SasRec(parts.train.num_items, **settings), parts.before_test
    sequences = [s for s in by_user(everything) if len(s) > 1]
    for number in range(best_epochs):
        model.epoch(sequences, number)
    scores = means_and_errors(gains(model.ranks(everything, parts.test)))
    return {
        **scores,
        "valid_ndcg@10": best,
        "epochs": best_epochs,
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sasrec", description="SASRec, leave-last-out.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loss", choices=["sampled", "full"], default="sampled")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    ratings, frame = from_tables(load_tables(given.folder))
    parts = split(ratings, frame, "leave_last_out")
    for seed in given.seeds:
        print(measure(parts, seed=seed, loss=given.loss, dropout=given.dropout), flush=True)


if __name__ == "__main__":
    main()
