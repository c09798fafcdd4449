"""Distillation: a student of fewer encoder layers learns from a finished model.

First `match_vectors`: the student's text vectors become the teacher's, on every text of the catalogue. This is
cheap, for no task is run, and the towers and heads, which are the teacher's, then find vectors that they know.
Then the usual training, with a `Guide` that adds to each task's loss how far the student's answers are from the
teacher's.

Shapes: B users, T events, X examples, N items, E text width, D model width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtrec.config import Distillation, NextItem, Regression
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.questions import same_question
from mtrec.models.beliefs import LeftOut, left_out
from mtrec.models.encoder import TextEncoder, transformer_layers
from mtrec.models.inputs import View
from mtrec.models.recommender import ItemVectors, Recommender
from mtrec.models.sending import sent
from mtrec.models.store import Bundle
from mtrec.models.text_batches import Tokens
from mtrec.models.users import History
from mtrec.training.loop import learning_rate_factor
from mtrec.training.places import Places
from mtrec.training.soft_losses import soft_loss
from mtrec.training.step import ITEM_EXAMPLES, Representation, StepData

TEXTS_PER_STEP = 32
"""Texts per step of `match_vectors`."""
MAX_LOGITS = 2**20
"""Bound on users × items whose ranking is compared with the teacher's in one step."""


def match_vectors(
    student: TextEncoder,
    tokens: Tokens,
    target_NE: Tensor,
    settings: Distillation,
    *,
    seed: int = 0,
    watch: Callable[[float], None] = lambda share: None,
) -> list[dict[str, Any]]:
    """Bring a student's text vectors near its teacher's; all of its layers learn, its embeddings do not.

    The loss is 1 − cosine, half the squared distance of unit vectors.

    Args:
        student: its weights change.
        tokens: the texts for the student, N of them.
        target_NE: the teacher's vectors of the same texts.
        settings: `epochs` and `lr`.
        seed: decides the order of texts.
        watch: called with the share that is done.

    Returns:
        Lines for losses.jsonl, of kind `match`: step, epoch, loss (mean over the epoch; for epoch 0 before any
        step) and seconds.
    """
    clock = time.perf_counter()
    layers = [p for layer in transformer_layers(student.backbone) for p in layer.parameters()]
    learned_before = [p.requires_grad for p in layers]
    steps = -(-len(tokens) // TEXTS_PER_STEP)
    order = np.random.default_rng(seed)
    student.eval()
    loss = 1 - float((student.encode_all(tokens) * target_NE).sum(1).mean())
    lines: list[dict[str, Any]] = []

    def note(epoch: int, loss: float) -> None:
        seconds = round(time.perf_counter() - clock, 2)
        lines.append(
            {"kind": "match", "step": epoch * steps, "epoch": epoch, "loss": round(loss, 6), "seconds": seconds}
        )

    note(0, loss)
    for parameter in layers:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(layers, lr=settings.lr, weight_decay=0.01, fused=True)
    for step in range(settings.epochs * steps):
        if step % steps == 0:
            shuffled, total = order.permutation(len(tokens)), torch.zeros((), device=target_NE.device)
        rows = shuffled[step % steps :: steps]
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * learning_rate_factor(step, settings.epochs * steps, 0.1)
        vectors = student([tokens[i] for i in rows])
        distance = 1 - (vectors * target_NE[torch.from_numpy(rows).to(target_NE.device)]).sum(1).mean()
        optimiser.zero_grad(set_to_none=True)
        distance.backward()
        nn.utils.clip_grad_norm_(layers, 1.0)
        optimiser.step()
        total += distance.detach() * len(rows)
        watch((step + 1) / (settings.epochs * steps))
        if (step + 1) % steps == 0:
            note((step + 1) // steps, float(total) / len(tokens))
    optimiser.zero_grad(set_to_none=True)
    for parameter, learned in zip(layers, learned_before, strict=True):
        parameter.requires_grad_(learned)
    return lines


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two models in a step."""

    model: Recommender
    items: ItemVectors
    history: History
    states: Tensor
    user_ids_B: Tensor
    beliefs: LeftOut


class Guide:
    """The teacher beside a student in training.

    The teacher reads the dataset through its own encoding, without dropout and without gradient; its item vectors
    are computed once. Tasks that ask another question there are learned from labels alone, and of classes and
    labels only those that both know are compared.

    Args:
        teacher: in evaluation mode, on the student's device.
        dataset: what the student is trained on.
        text_NE: the teacher's text vectors of the dataset's items.
        student: the model in training.
        settings: temperature and weights.
        same_space: the student's towers began as the teacher's, so that projected texts can be compared.
    """

    def __init__(
        self,
        teacher: Bundle,
        dataset: Dataset,
        text_NE: Tensor,
        student: Bundle,
        settings: Distillation,
        *,
        same_space: bool,
    ) -> None:
        self.teacher, self.settings, self.same_space = teacher.model, settings, same_space
        own, theirs = student.scenario.tasks, teacher.scenario.tasks
        self.tasks = {n: t for n, t in own.items() if n in theirs and same_question(theirs[n], t)}
        labels = {n: label for n, label in teacher.encoding.labels.items() if n in self.tasks}
        self.view: View = teacher.view(dataset, replace(teacher.encoding, labels=labels))
        with torch.no_grad():
            self.items = teacher.model.item_vectors(text_NE, self.view.items)
        self.beliefs = left_out(teacher.model, self.view)
        self.shared = {
            name: _shared_values(teacher.encoding, student.encoding, name, text_NE.device)
            for name, task in self.tasks.items()
            if not isinstance(task, NextItem)
        }
        self.units = {
            n: _units(teacher.model, student.model, n) for n, t in self.tasks.items() if isinstance(t, Regression)
        }

    def add_to(
        self,
        losses: dict[str, Tensor],
        model: Recommender,
        data: StepData,
        shared: Representation,
        rows_BT: np.ndarray,
    ) -> dict[str, Tensor]:
        """Each task's loss with the teacher's part in it.

        The distance of the texts' vectors belongs to no task; it is spread evenly over all of them.

        Args:
            losses: of the labels, by task.
            model: the student.
            data: tensors shared by all steps.
            shared: the student's representation of the batch.
            rows_BT: interaction rows of the batch, −1 pads.
        """
        settings, losses = self.settings, dict(losses)
        mine, theirs = self._sides(model, data, shared, rows_BT)
        if settings.logit_weight:
            for name, (my, their) in self._answers(mine, theirs, data, shared).items():
                losses[name] = losses[name] + settings.logit_weight * soft_loss(
                    self.tasks[name], my, their, settings.temperature
                )
        if settings.representation_weight and self.same_space and len(shared.fresh):
            fresh = sent(shared.fresh, self.view.device)
            near = F.cosine_similarity(shared.items.text_ND[fresh], self.items.text_ND[fresh], dim=-1)
            part = settings.representation_weight * (1 - near).mean() / len(losses)
            losses = {name: loss + part for name, loss in losses.items()}
        return losses

    def _sides(
        self, model: Recommender, data: StepData, shared: Representation, rows_BT: np.ndarray
    ) -> tuple[_Side, _Side]:
        mine = _Side(
            model=model,
            items=shared.items,
            history=shared.history,
            states=shared.states,
            user_ids_B=shared.user_ids_B,
            beliefs=data.beliefs,
        )
        with torch.no_grad():
            users, history = self.view.users.rows(shared.user_B), self.view.history(rows_BT)
            states = self.teacher.user_states(users, history, self.items)
        return mine, _Side(
            model=self.teacher,
            items=self.items,
            history=history,
            states=states,
            user_ids_B=users.ids,
            beliefs=self.beliefs,
        )

    def _answers(
        self, mine: _Side, theirs: _Side, data: StepData, shared: Representation
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Raw outputs of student and teacher on the same examples, in the same units and order."""
        others = torch.randint(len(data.learned_item_N), (ITEM_EXAMPLES,)).numpy()
        item_X = sent(np.union1d(shared.fresh, others), self.view.device)
        my = _outputs(mine, item_X, shared)
        with torch.no_grad():
            their = _outputs(theirs, item_X, shared)
        found = {}
        for name, task in self.tasks.items():
            if isinstance(task, NextItem):
                found[name] = self._rankings(name, task, mine, theirs, data, shared.events)
                continue
            columns = self.shared[name]
            if columns is None:
                scale, shift = self.units.get(name, (1.0, 0.0))
                found[name] = my[name], their[name] * scale + shift
            elif len(columns[0]):
                found[name] = my[name][:, columns[1]], their[name][:, columns[0]]
        return found

    def _rankings(
        self, name: str, task: NextItem, mine: _Side, theirs: _Side, data: StepData, events: Places
    ) -> tuple[Tensor, Tensor]:
        """Logits of both over items of the training part: all of them, or a sample where the task samples."""
        item_M = data.ranked_M
        if name not in mine.model.full:
            item_M = item_M[torch.randperm(len(item_M), device=item_M.device)[: task.num_negatives]]
        kept = torch.randperm(len(events), device=item_M.device)[: max(MAX_LOGITS // max(len(item_M), 1), 1)]
        events = events.chosen(kept)

        def logits(side: _Side) -> Tensor:
            near_XS = side.model.nearby(
                name, side.items, side.history, row_X=events.window_X, place_X=events.time_X
            )
            return side.model.rank_logits(name, events.before(side.states), side.items.rows(item_M), near_XS)

        with torch.no_grad():
            wanted = logits(theirs)
        return logits(mine), wanted


def _outputs(side: _Side, item_X: Tensor, shared: Representation) -> dict[str, Tensor]:
    """Raw outputs of all tasks but rankings: of given items, of every event, and of users before every event."""
    events = shared.events
    before_ED, item_E = events.before(side.states), events.of(side.history.item_BT)
    beliefs_EQ = side.beliefs.of(shared.row_X, side.items.ids_N[item_E] > 0)
    return {
        **side.model.item_outputs(side.items, item_X),
        **side.model.user_outputs(before_ED),
        **side.model.pair_outputs(before_ED, side.user_ids_B[events.window_X], side.items, item_E, beliefs_EQ),
    }


def _shared_values(
    theirs: Encoding, mine: Encoding, name: str, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Columns of the values that both know, the teacher's and the student's; None for numbers and yes/no."""
    if not mine.labels[name].values:
        return None
    place = {value: i for i, value in enumerate(theirs.labels[name].values)}
    pairs = [(place[value], i) for i, value in enumerate(mine.labels[name].values) if value in place]
    columns = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def _units(teacher: Recommender, student: Recommender, name: str) -> tuple[float, float]:
    """What turns the teacher's standardised number into the student's: a factor and what is added."""
    a, b = teacher.head(name), student.head(name)
    return a.scale / b.scale, (a.mean - b.mean) / b.scale
