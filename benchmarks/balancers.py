"""What a balancing method costs, and what it changes to balance at the representation in place of the parameters.

Cost: all methods take their steps on the same batches of the five tasks of scenario `video`, by turns, so that
whatever else the machine does meets all of them. The ratio is that of medians against the plain sum.

Differences: gradient methods are published on the gradients of all shared parameters, which takes one backward pass
of the encoder per task; mtrec applies them to the gradients at the shared representation. On the same batch and
draws both are worked out, and compared as gradients of the shared parameters: their cosine, the ratio of their
lengths, and for scale the cosine of the published one with the plain sum. Batches lie along a run that is trained
with the plain sum.

    python -m benchmarks.balancers --data FOLDER [--rounds 12] [--methods famo pcgrad cagrad]
    python -m benchmarks.balancers --data FOLDER --differences
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.turns import step_seconds
from mtrec.balancing.features import Cut, TaskGradients, task_gradients
from mtrec.balancing.methods import GRADIENT_METHODS, METHODS, Balancer
from mtrec.config import load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources import read_source
from mtrec.models.store import new_model
from mtrec.training.loop import Trainer
from mtrec.training.regularisation import Passes


def trainers_of(data: Path, methods: Sequence[str]) -> dict[str, Trainer]:
    """One trainer per method, each with its own copy of the same model."""
    scenario = load_scenario("video", ["split.by=random", "training.compare_every=0"])
    dataset, encoding = prepare(clean(read_source(scenario, data))[0], scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    trainers = {}
    for method in methods:
        own = scenario.model_copy(update={"training": scenario.training.model_copy(update={"balancing": method})})
        mine = replace(bundle, model=copy.deepcopy(bundle.model), scenario=own)
        texts = replace(catalogue, text_NE=catalogue.text_NE.clone())
        trainers[method] = Trainer(mine, view, texts, validate=lambda *_: {})
    return trainers


def differences(data: Path, methods: Sequence[str], rounds: int, every: int = 10) -> dict[str, list[list[float]]]:
    """Cosine, ratio of lengths, and cosine with the sum, of every compared batch by method."""
    trainer = trainers_of(data, ["static"])["static"]
    found: dict[str, list[list[float]]] = {method: [] for method in methods}
    batches = chain.from_iterable(trainer.batches.epoch(epoch) for epoch in count())
    for step, rows_BT in enumerate(batches):
        if step and step % every == 0:  # at the very start heads are 0, and so are most gradients below them
            for method, numbers in _compare(trainer, rows_BT, methods):
                found[method].append(numbers)
        if step == rounds * every:
            break
        trainer.train_step(rows_BT)
    return found


def _compare(trainer: Trainer, rows_BT: np.ndarray, methods: Sequence[str]) -> Iterator[tuple[str, list[float]]]:
    model = trainer.model.train()
    torch.manual_seed(trainer.progress.step)
    passes = Passes(model, trainer.data, rows_BT, trainer.settings)
    cut = passes.cut()
    losses = Balancer("static", model.loss_weights).weighted(passes.losses())
    losses_K = torch.stack(losses).detach()
    gradients = task_gradients(losses, cut, trainer.above, keep_graph=True)
    below = [p for p in model.parameters() if p.requires_grad]
    jacobian_KP = torch.stack([_at_parameters(row_D, gradients, cut, below) for row_D in gradients.jacobian_KD])
    sum_P = jacobian_KP.sum(0)
    for method in methods:
        torch.manual_seed(0)
        ours_D = Balancer(method, model.loss_weights).combine(gradients.jacobian_KD, losses_K)
        torch.manual_seed(0)
        published_P = Balancer(method, model.loss_weights).combine(jacobian_KP, losses_K)
        ours_P = _at_parameters(ours_D, gradients, cut, below)
        ratio = ours_P.norm() / published_P.norm()
        cosines = (cosine_similarity(published_P, other_P, dim=0) for other_P in (ours_P, sum_P))
        near, to_sum = (float(c) for c in cosines)
        yield method, [near, float(ratio), to_sum]


def _at_parameters(row_D: Tensor, gradients: TaskGradients, cut: Cut, below: Sequence[Tensor]) -> Tensor:
    """A gradient at the cut and the shared parameters above it, as one of all shared parameters, (P,)."""
    parts = row_D.split([t.numel() for t in (*cut.read, *gradients.shared)])
    grads = [part.view_as(t) for part, t in zip(parts, cut.read, strict=False)]
    pairs = [(t, g) for t, g in zip(cut.made, grads, strict=True) if t.requires_grad]
    made, into = zip(*pairs, strict=True)
    found = torch.autograd.grad(made, below, into, retain_graph=True, allow_unused=True)
    return torch.cat([*(g.flatten() for g in found if g is not None), *parts[len(cut.read) :]])


def main() -> None:
    """Measure and print one JSON line per method."""
    parser = argparse.ArgumentParser(description="Measure balancing methods.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12, help="batches that are measured")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=[m for m in METHODS if m != "static"])
    parser.add_argument("--differences", action="store_true", help="compare gradients in place of costs")
    given = parser.parse_args()
    if given.differences:
        methods = [m for m in given.methods if m in GRADIENT_METHODS]
        for method, rows in differences(given.data, methods, given.rounds).items():
            names = ("cosine", "ratio of lengths", "cosine of the published one with the sum")
            means = np.mean(rows, axis=0).round(3).tolist()
            print(json.dumps({"method": method, **dict(zip(names, means, strict=True)), "batches": len(rows)}))
        return
    seconds = step_seconds(trainers_of(given.data, ["static", *given.methods]), given.rounds)
    plain = float(np.median(seconds["static"]))
    print(json.dumps({"threads": torch.get_num_threads(), "steps": given.rounds, "seconds of the sum": plain}))
    for method in given.methods:
        print(json.dumps({"method": method, "ratio": round(float(np.median(seconds[method])) / plain, 3)}))


if __name__ == "__main__":
    main()
