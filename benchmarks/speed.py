"""What each way of encoding less text saves, measured side by side in one process.

On the simulated shop (scenario `ecommerce`) and on the film titles of movielens-latest-small (scenario `video`), a
whole training step and a refresh of all text vectors are timed with

    none     every chosen text through all layers, padded to the longest of the step
    dedup    equal texts of a step once
    length   texts of similar length together, each group padded to its own longest
    cache    frozen layers once per text
    all      all three, as training runs by default

The variants take turns, block by block, on the same batches and in the same process, so that whatever else the
machine does falls on all of them. A variant's ratio is the median over blocks of its time in a block divided into
that of `none` in the same block. CPU time is what the process used; wall time is what passed.

    python -m benchmarks.speed                                  # both, one thread
    python -m benchmarks.speed --data ecommerce --blocks 10 --threads 2 --out runs/speed.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mtrec.config import Scenario, load_scenario

ROOT = Path(__file__).resolve().parents[1]
VARIANTS = ("none", "dedup", "length", "cache", "all")
SCENARIOS = {"ecommerce": "ecommerce", "movielens-latest-small": "video"}


def measure(
    name: str,
    scenario: Scenario,
    data: Path | None,
    *,
    blocks: int,
    steps: int,
    refreshes: int,
    variants: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Results of one data set: one dict per kind of work and variant.

    Args:
        name: of the data set, for the results.
        scenario: its tasks and settings.
        data: its folder; None for simulated data.
        blocks: how often each variant has its turn.
        steps: training steps per turn.
        refreshes: in how many of the blocks a refresh is timed, too.
        variants: some of `VARIANTS`; `none` is always measured.
    """
    import torch

    from mtrec.data.cleaning import clean
    from mtrec.data.dataset import prepare
    from mtrec.data.sources import read_source
    from mtrec.models.state_cache import StateCache
    from mtrec.models.store import new_model
    from mtrec.training.loop import Trainer

    variants = ["none", *(v for v in variants if v != "none")]
    dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    encoder = bundle.model.encoder
    trainer = Trainer(bundle, view, catalogue, validate=lambda *_: {})
    trainer.total_steps = trainer.progress.total_steps = 10**6
    encoder.reuse(StateCache(None, 2**31))
    encoder.encode_all(catalogue.tokens)
    frozen = encoder.frozen
    batches = [rows for epoch in range(3) for rows in trainer.batches.epoch(epoch)]

    def step(number: int) -> None:
        for rows in batches[(number * steps) % len(batches) :][:steps]:
            trainer.train_step(rows)

    def refresh(number: int) -> None:
        encoder.encode_all(catalogue.tokens)

    kinds = {"step": step, "refresh": refresh}
    times: dict[str, dict[str, list[tuple[float, float]]]] = {kind: {v: [] for v in variants} for kind in kinds}
    for block in range(-1, blocks):  # one to warm up
        turn = block % len(variants)
        for variant in [*variants[turn:], *variants[:turn]]:
            encoder.frozen = frozen if variant in ("cache", "all") else None
            with _switched(variant):
                for work, run in kinds.items():
                    if work == "refresh" and (block < 0 or block >= refreshes):
                        continue
                    taken = _timed(run, max(block, 0))
                    if block >= 0:
                        times[work][variant].append(taken)
    about = {
        "data": name,
        "texts": len(catalogue.tokens),
        "texts_per_step": scenario.training.texts_per_step,
        "precision": str(encoder.precision)[6:],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for work, by_variant in times.items():
        per = steps if work == "step" else 1
        base = np.array(by_variant["none"])
        for variant, taken in by_variant.items():
            seconds = np.array(taken)
            yield {
                **about,
                "work": work,
                "variant": variant,
                "cpu_seconds": round(float(np.median(seconds[:, 0])) / per, 4),
                "seconds": round(float(np.median(seconds[:, 1])) / per, 4),
                "cpu_speedup": round(float(np.median(base[:, 0] / seconds[:, 0])), 2),
                "speedup": round(float(np.median(base[:, 1] / seconds[:, 1])), 2),
                "blocks": len(taken),
            }


def _timed(run: Callable[[int], None], number: int) -> tuple[float, float]:
    """CPU seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run(number)
    return time.process_time() - cpu, time.perf_counter() - wall


@contextmanager
def _switched(variant: str) -> Iterator[None]:
    """The encoder with only some of its savings."""
    with ExitStack() as stack:
        if variant not in ("dedup", "all"):
            stack.enter_context(mock.patch("mtrec.models.encoder.distinct", _as_they_are))
        if variant not in ("length", "all"):
            stack.enter_context(mock.patch("mtrec.models.encoder.length_groups", _one))
        yield


def _as_they_are(tokens: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    return list(tokens), list(range(len(tokens)))


def _one(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    return [list(range(len(lengths)))]


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as one Markdown table per data set."""
    lines = []
    for name in dict.fromkeys(r["data"] for r in results):
        rows = [r for r in results if r["data"] == name]
        first = rows[0]
        lines += [
            "",
            f"**{name}**: {first['texts']:,} texts, {first['texts_per_step']} per step, {first['precision']}, "
            f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}, torch {first['torch']}",
            "",
            "| work | variant | CPU s | wall s | faster (CPU) | faster (wall) | blocks |",
            "|---" * 7 + "|",
        ]
        for r in rows:
            lines.append(
                f"| {r['work']} | {r['variant']} | {r['cpu_seconds']:.3f} | {r['seconds']:.3f} "
                f"| {r['cpu_speedup']:.2f} × | {r['speedup']:.2f} × | {r['blocks']} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Measure what encoding less text saves.")
    parser.add_argument("--data", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--blocks", type=int, default=8, help="turns of each variant")
    parser.add_argument("--steps", type=int, default=3, help="training steps per turn")
    parser.add_argument("--refreshes", type=int, default=2, help="blocks in which a refresh is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    parser.add_argument("--out", type=Path, metavar="FILE", help="add each JSON line to this file, too")
    options = parser.parse_args(arguments)
    home = Path(os.environ.get("MTREC_DATA") or ROOT.parent / "shared" / "data")
    import torch

    torch.set_num_threads(options.threads)
    results = []
    for name in options.data:
        folder = None if name == "ecommerce" else home / name
        if folder and not folder.is_dir():
            parser.error(f"no such folder: {folder}; set MTREC_DATA")
        scenario = load_scenario(ROOT / "scenarios" / f"{SCENARIOS[name]}.yaml", options.set)
        amounts = {"blocks": options.blocks, "steps": options.steps, "refreshes": options.refreshes}
        for result in measure(name, scenario, folder, variants=options.variants, **amounts):
            line = json.dumps(result)
            print(line, flush=True)
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            results.append(result)
    print(table(results))


if __name__ == "__main__":
    main()
