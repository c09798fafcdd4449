"""The training loop: warm-up and decay, clipping, validation, early stopping, resumable checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtrec.balancing.features import backward_combined, cosines, effects, task_gradients
from mtrec.balancing.methods import Balancer
from mtrec.config import Training
from mtrec.data.dataset import Encoding
from mtrec.data.splits import TRAIN, VALID
from mtrec.errors import Diverged
from mtrec.models.beliefs import left_out
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.sending import sent
from mtrec.models.store import Bundle
from mtrec.training.augmentation import augmentation
from mtrec.training.batches import SequenceBatches
from mtrec.training.checkpoint import (
    damaged,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from mtrec.training.distributed import Processes, placed, whole
from mtrec.training.regularisation import Passes
from mtrec.training.step import Representation, StepData

RECORD_EVERY = 5
"""Steps between two recorded training losses."""

Validate = Callable[[Recommender, View, Catalogue], dict[str, float]]
"""Gives every task's skill on the validation part: higher is better, 0 is no skill."""

Guide = Callable[[dict[str, Tensor], Recommender, StepData, Representation, np.ndarray], dict[str, Tensor]]
"""Adds to the losses of a batch what else the tasks learn from, as `mtrec.training.distil.Guide.add_to` does."""


@dataclass(kw_only=True)
class Progress:
    """Where a run is; everything in it survives a kill."""

    step: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best_skills: dict[str, float] = field(default_factory=dict)
    """Each task's skill at the best epoch."""
    top_skills: dict[str, float] = field(default_factory=dict)
    """The highest skill each task has reached at any epoch."""
    stopped: bool = False
    seconds: float = 0.0
    lines: list[dict[str, Any]] = field(default_factory=list)
    """The loss history: a `train` line every few steps, a `valid` line every epoch."""
    total_steps: int = 0
    """Steps of all epochs, if training does not stop early."""

    @property
    def fraction(self) -> float:
        """Share of all steps that is done."""
        return self.step / max(self.total_steps, 1)


class Trainer:
    """Fits a model on the training part of a dataset.

    Args:
        bundle: the model to train, from `mtrec.models.store.new_model`.
        view: the dataset through the model's encoding.
        catalogue: the items' text vectors before training.
        validate: called after every epoch; decides which epoch is best (`standing`) and when to stop.
        watch: called after every step and every epoch with the progress so far.
        checkpoints: folder for the latest and the best state; None keeps them in memory only.
        key: names what is trained on what; a checkpoint of another key is not resumed.
        guide: what the tasks learn from beside their labels.
        processes: those that train together; the first one validates and writes the checkpoints.
    """

    def __init__(
        self,
        bundle: Bundle,
        view: View,
        catalogue: Catalogue,
        *,
        validate: Validate,
        watch: Callable[[Progress], None] = lambda progress: None,
        checkpoints: Path | None = None,
        key: str = "",
        processes: Processes | None = None,
        guide: Guide | None = None,
    ) -> None:
        self.model, self.scenario, self.view = bundle.model, bundle.scenario, view
        self.processes = processes or Processes()
        self.processes.start_alike(bundle.model)
        self.validate, self.watch, self.key, self.guide = validate, watch, key, guide
        self.settings: Training = bundle.scenario.training
        dataset, scenario = view.dataset, bundle.scenario
        self.batches = SequenceBatches(
            dataset.user,
            dataset.part,
            window=scenario.model.history,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            shuffle_rows=scenario.split.by in ("random", "cold_items"),
        )
        self.checkpoints = checkpoints
        self.total_steps = sum(
            -(-self.batches.num_batches(epoch) // self.settings.accumulate) for epoch in range(self.settings.epochs)
        )
        self.balancer = Balancer(
            self.settings.balancing, bundle.model.loss_weights, self.settings.balancing_options, view.device
        )
        groups = list(parameter_groups(bundle.model, self.settings))
        if self.balancer.learned:
            learned = {"params": self.balancer.learned, "lr": self.settings.lr, "weight_decay": 0.0}
            groups.append({**learned, "name": "balancing"})
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        named = bundle.model.named_parameters()
        self.above = [p for name, p in named if p.requires_grad and not name.startswith("encoder.")]
        self.base_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.progress = Progress(total_steps=self.total_steps)
        self.best: dict[str, Tensor] = {}
        self.data = self._step_data(bundle.encoding, catalogue)
        held_out = (dataset.items["part"] == VALID).to_numpy()
        item_tasks = any(task.on == "item" for task in scenario.tasks.values())
        self.judged_items = np.flatnonzero(held_out & item_tasks)
        """Those that item tasks are validated on: what is known of them is never stale then."""

    def _step_data(self, encoding: Encoding, catalogue: Catalogue) -> StepData:
        dataset, device = self.view.dataset, self.view.device
        counts = torch.tensor([0, *encoding.item_counts], dtype=torch.float32)[self.view.items.ids.cpu()].to(device)
        learned = {
            table: torch.from_numpy((frame["part"] == TRAIN).to_numpy()).to(device)
            for table, frame in (("users", dataset.users), ("items", dataset.items))
        }
        learned["items"] &= counts > 0
        return StepData(
            view=replace(self.view, labels=self._training_labels(learned)),
            catalogue=catalogue,
            mean_gap=self.view.mean_gap(TRAIN) if self.scenario.split.by == "time" else None,
            learned_item_N=learned["items"].cpu().numpy(),
            ranked_M=counts.nonzero().squeeze(1),
            sampling_N=counts.sqrt() / counts.sqrt().sum(),
            as_new_N=1 / counts.clamp(min=1),
            id_dropout=self.scenario.model.id_dropout,
            texts_per_step=self.settings.texts_per_step,
            augmentation=augmentation(self.settings.text_augmentation, dataset, self.model.encoder),
            beliefs=left_out(self.model, self.view),
            processes=self.processes,
        )

    def _training_labels(self, learned: dict[str, Tensor]) -> dict[str, Tensor]:
        """The labels, with those of held-out users and items missing."""
        labels = dict(self.view.labels)
        for name, values in labels.items():
            table = self.scenario.tasks[name].label_table
            if table in learned:
                labels[name] = values.clone()
                labels[name][~learned[table]] = float("nan")
        return labels

    def fit(self) -> Progress:
        """Train until the last epoch or until validation stops improving; the model ends at its best epoch."""
        self._resume()
        before = self.progress.seconds
        clock = time.perf_counter()
        while self.progress.epoch < self.settings.epochs and not self.progress.stopped:
            epoch = self.batches.epoch(self.progress.epoch)
            while batches := list(islice(epoch, self.settings.accumulate)):
                self.train_step(*batches)
                self.progress.seconds = before + time.perf_counter() - clock
            self._end_epoch(clock, before)
        self.model.load_state_dict(self.best)
        refreshed = self.progress.epoch % self.settings.refresh_epochs == 0
        if self.progress.best_epoch < self.progress.epoch or not refreshed:
            self._refresh_texts()
        return self.progress

    def judge_start(self) -> None:
        """Let the model as it is now be the one to beat; it is kept where no epoch is better (best epoch 0)."""
        self.model.eval()
        with torch.no_grad():
            skills = self.processes.from_lead(lambda: self.validate(self.model, self.view, self.data.catalogue))
        self.progress.best_skills, self.progress.top_skills = skills, {n: max(s, 0.0) for n, s in skills.items()}

    def _refresh_texts(self, rows: np.ndarray | None = None) -> None:
        """Encode some items, or else the whole catalogue, with the present weights, unless they never change."""
        if not self.settings.texts_per_step or not self.model.encoder.learns:
            return
        catalogue = self.data.catalogue
        if rows is None:
            catalogue.text_NE = self.model.encoder.encode_all(catalogue.tokens)
        elif len(rows):
            vectors = self.model.encoder.encode_all([catalogue.tokens[i] for i in rows.tolist()])
            catalogue.text_NE[sent(rows, vectors.device)] = vectors

    def train_step(self, *batches: np.ndarray) -> None:
        """One update with the mean gradient of some batches of windows, each (B, T) interaction rows."""
        step = self.progress.step
        factor = learning_rate_factor(step, self.total_steps, self.settings.warmup)
        for group, rate in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        losses = [self._add_gradients(rows_BT, place) for place, rows_BT in enumerate(batches)]
        if len(batches) > 1:
            for parameter in (p for group in self.optimiser.param_groups for p in group["params"]):
                if parameter.grad is not None:
                    parameter.grad /= len(batches)
        self.processes.sum_gradients(self.model.parameters())
        self.processes.clip_gradients(self.model.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        self.progress.step += 1
        if step % RECORD_EVERY == 0:
            self._record(step, torch.stack(losses).mean(0), factor)
        self.watch(self.progress)

    def _add_gradients(self, rows_BT: np.ndarray, place: int) -> Tensor:
        """Add the gradients of a batch to those of the step; gives the tasks' losses, (K,)."""
        self.processes.seed(
            hash((self.settings.seed, self.progress.step * self.settings.accumulate + place)) % 2**31
        )
        passes = Passes(self.model, self.data, rows_BT, self.settings)
        losses = self._backward(passes, first=place == 0)
        passes.finish()
        return torch.stack([losses[name].detach() for name in self.model.tasks])

    def _record(self, step: int, losses_K: Tensor, factor: float) -> None:
        values = dict(zip(self.model.tasks, losses_K.tolist(), strict=True))
        _check_finite("loss", values, step)
        self.progress.lines.append(
            {
                "kind": "train",
                "step": step,
                "epoch": round(step / self.total_steps * self.settings.epochs, 3),
                "loss": sum(self.model.loss_weights[name] * value for name, value in values.items()),
                "losses": values,
                "lr": self.settings.lr * factor,
                "seconds": round(self.progress.seconds, 2),
            }
        )

    def _backward(self, passes: Passes, first: bool = True) -> dict[str, Tensor]:
        """Losses of a batch, their gradients added to every parameter that they reach; `first`: of the step."""
        step, every = self.progress.step, self.settings.compare_every
        compare = first and len(self.model.tasks) > 1 and every > 0 and step % every == 0
        cut = passes.cut() if compare or self.balancer.combines_gradients else None
        losses = passes.losses()
        if self.guide:
            losses = self.guide(losses, self.model, *passes.parts[0], passes.rows_BT)
        self.processes.draw_alike()
        weighted = self.balancer.weighted(losses)
        losses_K = torch.stack(weighted)
        if cut is None:
            self.balancer.joint(losses_K, after_update=first).backward()
            return losses
        combines, own = self.balancer.combines_gradients, passes.own
        gradients = task_gradients(weighted, cut, self.above, keep_graph=not combines)
        if compare:
            self._record_comparison(self.processes.jacobian(gradients.jacobian_KD, own), losses_K.detach())
        if combines:
            combine = self.processes.across(lambda rows_KD: self.balancer.combine(rows_KD, losses_K.detach()), own)
            backward_combined(gradients, cut, combine)
        else:
            self.balancer.joint(losses_K, after_update=first).backward()
            cut.backward([leaf.grad for leaf in cut.read])
        return losses

    def _record_comparison(self, jacobian_KD: Tensor, losses_K: Tensor) -> None:
        norm_K1 = jacobian_KD.norm(dim=1, keepdim=True)
        table = torch.cat([norm_K1, cosines(jacobian_KD), effects(jacobian_KD, losses_K)], dim=1).cpu()
        norms, *matrices = table.split([1, len(table), len(table)], dim=1)
        self.progress.lines.append(
            {
                "kind": "tasks",
                "step": self.progress.step,
                "tasks": list(self.balancer.alpha),
                "norms": norms.flatten().tolist(),
                "cosines": matrices[0].tolist(),
                "effects": matrices[1].tolist(),
            }
        )

    def _end_epoch(self, clock: float, before: float) -> None:
        progress = self.progress
        sums = {name: p.detach().sum() for name, p in self.model.named_parameters() if p.requires_grad}
        _check_finite("weights", {name: value.item() for name, value in whole(sums).items()}, progress.step)
        self.model.eval()
        refresh = (progress.epoch + 1) % self.settings.refresh_epochs == 0
        self._refresh_texts(None if refresh else self.judged_items)
        with torch.no_grad():
            skills = self.processes.from_lead(lambda: self.validate(self.model, self.view, self.data.catalogue))
        progress.epoch += 1
        top = progress.top_skills = {n: max(s, progress.top_skills.get(n, 0.0)) for n, s in skills.items()}
        for line in progress.lines:
            if line["kind"] == "valid":  # the unit has changed
                line["score"] = score(line["metrics"], top)
        progress.seconds = before + time.perf_counter() - clock
        first = not progress.best_epoch and not progress.best_skills
        if first or standing(skills, top) > standing(progress.best_skills, top):
            progress.best_skills, progress.best_epoch = skills, progress.epoch
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        progress.stopped = progress.epoch - progress.best_epoch >= self.settings.patience
        self.progress.lines.append(
            {
                "kind": "valid",
                "step": progress.step,
                "epoch": progress.epoch,
                "score": score(skills, top),
                "metrics": skills,
                "seconds": round(progress.seconds, 2),
            }
        )
        self.balancer.end_epoch()
        self._save()
        self.watch(progress)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        groups = {
            "model": self.model.state_dict(),
            "best": self.best,
            "optimiser": optimiser_tensors(self.optimiser),
            "catalogue": {"text": self.data.catalogue.text_NE},
            "balancer": self.balancer.memory(),
        }
        groups = {name: whole(tensors) for name, tensors in groups.items()}
        if self.processes.leads:
            save_checkpoint(self.checkpoints, groups, {"progress": vars(self.progress), "key": self.key})

    def _resume(self) -> None:
        found = load_checkpoint(self.checkpoints) if self.checkpoints else None
        self.processes.agree((self.key, found and found[1]), "data, settings and checkpoint")
        try:
            if found is None or found[1]["key"] != self.key:
                self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
                return
            groups, state = found
            present = self.model.state_dict()
            self.model.load_state_dict(placed(groups["model"], present))
            self.best = placed(groups["best"], present)
            restore_optimiser(self.optimiser, groups["optimiser"])
            self.data.catalogue.text_NE = groups["catalogue"]["text"].to(self.view.device)
            self.balancer.remember(groups.get("balancer", {}))
            self.progress = Progress(**state["progress"])
        except (LookupError, TypeError, RuntimeError, ValueError) as error:
            raise damaged(self.checkpoints, error) from error


def standing(skills: dict[str, float], top: dict[str, float]) -> tuple[float, float]:
    """What epochs are compared by: their score, and between equal scores the mean of the skills as they are.

    So training that begins below no skill goes on while it gets better, although every score is 0.
    """
    return score(skills, top), sum(skills.values()) / max(len(skills), 1)


def score(skills: dict[str, float], top: dict[str, float]) -> float:
    """How near the tasks are, on average, to the best that each has reached so far, in [0, 1].

    Every task counts the same, whatever the unit of its skill. A task that never had any skill counts 0.
    """
    shares = [max(skills[name], 0.0) / best if best > 0 else 0.0 for name, best in top.items()]
    return sum(shares) / max(len(shares), 1)


def _check_finite(what: str, values: dict[str, float], step: int) -> None:
    wrong = next((name for name, value in values.items() if not math.isfinite(value)), None)
    if wrong is not None:
        raise Diverged(
            f"training: {what} of {wrong} is {values[wrong]} at step {step}; lower training.lr or "
            "training.clip_norm, or look at the label's outliers. The last checkpoint is untouched."
        )


def learning_rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of steps, then cosine decay to 5 %."""
    warmup_steps = max(round(total_steps * warmup), 1)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: Recommender, settings: Training) -> Iterator[dict[str, Any]]:
    """AdamW groups: the encoder per layer, embeddings, matrices, and vectors.

    Vectors never decay, and neither do the biases of users and items, which start shrunken.
    """
    for name, rate, parameters in model.encoder.trainable_groups(settings.lr_encoder, settings.layer_decay):
        yield {"params": parameters, "lr": rate, "weight_decay": settings.weight_decay, "name": name}
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    groups: dict[str, dict[str, Any]] = {
        "embeddings": {"lr": settings.lr_ids, "weight_decay": settings.weight_decay_ids},
        "biases": {"lr": settings.lr_ids, "weight_decay": 0.0},
        "matrices": {"lr": settings.lr, "weight_decay": settings.weight_decay},
        "vectors": {"lr": settings.lr, "weight_decay": 0.0},
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("encoder.backbone."):
            if name in tables:
                kind = "biases" if name.endswith("bias.weight") else "embeddings"
            else:
                kind = "matrices" if parameter.dim() > 1 else "vectors"
            groups[kind].setdefault("params", []).append(parameter)
    yield from ({**group, "name": name} for name, group in groups.items() if "params" in group)
