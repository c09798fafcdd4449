"""What share of the tokens that a training step encodes is padding: a bound on what packed attention could save.

Of one epoch, on the simulated shop (scenario `ecommerce`) and on the film titles of movielens-latest-small
(scenario `video`): the texts of every step are drawn as training draws them, equal ones count once, and the rest is
grouped as the encoder groups it on a processor (cpu), on a GPU (cuda), and not at all (one group). Tokens are
counted; no model runs.

    python -m benchmarks.padding
    python -m benchmarks.padding --set training.texts_per_step=256
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, folders_of
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.encoder import GROUP_TOKENS, bundled_minilm
from mtrec.models.text_batches import Tokens, distinct, length_batches, length_groups
from mtrec.training.batches import SequenceBatches

SCENARIOS = {"ecommerce": "ecommerce", "movielens-latest-small": "video"}
OVERHEADS = {"one group": 10**9, **GROUP_TOKENS}


def steps(scenario: Scenario, data: Path | None) -> tuple[Tokens, Iterator[np.ndarray]]:
    """Tokens of all texts, and the items that each step of an epoch encodes."""
    from transformers import AutoTokenizer

    dataset, _ = prepare(clean(read_source(scenario, data))[0], scenario)
    tokenizer = AutoTokenizer.from_pretrained(str(bundled_minilm()))
    texts = dataset.items["text"].to_list()
    tokens: Tokens = tokenizer(texts, truncation=True, max_length=scenario.model.encoder.max_length)["input_ids"]
    settings, rng = scenario.training, np.random.default_rng(scenario.training.seed)
    batches = SequenceBatches(
        dataset.user,
        dataset.part,
        window=scenario.model.history,
        batch_size=settings.batch_size,
        seed=settings.seed,
        shuffle_rows=scenario.split.by == "random",
    )
    present = (np.unique(dataset.item[rows_BT[rows_BT >= 0]]) for rows_BT in batches.epoch(0))
    return tokens, (rng.permutation(items)[: settings.texts_per_step] for items in present)


def padding(tokens: Tokens, groups: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Real tokens of texts in groups, and tokens with padding."""
    lengths = [[len(tokens[i]) for i in group] for group in groups]
    return sum(map(sum, lengths)), sum(max(group) * len(group) for group in lengths)


def measure(tokens: Tokens, chosen: Sequence[Sequence[int]]) -> dict[str, float]:
    """Share of padding by way of grouping, and in a refresh of all texts."""
    counts = {name: np.zeros(2, dtype=int) for name in OVERHEADS}
    for items in chosen:
        kept, _ = distinct([tokens[i] for i in items])
        for name, overhead in OVERHEADS.items():
            counts[name] += padding(kept, length_groups([len(row) for row in kept], overhead))
    everything, _ = distinct(tokens)
    counts["refresh"] = np.array(padding(everything, list(length_batches(everything, 4096))))
    return {name: 1 - real / padded for name, (real, padded) in counts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Measure what share of encoded tokens is padding.")
    parser.add_argument("--data", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    options = parser.parse_args(arguments)
    folders = folders_of(parser, {name: None if name == "ecommerce" else name for name in options.data})
    print("| data | texts per step | tokens per text | " + " | ".join([*OVERHEADS, "refresh"]) + " |")
    print("|---" * (4 + len(OVERHEADS)) + "|")
    for name, folder in folders.items():
        scenario = load_scenario(ROOT / "scenarios" / f"{SCENARIOS[name]}.yaml", options.set)
        tokens, drawn = steps(scenario, folder)
        chosen = list(drawn)
        sizes = np.mean([len(items) for items in chosen]), np.mean([len(row) for row in tokens])
        found = measure(tokens, chosen)
        shares = " | ".join(f"{share:.1%}" for share in found.values())
        print(f"| {name} | {sizes[0]:.0f} | {sizes[1]:.1f} | {shares} |")


if __name__ == "__main__":
    main()
