"""A distilled student against its teacher: how much faster it encodes, and what it loses on each task.

On the simulated shop (scenario `ecommerce`), or on movielens-latest-small (scenario `video`), a teacher is
fine-tuned as always; then a student of fewer encoder layers learns from it with the settings of the scenario. Both
answer the test part. Encoding speed is measured with both in turns on the same texts. For comparison a third model
has the student's layers but no teacher: the same layers of the pretrained encoder, all fine-tuned on labels alone.

A loss is the student's primary metric against the teacher's, relative, and positive where the student is worse; the
tables give its mean over seeds.

    python -m benchmarks.distil                                   # simulated shop, seeds 0 and 1
    python -m benchmarks.distil --data movielens-latest-small --layers 2 3 --out runs/distil.jsonl
    python -m benchmarks.distil --layers --set pretraining.epochs=2          # no student: a pretrained teacher
    python -m benchmarks.distil --table runs/distil.jsonl         # prints the tables, measures nothing
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.common import ROOT, Results, add_output_options, folders_of, print_tables
from benchmarks.primaries import primaries
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import Dataset, Encoding, prepare
from mtrec.data.sources import read_source
from mtrec.models.encoder import load_encoder
from mtrec.models.store import load_model, save_model
from mtrec.models.student import cut_encoder
from mtrec.stages.fine_tune import trainer_for
from mtrec.stages.parents import find_teacher
from mtrec.stages.starting import Start, about_student, start_for

SCENARIOS = {"ecommerce": "ecommerce", "movielens-latest-small": "video"}


def measure(
    scenario: Scenario, data: Path | None, layers: Sequence[int], *, alone: bool = True
) -> Iterator[dict[str, Any]]:
    """One result for the teacher and one per student, with the primary metric of every task.

    Args:
        scenario: settings of all of them, and the seed.
        data: raw data; None lets the scenario make it.
        layers: sizes of students.
        alone: also train each size without a teacher.
    """
    dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bundle, trainer = trainer_for(dataset, encoding, scenario)
        end = trainer.fit()
        seconds = time.perf_counter() - started
        save_model(Path(folder) / "teacher", bundle, dataset, trainer.data.catalogue, {})
        yield {"model": "teacher", "seconds": round(seconds, 1), "best_epoch": end.best_epoch} | {
            "metrics": primaries(trainer, dataset, encoding, scenario)
        }
        for count in layers:
            asked = {"layers": count, "teacher": f"{folder}/teacher"}
            changed = scenario.distillation.model_copy(update=asked)
            student = scenario.model_copy(update={"distillation": changed})
            started = time.perf_counter()
            teacher = find_teacher(student)
            assert teacher is not None
            start = start_for(dataset, encoding, student, teacher=teacher)
            bundle, trainer = trainer_for(dataset, encoding, student, start=start)
            end = trainer.fit()
            seconds = time.perf_counter() - started
            save_model(Path(folder) / "student", bundle, dataset, trainer.data.catalogue, {})
            load_model(Path(folder) / "student")
            yield {
                "model": f"student of {count}",
                "seconds": round(seconds, 1),
                "best_epoch": end.best_epoch,
                "metrics": primaries(trainer, dataset, encoding, student),
                "about": about_student(teacher, start, end, trainer.validate),
            }
            if alone:
                yield {"model": f"{count} layers alone"} | _without_teacher(dataset, encoding, scenario, count)


def _without_teacher(dataset: Dataset, encoding: Encoding, scenario: Scenario, layers: int) -> dict[str, Any]:
    """The same layers of the pretrained encoder, fine-tuned on the labels alone."""
    from mtrec.models.store import new_model

    encoder = scenario.model.encoder.model_copy(update={"train_layers": layers})
    small = scenario.model_copy(update={"model": scenario.model.model_copy(update={"encoder": encoder})})
    started = time.perf_counter()
    torch.manual_seed(scenario.training.seed)
    cut = cut_encoder(load_encoder(encoder), layers, encoder)
    bundle, view, catalogue = new_model(dataset, encoding, small, encoder=cut)
    start = Start(bundle=bundle, view=view, catalogue=catalogue)
    _, trainer = trainer_for(dataset, encoding, small, start=start)
    end = trainer.fit()
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "best_epoch": end.best_epoch,
        "metrics": primaries(trainer, dataset, encoding, small),
    }


def loss(teacher: dict[str, Any], student: dict[str, Any]) -> float:
    """How much worse the student's value is, as a share of the teacher's; NaN where that is 0."""
    if not teacher["value"]:
        return math.nan
    difference = (student["value"] - teacher["value"]) / abs(teacher["value"])
    return -difference if teacher["higher_is_better"] else difference


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown, two tables per data set."""
    lines: list[str] = []
    for data in dict.fromkeys(r["data"] for r in results):
        here = [r for r in results if r["data"] == data]
        models = list(dict.fromkeys(r["model"] for r in here))
        by = {(r["model"], r["seed"]): r for r in here}
        seeds = sorted({r["seed"] for r in here})
        lines += ["", f"**{data}**, seeds {', '.join(map(str, seeds))}, torch {here[0]['torch']}", ""]
        lines += ["| task | metric | " + " | ".join(_heads(models)) + " |"]
        lines += ["|---|---|" + "---:|" * len(_heads(models))]
        for task, first in by["teacher", seeds[0]]["metrics"].items():
            cells = []
            for model in models:
                values = [by[model, seed]["metrics"][task] for seed in seeds]
                cells.append(f"{mean(v['value'] for v in values):.4f}")
                if model != "teacher":
                    losses = [
                        loss(by["teacher", seed]["metrics"][task], by[model, seed]["metrics"][task])
                        for seed in seeds
                    ]
                    cells.append(f"{mean(losses):+.1%} ({', '.join(f'{x:+.1%}' for x in losses)})")
            lines.append(
                f"| {task} | {first['metric']} {'↑' if first['higher_is_better'] else '↓'} | {' | '.join(cells)} |"
            )
        lines += [
            "",
            "| model | encoder layers | encoder parameters | texts/s | faster than the teacher | training s |",
        ]
        lines += ["|---|---:|---:|---:|---:|---:|"]
        for model in models:
            runs = [by[model, seed] for seed in seeds]
            seconds = f"{mean(r['seconds'] for r in runs):.0f}"
            if "about" in runs[0]:
                lines.append(_speed_line(model, [r["about"] for r in runs], seconds))
            else:
                lines.append(f"| {model} | | | | | {seconds} |")
    return "\n".join(lines) + "\n"


def _heads(models: Sequence[str]) -> list[str]:
    return [head for model in models for head in ([model] if model == "teacher" else [model, "loss (each seed)"])]


def _speed_line(model: str, about: Sequence[dict[str, Any]], seconds: str) -> str:
    speeds = [a["texts_per_second"] for a in about]
    ratio = mean(s["student"] / s["teacher"] for s in speeds)
    layers, size = about[0]["layers"], about[0]["parameters"]
    return (
        f"| {model} | {layers['student']} of {layers['teacher']} | {size['student']:,} of {size['teacher']:,} "
        f"| {mean(s['student'] for s in speeds):.0f}, teacher {mean(s['teacher'] for s in speeds):.0f} "
        f"| {ratio:.2f} × | {seconds} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Compare a distilled student with its teacher.")
    parser.add_argument("--data", nargs="+", choices=list(SCENARIOS), default=["ecommerce"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--layers", nargs="*", type=int, default=[2], help="none: only the teacher")
    parser.add_argument(
        "--no-alone", action="store_true", help="leave out models of the same size without a teacher"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if options.table:
        print_tables(parser, options.table, table, ("data", "model", "seed", "metrics"))
        return
    folders = folders_of(parser, {name: None if name == "ecommerce" else name for name in options.data})
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    for name, folder in folders.items():
        for seed in options.seeds:
            settings = ["training.compare_every=0", f"training.seed={seed}", *options.set]
            scenario = load_scenario(ROOT / "scenarios" / f"{SCENARIOS[name]}.yaml", settings)
            for result in measure(scenario, folder, options.layers, alone=not options.no_alone):
                results.add({"data": name, "seed": seed, "torch": torch.__version__} | result)
    print(table(results.all))


if __name__ == "__main__":
    main()
