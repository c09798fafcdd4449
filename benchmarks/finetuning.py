"""Fine-tuning every layer of an encoder: tokens per second and model FLOP utilisation against the usual Trainer.

Both learn the same: the tags of simulated items from their texts, with a BERT of the same size and random weights
(speed does not depend on them), so many texts a step, in bf16, with a fused AdamW. The Trainer is set up as well as
its options allow: texts of similar length together, padded to the longest of the batch. mtrec runs its whole step,
towers and history included. They take turns. Tokens are those of the texts, without padding.

Model FLOPs are 6 per parameter of the encoder's layers and token, and 12 · layers · width · length² per text for
attention (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); utilisation is their rate over the device's dense
bf16 peak, from NVIDIA's data sheets or --peak.

    python -m benchmarks.finetuning                                   # BERT-base on a GPU
    python -m benchmarks.finetuning --layers 2 --texts 16 --steps 5   # small enough for a CPU
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import Result, Results, add_output_options
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.encoder import bundled_minilm, transformer_layers
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 FLOP per second by a part of the device's name; NVIDIA's data sheets of the SXM or only version."""
WARM = 3
"""Steps before the clock starts."""


def save_encoder(folder: Path, layers: int, width: int) -> Path:
    """A BERT of some size with random weights, with the tokenizer of the bundled MiniLM, as a folder."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(bundled_minilm())
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def scenario_of(encoder: Path, layers: int, texts: int, overrides: Sequence[str] = ()) -> Scenario:
    """The shop with tags alone to learn, every layer and many texts a step."""
    scenario = load_scenario(
        "ecommerce",
        [
            "source.options.num_items=4000",
            f"model.encoder={{name: '{encoder}', max_length: 128, train_layers: {layers}}}",
            f"training.texts_per_step={texts}",
            f"training.batch_size={max(texts // 8, 16)}",
            "training.compare_every=0",
            *overrides,
        ],
    )
    return scenario.model_copy(update={"tasks": {"tags": scenario.tasks["tags"]}})


class Mtrec:
    """mtrec's training step."""

    def __init__(self, scenario: Scenario) -> None:
        bundle, view, catalogue = new_model(*prepare(clean(read_source(scenario, None))[0], scenario), scenario)
        self.lengths: list[int] = []
        bundle.model.encoder.register_forward_pre_hook(self._count)
        self.trainer = Trainer(bundle, view, catalogue, validate=lambda *_: {})
        self.batches = cycle(self.trainer.batches.epoch(0))
        self.texts = catalogue.tokens
        self.labels = np.nan_to_num(view.labels["tags"].cpu().numpy())
        self.layers = transformer_layers(bundle.model.encoder.backbone)
        self.device = view.device

    def _count(self, _: nn.Module, given: tuple[Any, ...]) -> None:
        self.lengths += [len(text) for text in given[0]]

    def run(self, steps: int) -> tuple[float, list[int]]:
        """Seconds of so many steps, and the lengths of the texts in them."""
        for _ in range(WARM):
            self.trainer.train_step(next(self.batches))
        self.lengths.clear()
        begun = now(self.device)
        for _ in range(steps):
            self.trainer.train_step(next(self.batches))
        return now(self.device) - begun, list(self.lengths)


class HuggingFace:
    """The Trainer of transformers on the same texts and labels."""

    def __init__(self, folder: Path, work: Mtrec, texts: int) -> None:
        from transformers import AutoModelForSequenceClassification

        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=work.labels.shape[1], problem_type="multi_label_classification"
        )
        self.folder, self.texts, self.device = folder, texts, work.device
        pairs = zip(work.texts, work.labels.tolist(), strict=True)
        self.rows = [{"input_ids": tokens, "labels": labels} for tokens, labels in pairs]
        self.lengths: list[int] = []

    def run(self, steps: int) -> tuple[float, list[int]]:
        """Seconds of so many steps, and the lengths of the texts in them."""
        from transformers import AutoTokenizer, DataCollatorWithPadding, TrainerCallback, TrainingArguments
        from transformers import Trainer as HuggingFaceTrainer

        collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(self.folder))
        self.lengths.clear()

        def counting(rows: list[dict[str, Any]]) -> Any:
            self.lengths += [len(row["input_ids"]) for row in rows]
            return collate(rows)

        clock: list[float] = []
        device = self.device

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
                if state.global_step in (WARM, WARM + steps):
                    clock.append(now(device))

        settings = TrainingArguments(
            output_dir=str(self.folder / "runs"),
            per_device_train_batch_size=self.texts,
            max_steps=WARM + steps,
            bf16=True,
            use_cpu=self.device.type == "cpu",
            optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        HuggingFaceTrainer(
            model=self.model, args=settings, train_dataset=self.rows, data_collator=counting, callbacks=[Clock()]
        ).train()
        return clock[1] - clock[0], self.lengths[WARM * self.texts : (WARM + steps) * self.texts]


def now(device: torch.device) -> float:
    """The time, after everything that the device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def model_flops(layers: nn.ModuleList, width: int, lengths: Sequence[int]) -> float:
    """Floating-point operations of forward and backward through the layers for texts of these lengths."""
    length = np.array(lengths, dtype=float)
    parameters = sum(p.numel() for p in layers.parameters())
    return float(6 * parameters * length.sum() + 12 * len(layers) * width * (length**2).sum())


def measure(
    layers: int, width: int, texts: int, steps: int, rounds: int, peak: float | None, overrides: Sequence[str] = ()
) -> Iterator[Result]:
    """One result per method and round."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = save_encoder(Path(folder) / "bert", layers, width)
        ours = Mtrec(scenario_of(encoder, layers, texts, overrides))
        methods = {"mtrec": ours, "Hugging Face Trainer": HuggingFace(encoder, ours, texts)}
        name = torch.cuda.get_device_name(ours.device) if ours.device.type == "cuda" else "CPU"
        peak = peak or next((flops for part, flops in PEAKS.items() if part in name), None)
        for turn in range(rounds):
            for method, runner in methods.items():
                seconds, lengths = runner.run(steps)
                flops = model_flops(ours.layers, width, lengths)
                yield {
                    "method": method,
                    "round": turn,
                    "device": name,
                    "layers": layers,
                    "width": width,
                    "texts_per_step": round(len(lengths) / steps, 1),
                    "mean_length": round(float(np.mean(lengths)), 1),
                    "step_seconds": round(seconds / steps, 4),
                    "tokens_per_second": round(sum(lengths) / seconds),
                    "utilisation": round(flops / seconds / peak, 4) if peak else None,
                }


def table(results: Sequence[Result]) -> str:
    """The medians over rounds as Markdown."""
    lines = ["| method | texts a step | tokens/s | utilisation | ratio |", "|---|---:|---:|---:|---:|"]
    methods = list(dict.fromkeys(r["method"] for r in results))
    rates = {m: float(np.median([r["tokens_per_second"] for r in results if r["method"] == m])) for m in methods}
    for method in methods:
        own = [r for r in results if r["method"] == method]
        used = [r["utilisation"] for r in own if r["utilisation"] is not None]
        share = f"{np.median(used):.0%}" if used else ""
        ratio = rates[method] / rates[methods[-1]]
        lines.append(f"| {method} | {own[0]['texts_per_step']} | {rates[method]:,.0f} | {share} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the table."""
    parser = argparse.ArgumentParser(
        description="Measure the speed of fine-tuning against the Hugging Face Trainer."
    )
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768, help="a multiple of 64")
    parser.add_argument("--texts", type=int, default=256, help="texts a step")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", type=float, help="FLOP per second of the device, where the name does not tell")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    add_output_options(parser, table=False)
    given = parser.parse_args(arguments)
    results = Results(given.out)
    for result in measure(given.layers, given.width, given.texts, given.steps, given.rounds, given.peak, given.set):
        results.add(result)
    print(table(results.all))


if __name__ == "__main__":
    main()
