"""What settings do to every task: test metrics of each variant, side by side on the same data and seeds.

Each variant is a list of `--set` overrides; the first is what the others are compared with. On simulated data a
seed draws another shop, too. Early stopping, temperatures and thresholds see the validation part alone.

    python -m benchmarks.options --variants "" training.r_drop=1 --seeds 0 1 [--scenario ecommerce] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from mtrec.config import MultiLabel, NextItem, Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.data.splits import TEST
from mtrec.evaluation import metrics
from mtrec.evaluation.calibration import uncalibrated
from mtrec.evaluation.predict import predict
from mtrec.stages.fine_tune import settle, trainer_for

SHOWN = ("rmse", "auc", "log_loss", "accuracy", "lrap", "micro_f1", "macro_f1", "cosine", "ndcg@10", "ece")


def measure(scenario: Scenario, data: Path | None) -> dict[str, float]:
    """Train once; `task.metric` on the test part, and the seconds of training."""
    dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
    bundle, trainer = trainer_for(dataset, encoding, scenario)
    begun = time.perf_counter()
    trainer.fit()
    found = {"seconds": time.perf_counter() - begun}
    settle(bundle, trainer)
    model, catalogue = bundle.model.eval(), trainer.data.catalogue
    rows, rankings = predict(model, trainer.view, catalogue, scenario.tasks, TEST, scenario.model.history)
    for name, task in scenario.tasks.items():
        if isinstance(task, NextItem):
            values = metrics.ranking([user.metrics for user in rankings[name]])
        else:
            given = rows[name]
            values = metrics.compute(task, given.target, given.predicted, given.thresholds)
            if "ece" in values:
                plain = metrics.decisions(task, given.target, uncalibrated(task, given))
                values |= {"ece without temperature": metrics.expected_calibration_error(*plain)}
            if isinstance(task, MultiLabel) and task.thresholds == "per_label":
                half = metrics.compute(task, given.target, given.predicted)
                values |= {f"{key} at one half": half[key] for key in ("micro_f1", "macro_f1")}
        found |= {f"{name}.{key}": v for key, v in values.items() if key.partition(" ")[0] in SHOWN}
    return found


def main() -> None:
    """Measure and print one JSON line per variant and seed, and a table of means at the end."""
    parser = argparse.ArgumentParser(description="Measure what settings do to every task.")
    parser.add_argument("--scenario", default="ecommerce")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--variants", nargs="+", required=True, help="overrides, divided by spaces")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="*", default=[], help="overrides of all variants")
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {variant: [] for variant in given.variants}
    for seed in given.seeds:
        for variant in given.variants:
            seeds = [f"training.seed={seed}"] + ([] if given.data else [f"source.options.seed={seed}"])
            scenario = load_scenario(given.scenario, [*given.set, *seeds, *variant.split()])
            found[variant].append(measure(scenario, given.data))
            print(json.dumps({"variant": variant, "seed": seed, **found[variant][-1]}), flush=True)
    names = [variant or "(as set)" for variant in given.variants]
    print("| metric | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for key in next(iter(found.values()))[0]:
        means = [np.mean([run[key] for run in runs if key in run]) for runs in found.values()]
        print(f"| {key} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
