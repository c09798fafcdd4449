"""After drift: the old champion as it is, full retraining, and retraining that starts from the champion.

Each seed draws a shop (scenario `ecommerce`) of 26 weeks in which likings move (`source.options.drift`). A champion
is trained on the first `--known` weeks, as a pipeline would, with a validation and a test part of its own. Then the
weeks up to `--weeks` come in, and the data is split anew by time. All models answer the same newest rows, the test
part of the new split:

    champion        as it is, through its own vocabularies
    full            trained anew from the pretrained encoder
    warm            trained on the same rows for as many epochs, but from the champion's weights (`training.start`)
    full, N epochs  the same two with fewer epochs (`--fewer`), to tell what the start does
    warm, N epochs  from what fewer epochs do

Seconds are from the encoding of the item texts to the last epoch, one after the other on the same machine.

    python -m benchmarks.retraining --seeds 0 1 2 --out runs/retraining.jsonl
    python -m benchmarks.retraining --table runs/retraining.jsonl        # prints the tables, measures nothing
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.alone import verdict
from benchmarks.common import ROOT, Results, add_output_options, print_tables
from benchmarks.primaries import primaries, primaries_of
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.store import load_model, save_model
from mtrec.stages.evaluate import answers
from mtrec.stages.fine_tune import trainer_for
from mtrec.stages.parents import Parent
from mtrec.stages.starting import start_for

DAYS = 182
CHAMPION, FULL, WARM = "champion", "full", "warm"


def measure(scenario: Scenario, known: float, weeks: float, fewer: int) -> Iterator[dict[str, Any]]:
    """One result per model, with the primary metric of every task on the new test part.

    Args:
        scenario: settings of all of them; its source makes the shop.
        known: weeks that the champion learns from.
        weeks: weeks of data when it is retrained.
        fewer: epochs of the short trainings.
    """
    tables = read_source(scenario, None)
    dataset, encoding = prepare(_until(tables, weeks), scenario)
    with tempfile.TemporaryDirectory() as folder:
        champion = Path(folder) / "champion"
        started = time.perf_counter()
        own = prepare(_until(tables, known), scenario)
        bundle, trainer = trainer_for(*own, scenario)
        end = trainer.fit()
        seconds = time.perf_counter() - started
        save_model(champion, bundle, own[0], trainer.data.catalogue, {})
        said = answers(load_model(champion), dataset, encoding, scenario.tasks)
        yield {
            "model": CHAMPION,
            "seconds": round(seconds, 1),
            "best_epoch": end.best_epoch,
            "metrics": primaries_of(said, dataset, encoding, scenario),
        }
        short = scenario.model_copy(update={"training": scenario.training.model_copy(update={"epochs": fewer})})
        for settings, suffix in ((scenario, ""), (short, f", {fewer} epochs")):
            for name in (FULL, WARM):
                parent = Parent(name="champion", bundle=load_model(champion), digest="") if name == WARM else None
                started = time.perf_counter()
                start = start_for(dataset, encoding, settings, champion=parent)
                _, trainer = trainer_for(dataset, encoding, settings, start=start)
                end = trainer.fit()
                yield {
                    "model": name + suffix,
                    "seconds": round(time.perf_counter() - started, 1),
                    "best_epoch": end.best_epoch,
                    "metrics": primaries(trainer, dataset, encoding, settings),
                }


def _until(tables: Tables, weeks: float) -> Tables:
    """What was known after so many weeks; items and users are known from the start."""
    when = pl.col("timestamp")
    rows = tables.interactions.filter(when < when.min() + timedelta(weeks=weeks))
    return clean(replace(tables, interactions=rows))[0]


def gain(reference: dict[str, Any], value: dict[str, Any]) -> float:
    """How much better a value is, as a share of the reference; negative where it is worse."""
    difference = (value["value"] - reference["value"]) / abs(reference["value"])
    return float(difference if reference["higher_is_better"] else -difference)


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: gains over the champion, differences from full retraining, and time."""
    by = {(r["model"], r["seed"]): r for r in results}
    models = list(dict.fromkeys(r["model"] for r in results))
    seeds = [s for s in sorted({r["seed"] for r in results}) if all((m, s) in by for m in models)]
    if not seeds:
        return "no seed has all models yet\n"
    lines = ["", f"Gain over the old champion on the new test part, seeds {', '.join(map(str, seeds))}", ""]
    lines += _gains(by, seeds, models[0], models[1:])
    lines += ["", "Against full retraining", ""]
    lines += _gains(by, seeds, FULL, [model for model in models if model not in (CHAMPION, FULL)])
    lines += ["", "| trained | seconds | of full retraining (each seed) | best epoch (each seed) |"]
    lines += ["|---|---:|---|---|"]
    for model in models[1:]:
        ratios = [by[model, s]["seconds"] / by[FULL, s]["seconds"] for s in seeds]
        lines.append(
            f"| {model} | {mean(by[model, s]['seconds'] for s in seeds):.0f} "
            f"| {mean(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)}) "
            f"| {', '.join(str(by[model, s]['best_epoch']) for s in seeds)} |"
        )
    return "\n".join(lines) + "\n"


def _gains(
    by: dict[tuple[str, int], dict[str, Any]], seeds: Sequence[int], reference: str, models: Sequence[str]
) -> Iterator[str]:
    yield "| task | metric | " + " | ".join([reference, *models]) + " |"
    yield "|---|---|---:|" + "---|" * len(models)
    for task, first in by[reference, seeds[0]]["metrics"].items():
        cells = [f"{mean(by[reference, s]['metrics'][task]['value'] for s in seeds):.4f}"]
        for model in models:
            pairs = [(by[reference, s]["metrics"][task], by[model, s]["metrics"].get(task)) for s in seeds]
            gains = np.array([gain(a, b) for a, b in pairs if a["value"] and b])
            each = ", ".join(f"{value:+.1%}" for value in gains)
            cells.append(f"{gains.mean():+.1%} ({each}), {verdict(gains)}" if len(gains) else "–")
        yield f"| {task} | {first['metric']} {'↑' if first['higher_is_better'] else '↓'} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per model and seed, then the tables."""
    parser = argparse.ArgumentParser(description="Compare warm starts with full retraining after drift.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--drift", type=float, default=2.0, help="dial of the simulator, standard deviations")
    parser.add_argument("--known", type=float, default=16, help="weeks that the champion learns from, of 26")
    parser.add_argument("--weeks", type=float, default=26, help="weeks of data when it is retrained")
    parser.add_argument("--fewer", type=int, default=2, help="epochs of the short trainings")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if options.table:
        print_tables(parser, options.table, table, ("model", "seed", "seconds", "metrics"))
        return
    if not 0 < options.known < options.weeks <= DAYS / 7:
        parser.error(f"--known {options.known:g} and --weeks {options.weeks:g}: 0 < known < weeks ≤ {DAYS // 7}")
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    for seed in options.seeds:
        dials = {"seed": seed, "drift": options.drift, "days": DAYS}
        settings = ["training.compare_every=0", f"training.seed={seed}"]
        settings += [*(f"source.options.{dial}={value}" for dial, value in dials.items()), *options.set]
        scenario = load_scenario(ROOT / "scenarios" / "ecommerce.yaml", settings)
        for result in measure(scenario, options.known, options.weeks, options.fewer):
            about = {"seed": seed, "drift": options.drift, "known": options.known, "weeks": options.weeks}
            results.add(about | {"torch": torch.__version__} | result)
    print(table(results.all))


if __name__ == "__main__":
    main()
