"""SASRec for the ranking benchmark: self-attention over the ids of a user's items.

Two of them, both ranked like every other baseline (`benchmarks.ranking`):

    as published  Kang & McAuley 2018, arXiv:1808.09781: learned positions, two blocks, one head, width 50, Adam at
                  0.001, binary cross-entropy against one random negative per position that the user has not
                  taken. Of each user the last 200 items, dropout 0.2 (their MovieLens settings) and batches of 32
                  users, for 610 users make few batches of their 128; where users have fewer than 50 items on
                  average, the last 50, 0.5 and 128 (their sparse data sets).
    full softmax  cross-entropy over the whole catalogue, much stronger by Klenitskiy & Vasilev 2023
                  (arXiv:2309.07602). Longer sequences are cut into windows, so that no training row is lost: on
                  movielens-latest-small the last 200 items per user are 58 % of the rows, the last 50 are 26 %.
                  Width and dropout are chosen on the validation part.

The blocks are pre-norm, as the paper writes them, and padding is never attended to. The number of epochs is chosen
on the validation part; the models are then trained on training and validation rows with it.

    python -m benchmarks.sasrec FOLDER [--loss sampled|full] [--seeds 0 1 2]      # chooses settings, then measures
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ranking import gains, means_and_errors, rank_fitted, rank_targets
from benchmarks.ratings import Parts, Ratings, from_tables, load_tables, split

Loss = Literal["sampled", "full"]

STEPS = {"sampled": 100, "full": 50}
"""Training steps between two looks at the validation part, at least; a look comes after a whole epoch."""
PATIENCE = 8
"""Looks without a better NDCG@10 before the search for the number of epochs ends."""
LOOKS = 80
"""At most so many."""
DROPOUTS, WIDTHS = (0.2, 0.5), (64, 128)
"""What is tried for the full softmax: each dropout with the first width, then each width with the best of them."""


class SasRec(nn.Module):
    """Scores every item after each item of a sequence; a `benchmarks.ranking.RankingModel`."""

    def __init__(
        self,
        *,
        loss: Loss = "sampled",
        width: int = 50,
        length: int = 50,
        batch: int = 128,
        dropout: float = 0.2,
        epochs: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.loss, self.width, self.length, self.batch = loss, width, length, batch
        self.p, self.epochs, self.seed = dropout, epochs, seed

    def fit(self, train: Ratings) -> SasRec:
        """Learn from N rows in `epochs` passes; each user's rows are in order of time."""
        for _ in self.looks(train):
            pass
        return self

    def looks(self, train: Ratings) -> Iterator[int]:
        """Train; gives the number of each epoch, from 1, after it."""
        self._build(train)
        for epoch in range(self.epochs):
            self.epoch(epoch)
            yield epoch + 1

    def _build(self, train: Ratings) -> None:
        torch.manual_seed(self.seed)
        self.items = nn.Embedding(train.num_items + 1, self.width, padding_idx=0)
        self.places = nn.Embedding(self.length, self.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            self.width, 1, self.width, self.p, batch_first=True, norm_first=True, layer_norm_eps=1e-8
        )
        self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(self.width), enable_nested_tensor=False)
        self.optimiser = torch.optim.Adam(self.parameters(), lr=0.001, betas=(0.9, 0.98))
        self.histories = by_user(train)
        self.sequences = [
            (user, part)
            for user, items in enumerate(self.histories)
            for part in windows(items, self.length + 1, whole=self.loss == "full")
        ]
        self.taken = np.sort(train.users * (train.num_items + 1) + train.items + 1)

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(len(self.sequences) // self.batch, 1)

    def forward(self, items_BT: Tensor) -> Tensor:
        """States after each item, (B, T, D); item 0 is padding, on the left."""
        length = items_BT.shape[1]
        x = self.items(items_BT) * self.width**0.5 + self.places.weight[-length:]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        padding = (items_BT == 0).unsqueeze(1) & ~torch.eye(length, dtype=torch.bool)
        states: Tensor = self.blocks(F.dropout(x, self.p, self.training), mask=later | padding)
        return states

    def epoch(self, number: int) -> None:
        """One pass over the sequences."""
        self.train()
        draw = np.random.default_rng((self.seed, number))
        for chosen in np.array_split(draw.permutation(len(self.sequences)), self.steps):
            users, sequences = zip(*(self.sequences[c] for c in chosen), strict=True)
            rows_BT = padded(list(sequences))
            before, after = rows_BT[:, :-1], rows_BT[:, 1:]
            real = before > 0
            states, next_items = self(before)[real], after[real]
            if self.loss == "full":
                loss = F.cross_entropy(states @ self.items.weight[1:].T, next_items - 1)
            else:
                owners = np.repeat(np.array(users), real.sum(1).numpy())
                other = torch.from_numpy(self._not_taken(owners, draw))
                logits = torch.stack([(states * self.items(i)).sum(1) for i in (next_items, other)])
                loss = F.binary_cross_entropy_with_logits(logits, torch.eye(2)[0].unsqueeze(1).expand_as(logits))
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def _not_taken(self, users: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """[M] random items from 1, none of which its user has taken."""
        count = len(self.items.weight)
        items = draw.integers(1, count, len(users))
        for _ in range(100):  # then a user has nearly everything
            again = np.flatnonzero(np.isin(users * count + items, self.taken))
            if not len(again):
                break
            items[again] = draw.integers(1, count, len(again))
        return items

    @torch.no_grad()
    def scores(self, users: np.ndarray) -> np.ndarray:
        """[B, num_items] after each user's last items."""
        self.eval()
        states = self(padded([self.histories[u][-self.length :] for u in users]))[:, -1]
        found: np.ndarray = (states @ self.items.weight[1:].T).numpy()
        return found


def by_user(ratings: Ratings) -> list[np.ndarray]:
    """Item numbers from 1 of every user, oldest first."""
    ends = np.cumsum(np.bincount(ratings.users, minlength=ratings.num_users))
    return np.split(ratings.items + 1, ends[:-1])


def windows(items: np.ndarray, length: int, *, whole: bool) -> list[np.ndarray]:
    """The last `length` items; with `whole` all, each window beginning with the last item of the one before."""
    found = []
    while len(items) > 1:
        found.append(items[-length:])
        items = items[: 1 - length] if whole else items[:0]
    return found


def padded(sequences: list[np.ndarray]) -> Tensor:
    """Sequences of one length, by zeros on the left, (B, T)."""
    length = max(1, *(len(items) for items in sequences))
    rows = np.zeros((len(sequences), length), dtype=np.int64)
    for row, items in zip(rows, sequences, strict=True):
        row[length - len(items) :] = items
    return torch.from_numpy(rows)


def usual_setting(train: Ratings, loss: Loss) -> dict[str, Any]:
    """As published for data as dense as this; batches of the full softmax are smaller where sequences are long."""
    dense = len(train) >= 50 * len(np.unique(train.users))
    length, dropout = (200, 0.2) if dense else (50, 0.5)
    batch = (32 if loss == "sampled" else 16) if dense else 128
    return {"loss": loss, "length": length, "batch": batch, "dropout": dropout}


def choose(parts: Parts, loss: Loss, *, seed: int = 0) -> dict[str, Any]:
    """The setting and number of epochs with the best NDCG@10 on the validation part; each one tried is printed."""
    usual = usual_setting(parts.train, loss)

    def tried(**changes: Any) -> tuple[float, dict[str, Any]]:
        setting = usual | changes
        value, epochs = best_epochs(SasRec(**setting, epochs=10**6, seed=seed), parts)
        found = setting | {"epochs": epochs}
        print(f"validation NDCG@10 {value:.4f} with {found}", file=sys.stderr, flush=True)
        return value, found

    if loss == "sampled":
        return tried()[1]
    best = max((tried(width=WIDTHS[0], dropout=dropout) for dropout in DROPOUTS), key=itemgetter(0))
    wider = (tried(width=width, dropout=best[1]["dropout"]) for width in WIDTHS[1:])
    return max([best, *wider], key=itemgetter(0))[1]


def best_epochs(model: SasRec, parts: Parts) -> tuple[float, int]:
    """The best NDCG@10 on the validation part, and the epochs after which it was reached."""
    best, best_look, best_epoch, look = -1.0, 0, 1, 0
    for epoch in model.looks(parts.train):
        if epoch % -(-STEPS[model.loss] // model.steps):
            continue
        look += 1
        now = float(gains(rank_fitted(model, parts.train, parts.valid))["ndcg@10"].mean())
        if now > best:
            best, best_look, best_epoch = now, look, epoch
        if look - best_look >= PATIENCE or look >= LOOKS:
            break
    return best, best_epoch


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sasrec", description="SASRec, leave-last-out.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loss", choices=["sampled", "full"], default="sampled")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    parts = split(*from_tables(load_tables(given.folder)), "leave_last_out")
    started = time.perf_counter()
    setting = choose(parts, given.loss)
    print(json.dumps({"setting": setting, "seconds": round(time.perf_counter() - started, 1)}), flush=True)
    for seed in given.seeds:
        ranks = rank_targets(SasRec(**setting, seed=seed), parts.before_test, parts.test)
        print(json.dumps({"seed": seed, **means_and_errors(gains(ranks))}), flush=True)


if __name__ == "__main__":
    main()
