"""All tasks together against every task alone: what joining them costs, and what each task gains or loses by it.

Same rows, settings, seed and machine; a task alone is the same model with one head. A run alone is judged, stopped
early and measured by its own task only, so it has every chance to beat the joint model at it.

    shop       the simulated shop, scenario `ecommerce`; the seed also makes the data
    films      movielens-latest-small, scenario `video`, random split; the seed also draws the split
    tweetings  movietweetings-100k, the same

Cost is the time of a training step, in turns on the same batches, so that whatever else the machine does meets all
of them; the ratio is that of medians. Quality is each task's primary metric on the test part. Seeds are compared
one by one: a difference counts as beyond chance where Student's 95 % interval of its mean over seeds leaves out 0.

    python -m benchmarks.alone --cost                               # step times only: minutes
    python -m benchmarks.alone --data films --seeds 0 1 2 --out runs/alone.jsonl     # an hour or more
    python -m benchmarks.alone --table runs/alone.jsonl             # prints the tables, measures nothing
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from benchmarks.common import ROOT, Results, add_output_options, folders_of, print_tables
from benchmarks.primaries import primaries
from benchmarks.turns import step_seconds
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.store import new_model
from mtrec.stages.fine_tune import trainer_for
from mtrec.training.loop import Trainer

FOLDERS = {"shop": None, "films": "movielens-latest-small", "tweetings": "movietweetings-100k"}
ALL = "all tasks"


def scenario_of(data: str, seed: int, overrides: Sequence[str]) -> Scenario:
    """The settings of one data set and seed."""
    own = [f"source.options.seed={seed}"] if data == "shop" else ["split.by=random", f"split.seed={seed}"]
    name = "ecommerce" if data == "shop" else "video"
    settings = ["training.compare_every=0", f"training.seed={seed}", *own, *overrides]
    return load_scenario(ROOT / "scenarios" / f"{name}.yaml", settings)


def variants(scenario: Scenario) -> dict[str, Scenario]:
    """The scenario with all of its tasks, and with each one alone."""
    alone = {name: scenario.model_copy(update={"tasks": {name: task}}) for name, task in scenario.tasks.items()}
    return {ALL: scenario, **alone}


def qualities(tables: Tables, scenario: Scenario) -> Iterator[dict[str, Any]]:
    """Train every variant to its end; the metrics of its tasks on the test part."""
    for name, own in variants(scenario).items():
        started = time.perf_counter()
        dataset, encoding = prepare(tables, own)
        _, trainer = trainer_for(dataset, encoding, own)
        end = trainer.fit()
        yield {
            "kind": "quality",
            "trained": name,
            "best_epoch": end.best_epoch,
            "epochs": end.epoch,
            "seconds": round(time.perf_counter() - started, 1),
            "metrics": primaries(trainer, dataset, encoding, own),
        }


def costs(tables: Tables, scenario: Scenario, rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds of a training step of every variant, taking turns."""
    trainers: dict[str, Trainer] = {}
    for name, own in variants(scenario).items():
        dataset, encoding = prepare(tables, own)
        bundle, view, catalogue = new_model(dataset, encoding, own)
        trainers[name] = Trainer(bundle, view, catalogue, validate=lambda *_: {})
    for name, found in step_seconds(trainers, rounds).items():
        yield {"kind": "cost", "trained": name, "step_seconds": float(np.median(found)), "rounds": rounds}


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: costs, then one table of qualities per data set."""
    lines: list[str] = []
    for data in dict.fromkeys(r["data"] for r in results):
        here = [r for r in results if r["data"] == data]
        lines += _cost_table(data, {r["trained"]: r["step_seconds"] for r in here if r["kind"] == "cost"})
        lines += _quality_table(data, {(r["trained"], r["seed"]): r for r in here if r["kind"] == "quality"})
    return "\n".join(lines) + "\n"


def _cost_table(data: str, seconds: dict[str, float]) -> Iterator[str]:
    if not seconds:
        return
    dearest = max(value for name, value in seconds.items() if name != ALL)
    yield from [
        "",
        f"**{data}**: cost of a step",
        "",
        "| trained | seconds | against the dearest task |",
        "|---|---:|---:|",
    ]
    for name, value in seconds.items():
        yield f"| {name} | {value:.3f} | {value / dearest:.2f} |"


def _quality_table(data: str, runs: dict[tuple[str, int], dict[str, Any]]) -> Iterator[str]:
    tasks = [name for name in dict.fromkeys(trained for trained, _ in runs) if name != ALL]
    if not tasks:
        return
    yield from ["", f"**{data}**: together and alone", ""]
    yield "| task | metric | together | alone | gain by joining (each seed) | seeds | |"
    yield "|---|---|---:|---:|---|---:|---|"
    for task in tasks:
        seeds = [s for trained, s in runs if trained == task and (ALL, s) in runs]
        pairs = [(runs[ALL, s]["metrics"].get(task), runs[task, s]["metrics"].get(task)) for s in seeds]
        known = [(a, b) for a, b in pairs if a and b]
        if not known:
            continue
        metric, up = known[0][0]["metric"], known[0][0]["higher_is_better"]
        joint, alone = (np.array([pair[i]["value"] for pair in known]) for i in (0, 1))
        gains = (joint - alone if up else alone - joint) / np.abs(alone)
        each = ", ".join(f"{gain:+.1%}" for gain in gains)
        yield (
            f"| {task} | {metric} {'↑' if up else '↓'} | {joint.mean():.4f} | {alone.mean():.4f} "
            f"| {gains.mean():+.1%} ({each}) | {len(known)} | {verdict(gains)} |"
        )


def verdict(gains: np.ndarray) -> str:
    """`better`, `worse`, or `within chance` by Student's 95 % interval of the mean over seeds."""
    if len(gains) < 2:
        return "one seed"
    half = stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    if abs(gains.mean()) <= half:
        return "within chance"
    return "better" if gains.mean() > 0 else "worse"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Compare joint training with single-task training.")
    parser.add_argument("--data", nargs="+", choices=list(FOLDERS), default=list(FOLDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cost", action="store_true", help="measure step times only, with the first seed")
    parser.add_argument("--rounds", type=int, default=20, help="steps that are timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if options.table:
        print_tables(parser, options.table, table, ("data", "kind", "trained", "seed"))
        return
    folders = folders_of(parser, {data: FOLDERS[data] for data in options.data})
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    for data in folders:
        for seed in options.seeds[:1] if options.cost else options.seeds:
            scenario = scenario_of(data, seed, options.set)
            tables = clean(read_source(scenario, folders[data]))[0]
            measured = costs(tables, scenario, options.rounds) if options.cost else qualities(tables, scenario)
            for result in measured:
                results.add({"data": data, "seed": seed, "torch": torch.__version__} | result)
    print(table(results.all))


if __name__ == "__main__":
    main()
