"""What a balancing method costs: seconds per step against the plain sum, side by side in one process.

All methods take their steps on the same batches of the five tasks of scenario `video`, by turns, so that whatever
else the machine does meets all of them. The ratio is that of medians.

    python -m benchmarks.balancers --data FOLDER [--rounds 12] [--methods famo pcgrad cagrad]
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mtrec.balancing.methods import METHODS
from mtrec.config import load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer


def measure(data: Path, methods: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, by method."""
    scenario = load_scenario("video", ["split.by=random", "training.compare_every=0"])
    dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    trainers = {}
    for method in methods:
        own = scenario.model_copy(update={"training": scenario.training.model_copy(update={"balancing": method})})
        mine = replace(bundle, model=copy.deepcopy(bundle.model), scenario=own)
        texts = replace(catalogue, text_NE=catalogue.text_NE.clone())
        trainers[method] = Trainer(mine, view, texts, validate=lambda *_: {})
    batches = list(trainers[methods[0]].batches.epoch(0))
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    for turn in range(rounds + 2):
        for method in np.random.default_rng(turn).permutation(methods):
            begun = time.perf_counter()
            trainers[method].train_step(batches[turn % len(batches)])
            if turn >= 2:  # the first steps warm up
                seconds[method].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    """Measure and print one JSON line per method."""
    parser = argparse.ArgumentParser(description="Measure the cost of balancing methods.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=[m for m in METHODS if m != "static"])
    given = parser.parse_args()
    seconds = measure(given.data, ["static", *given.methods], given.rounds)
    plain = float(np.median(seconds["static"]))
    print(json.dumps({"threads": torch.get_num_threads(), "steps": given.rounds, "seconds of the sum": plain}))
    for method in given.methods:
        print(json.dumps({"method": method, "ratio": round(float(np.median(seconds[method])) / plain, 3)}))


if __name__ == "__main__":
    main()
