"""The way people start: one BERT-type sequence model per user–item text pair, against mtrec.

The usual script takes the texts of a user and an item as a sentence pair, pads to 128 tokens and fine-tunes a
sequence regressor in fp32 with AdamW at 2e-5. Each rating costs a full pass of the language model. mtrec encodes
each distinct item once and learns all tasks of scenario `video` meanwhile.

Same encoder (bundled MiniLM), same rows (random split, 10 % test, 2 % validation), same threads, one
process. An epoch of the usual script takes hours on a CPU: its time is measured over some steps and multiplied by
the steps of an epoch; with --minutes it trains on and tells its validation RMSE on the way. --fast pads every batch
to its own longest pair and multiplies in bf16: it learns the same but for rounding, several times faster, so that
what the script would reach after an epoch is known sooner. Its seconds do not count.

    python -m benchmarks.usual --data FOLDER                        # the ratio of seconds per epoch
    python -m benchmarks.usual --data FOLDER --minutes 90 --fast    # and what RMSE the usual script reaches
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import Dataset, Encoding, prepare
from mtrec.data.sources import read_source
from mtrec.data.splits import TRAIN, VALID

LENGTH, BATCH, RATE = 128, 16, 2e-5
LIKED = 5
"""Titles that stand for a user: the last ones rated 4 or more in the training part."""


def pair_texts(dataset: Dataset) -> tuple[list[str], list[str]]:
    """The text of every user and of every item, as such scripts write them."""
    titles = dataset.items["title"].to_list()
    liked: list[list[str]] = [[] for _ in range(dataset.users.height)]
    rows = np.flatnonzero((dataset.part == TRAIN) & (dataset.rating >= 4))
    for row in rows:
        liked[dataset.user[row]].append(titles[dataset.item[row]])
    return ["The user likes " + "; ".join(own[-LIKED:]) for own in liked], dataset.items["text"].to_list()


class Usual:
    """The usual fine-tuning script, as a class so that it can be paused."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.fast = False
        """Pad to the longest of a batch and multiply in bf16."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from mtrec.models.encoder import bundled_minilm

        torch.manual_seed(seed)
        folder = bundled_minilm()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=RATE)
        self.dataset = dataset
        self.users, self.items = pair_texts(dataset)
        rated = ~np.isnan(dataset.rating)
        self.train = np.flatnonzero((dataset.part == TRAIN) & rated)
        self.valid = np.flatnonzero((dataset.part == VALID) & rated)
        self.mean = float(dataset.rating[self.train].mean())
        self.order = np.random.default_rng(seed)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass over the ratings."""
        return -(-len(self.train) // BATCH)

    def _scores(self, rows: np.ndarray) -> Tensor:
        batch = self.tokenizer(
            [self.users[u] for u in self.dataset.user[rows]],
            [self.items[i] for i in self.dataset.item[rows]],
            padding="longest" if self.fast else "max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
            scores: Tensor = self.model(**batch).logits.squeeze(-1).float() + self.mean
        return scores

    def steps(self) -> Iterator[float]:
        """Train for ever; gives the seconds of each step."""
        while True:
            rows = self.order.permutation(self.train)
            for start in range(0, len(rows), BATCH):
                begun = time.perf_counter()
                chosen = rows[start : start + BATCH]
                self.model.train()
                target = torch.from_numpy(self.dataset.rating[chosen]).float()
                loss = torch.nn.functional.mse_loss(self._scores(chosen), target)
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                yield time.perf_counter() - begun

    @torch.no_grad()
    def rmse(self) -> float:
        """Root mean squared error on the validation rows."""
        self.model.eval()
        squares = []
        for start in range(0, len(self.valid), 64):
            rows = self.valid[start : start + 64]
            squares.append((self._scores(rows).numpy() - self.dataset.rating[rows]) ** 2)
        return float(np.sqrt(np.concatenate(squares).mean()))


def mtrec_epochs(dataset: Dataset, encoding: Encoding, scenario: Scenario) -> tuple[list[float], list[float]]:
    """Train mtrec; seconds of each epoch (validation left out) and validation RMSE after it."""
    from mtrec.evaluation import metrics
    from mtrec.evaluation.predict import predict
    from mtrec.models.store import new_model
    from mtrec.stages.fine_tune import validation
    from mtrec.training.loop import Trainer

    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    skills = validation(scenario, encoding)
    seconds: list[float] = []
    rmse: list[float] = []
    begun = time.perf_counter()

    def validate(model: Any, view: Any, catalogue: Any) -> dict[str, float]:
        nonlocal begun
        seconds.append(time.perf_counter() - begun)
        rows, _ = predict(model, view, catalogue, scenario.tasks, VALID, scenario.model.history, max_ranked=1)
        rmse.append(metrics.regression(rows["rating"].target, rows["rating"].predicted)["rmse"])
        found = skills(model, view, catalogue)
        begun = time.perf_counter()
        return found

    Trainer(bundle, view, catalogue, validate=validate).fit()
    return seconds, rmse


def main() -> None:
    """Measure and print one JSON line per finding."""
    parser = argparse.ArgumentParser(description="Measure mtrec against the usual fine-tuning script.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12, help="steps of the usual script that are timed")
    parser.add_argument("--epochs", type=int, default=None, help="epochs of mtrec; default: the scenario's")
    parser.add_argument("--minutes", type=float, default=0.0, help="train the usual script for so long")
    parser.add_argument("--fast", action="store_true", help="less padding and bf16 in these minutes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = ["split.by=random", "split.test=0.1", "split.valid=0.02", f"split.seed={given.seed}"]
    settings += [f"training.seed={given.seed}"] + ([f"training.epochs={given.epochs}"] if given.epochs else [])
    scenario = load_scenario("video", settings)
    dataset, encoding = prepare(clean(read_source(scenario, given.data))[0], scenario)

    usual = Usual(dataset, given.seed)
    clock, taken = usual.steps(), []
    for _ in range(given.steps + 2):
        taken.append(next(clock))
    per_epoch = float(np.median(taken[2:])) * usual.steps_per_epoch
    tell(
        method="usual script",
        threads=torch.get_num_threads(),
        seconds_per_step=float(np.median(taken[2:])),
        steps_per_epoch=usual.steps_per_epoch,
        seconds_per_epoch=per_epoch,
    )
    seconds, rmse = mtrec_epochs(dataset, encoding, scenario)
    ours = float(np.median(seconds))
    tell(method="mtrec, all tasks", seconds_per_epoch=ours, epochs=len(seconds), ratio=per_epoch / ours, rmse=rmse)
    spent, step, next_look = sum(taken), len(taken), 0.0
    usual.fast = given.fast
    while spent < 60 * given.minutes:
        spent, step = spent + next(clock), step + 1
        if spent >= next_look:
            share = step / usual.steps_per_epoch
            tell(method="usual script", minutes=spent / 60, epoch=share, rmse=usual.rmse())
            next_look = spent + 600


def tell(**found: Any) -> None:
    """Print a finding as one JSON line."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
