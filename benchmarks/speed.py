"""What each way of encoding less text saves, measured side by side in one process.

On the simulated shop (scenario `ecommerce`) and on the film titles of movielens-latest-small (scenario `video`), a
whole training step, the encoder of one (forward and backward) and a refresh of all text vectors are timed with

    none     every chosen text through all layers, padded to the longest of the step
    dedup    equal texts once
    length   texts of similar length together, each group padded to its own longest
    cache    frozen layers once per text
    all      all three, as training runs by default
    pieces   all, with activations of 8 texts at a time (training.texts_at_once), when asked for by --variants
    compiled all, with compiled layers (training.compile), when asked for by --variants

The variants take turns, block by block, on the same batches and in the same process, so that whatever else the
machine does falls on all of them. A variant's ratio is the median over blocks of the time of `none` in a block
divided by its own in the same block. CPU time is what the process used; wall time is what passed.

Then, how far vectors are from those of fp32: with bf16 products, and with bf16 products and kept bf16 states.

    python -m benchmarks.speed                                  # both, one thread
    python -m benchmarks.speed --data ecommerce --blocks 10 --threads 2 --out runs/speed.jsonl
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.common import ROOT, Results, add_output_options, folders_of
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.encoder import TextEncoder, transformer_layers
from mtrec.models.state_cache import StateCache
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer

VARIANTS = ("none", "dedup", "length", "cache", "all")
MORE = ("pieces", "compiled")
"""Variants of `all` that are measured when asked for."""
KINDS = ("step", "encoding", "refresh")
SCENARIOS = {"ecommerce": "ecommerce", "movielens-latest-small": "video"}
COMPARED = 1000
"""Texts whose vectors are compared between precisions."""


class Work:
    """A model in training, and what is timed of it. Every method does the same amount for the same block."""

    def __init__(self, scenario: Scenario, data: Path | None, steps: int) -> None:
        dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
        bundle, view, self.catalogue = new_model(dataset, encoding, scenario)
        self.encoder, self.steps = bundle.model.encoder, steps
        self.trainer = Trainer(bundle, view, self.catalogue, validate=lambda *_: {})
        self.trainer.total_steps = 10**6
        self.batches = [rows for epoch in range(3) for rows in self.trainer.batches.epoch(epoch)]
        self.frozen = self.encoder.frozen
        self.texts_per_step = min(scenario.training.texts_per_step, len(self.catalogue.tokens))

    def step(self, block: int) -> None:
        """Some training steps."""
        for number in range(block * self.steps, (block + 1) * self.steps):
            self.trainer.train_step(self.batches[number % len(self.batches)])

    def encoding(self, block: int) -> None:
        """The encoder's part of as many steps."""
        rng = np.random.default_rng(block)
        self.encoder.train()
        for _ in range(self.steps):
            rows = rng.choice(len(self.catalogue.tokens), self.texts_per_step, replace=False)
            self.encoder([self.catalogue.tokens[i] for i in rows]).sum().backward()
            self.encoder.zero_grad()

    def refresh(self, block: int) -> None:
        """All text vectors anew."""
        self.encoder.encode_all(self.catalogue.tokens)

    @contextmanager
    def switched(self, variant: str) -> Iterator[None]:
        """With only some of the savings."""
        self.encoder.frozen = self.frozen if variant in ("cache", "all", *MORE) else None
        self.encoder.texts_at_once = 8 if variant == "pieces" else 0
        with ExitStack() as stack:
            if variant != "compiled":
                for layer in transformer_layers(self.encoder.backbone):
                    stack.enter_context(mock.patch.dict(layer.__dict__, _compiled_call_impl=None))
            if variant not in ("dedup", "all", *MORE):
                stack.enter_context(mock.patch("mtrec.models.encoder.distinct", _as_they_are))
            if variant not in ("length", "all", *MORE):
                stack.enter_context(mock.patch("mtrec.models.encoder.length_groups", _one))
            yield


def measure(
    work: Work, *, blocks: int, refreshes: int, variants: Sequence[str] = VARIANTS
) -> Iterator[dict[str, Any]]:
    """One result per kind of work and variant.

    Args:
        work: what to time.
        blocks: how often each variant has its turn.
        refreshes: in how many of the blocks a refresh is timed, too.
        variants: some of `VARIANTS` and `MORE`; `none` is always measured.
    """
    variants = ["none", *(v for v in variants if v != "none")]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {(k, v): [] for k in KINDS for v in variants}
    for block in range(-1, blocks):  # one to warm up
        turn = block % len(variants)
        for variant in [*variants[turn:], *variants[:turn]]:
            with work.switched(variant):
                for kind in KINDS if 0 <= block < refreshes else KINDS[:2]:
                    taken = _timed(getattr(work, kind), max(block, 0))
                    if block >= 0:
                        times[kind, variant].append(taken)
    for (kind, variant), pairs in times.items():
        if pairs:
            seconds, base = np.array(pairs), np.array(times[kind, "none"])
            each = np.median(seconds, axis=0) / (1 if kind == "refresh" else work.steps)
            ratio = np.median(base / seconds, axis=0)
            yield {
                "kind": kind,
                "variant": variant,
                "cpu_seconds": round(float(each[0]), 4),
                "seconds": round(float(each[1]), 4),
                "cpu_speedup": round(float(ratio[0]), 2),
                "speedup": round(float(ratio[1]), 2),
                "blocks": len(pairs),
            }


def distances(encoder: TextEncoder, tokens: Sequence[Sequence[int]]) -> Iterator[dict[str, Any]]:
    """How far unit vectors are from those of fp32: the largest difference of a number, and the lowest cosine."""
    tokens = tokens[:COMPARED]
    before = encoder.precision, encoder.frozen
    encoder.reuse(None)
    encoder.precision = torch.float32
    exact = encoder.encode_all(tokens)
    for what, precision, kept in (
        ("fp32, kept states", torch.float32, True),
        ("bf16", torch.bfloat16, False),
        ("bf16, kept states", torch.bfloat16, True),
    ):
        encoder.precision = precision
        encoder.reuse(StateCache(None, 2**31) if kept else None)
        found = encoder.encode_all(tokens)
        yield {
            "kind": "distance",
            "variant": what,
            "largest": float(f"{float((found - exact).abs().max()):.2g}"),
            "mean": float(f"{float((found - exact).abs().mean()):.2g}"),
            "lowest_cosine": round(float((found * exact).sum(1).min()), 6),
            "texts": len(tokens),
        }
    encoder.precision, encoder.frozen = before


def _timed(run: Callable[[int], None], block: int) -> tuple[float, float]:
    """CPU seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run(block)
    return time.process_time() - cpu, time.perf_counter() - wall


def _as_they_are(tokens: Sequence[Sequence[int]]) -> tuple[list[Sequence[int]], list[int]]:
    return list(tokens), list(range(len(tokens)))


def _one(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    return [list(range(len(lengths)))]


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown tables, two per data set."""
    lines: list[str] = []
    for name in dict.fromkeys(r["data"] for r in results):
        rows = [r for r in results if r["data"] == name]
        first = rows[0]
        threads = f"{first['threads']} thread{'s' if first['threads'] > 1 else ''}"
        about = f"{first['items']:,} texts, {first['texts_per_step']} per step, {first['precision']}, {threads}"
        lines += ["", f"**{name}**: {about}, torch {first['torch']}", ""]
        lines += ["| work | variant | CPU s | wall s | faster (CPU) | faster (wall) | blocks |", "|---" * 7 + "|"]
        lines += [
            f"| {r['kind']} | {r['variant']} | {r['cpu_seconds']:.3f} | {r['seconds']:.3f} "
            f"| {r['cpu_speedup']:.2f} × | {r['speedup']:.2f} × | {r['blocks']} |"
            for r in rows
            if r["kind"] in KINDS
        ]
        lines += ["", "| against fp32 | largest difference | mean | lowest cosine | texts |", "|---" * 5 + "|"]
        lines += [
            f"| {r['variant']} | {r['largest']} | {r['mean']} | {r['lowest_cosine']:.6f} | {r['texts']} |"
            for r in rows
            if r["kind"] == "distance"
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Measure what encoding less text saves.")
    parser.add_argument("--data", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS, *MORE], default=list(VARIANTS))
    parser.add_argument("--blocks", type=int, default=8, help="turns of each variant")
    parser.add_argument("--steps", type=int, default=3, help="training steps per turn")
    parser.add_argument("--refreshes", type=int, default=2, help="blocks in which a refresh is timed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    add_output_options(parser, table=False)
    options = parser.parse_args(arguments)
    folders = folders_of(parser, {name: None if name == "ecommerce" else name for name in options.data})
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    for name, folder in folders.items():
        settings = ["training.compare_every=0", *options.set]
        work = Work(load_scenario(ROOT / "scenarios" / f"{SCENARIOS[name]}.yaml", settings), folder, options.steps)
        about = {
            "data": name,
            "items": len(work.catalogue.tokens),
            "texts_per_step": work.texts_per_step,
            "precision": str(work.encoder.precision)[6:],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        if "compiled" in options.variants:
            work.encoder.compile_layers()
        amounts = {"blocks": options.blocks, "refreshes": options.refreshes, "variants": options.variants}
        timed = measure(work, **amounts)
        for result in (*timed, *distances(work.encoder, work.catalogue.tokens)):
            results.add(about | result)
    print(table(results.all))


if __name__ == "__main__":
    main()
