"""Second passes of a batch: R-Drop and adversarial text vectors.

R-Drop (Liang et al. 2021, arXiv:2106.14448): two passes with the same draws and other dropout, and the distance of
their answers beside the mean of their losses. Both passes go through whatever balances the tasks.

Adversarial (fast gradient method, Miyato et al. 2017, arXiv:1605.07725): after the gradients of a step are there,
every text vector is moved a little to where the tasks' joint loss grows fastest, and the losses from there are
learned too. Departures: the paper moves word vectors; here the encoder's layers may be frozen and run once per
text, so what moves is the text vector above them (length 1), fresh or stale. Towers and heads run twice, the
encoder once in each direction. The losses of the second pass are weighed by the tasks' α, whatever balances the
first.

Shapes: X examples, V classes or labels or items, N items, E text width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.balancing.features import Cut
from mtrec.config import Binary, MultiLabel, Profile, Regression, Task, Training
from mtrec.models.losses import EMPTY
from mtrec.models.recommender import Recommender, Texts
from mtrec.training.distributed import Examples
from mtrec.training.step import Pass, StepData, T, losses_of, represent

IMPOSSIBLE = -1e4
"""Logit in place of −∞ of items that are not allowed, so that no difference of two is NaN."""


class Taped(Pass):
    """A pass that keeps its draws and answers; a second one like it makes the same draws.

    Args:
        like: the pass whose draws are repeated.
        cut: end the graph at the text vectors, see `Cut`.
        text_NE: text vectors to read in place of encoding.
    """

    def __init__(self, like: Taped | None = None, *, cut: bool = False, text_NE: Tensor | None = None) -> None:
        self.answers: dict[str, tuple[Tensor, Tensor]] = {}
        """Raw outputs and mask, by task."""
        self.cut: Cut | None = None
        self._drawn: list[Any] = like._drawn if like else []
        self._place, self._cuts, self._text_NE = 0, cut, text_NE

    def draw(self, make: Callable[[], T]) -> T:
        """The choice that the first pass made at this place."""
        if self._place == len(self._drawn):
            self._drawn.append(make())
        self._place += 1
        drawn: T = self._drawn[self._place - 1]
        return drawn

    def text(self, encode: Callable[[], Texts]) -> Texts:
        """The given text vectors, or those of the encoder."""
        if self._text_NE is not None:
            return Texts(self._text_NE)
        texts = encode()
        if not self._cuts:
            return texts
        self.cut = Cut.through([texts.text_NE])
        return Texts(self.cut.read[0])

    def note(self, name: str, mask_X: Tensor, *outputs: Tensor) -> None:
        """Keep a task's answers."""
        self.answers[name] = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), mask_X


class Passes:
    """What one step runs forward and backward: a single pass, unless `r_drop` or `adversarial` asks for a second.

    Args:
        model: in training mode.
        data: tensors shared by all steps.
        rows_BT: interaction rows of the batch, −1 pads.
        settings: of the training.
    """

    def __init__(self, model: Recommender, data: StepData, rows_BT: np.ndarray, settings: Training) -> None:
        self.model, self.data, self.rows_BT, self.settings = model, data, rows_BT, settings
        self.taped: list[Taped] = []
        if settings.r_drop or settings.adversarial:
            self.taped.append(Taped(cut=settings.adversarial > 0))
        if settings.r_drop:
            self.taped.append(Taped(self.taped[0], cut=settings.adversarial > 0))
        own = [replace(data, through=taped) for taped in self.taped] or [data]
        self.parts = [(part, represent(model, part, rows_BT)) for part in own]

    def cut(self) -> Cut:
        """End the heads' graphs at the representations, states first; see `mtrec.balancing.features`."""
        cuts = []
        for i, (data, shared) in enumerate(self.parts):
            cut, shared = shared.cut()
            cuts.append(cut)
            self.parts[i] = data, shared
        return Cut(
            made=[*(c.made[0] for c in cuts), *(t for c in cuts for t in c.made[1:])],
            read=[*(c.read[0] for c in cuts), *(t for c in cuts for t in c.read[1:])],
        )

    @property
    def own(self) -> int:
        """How many entries of the representations are states, which this process alone has."""
        return sum(shared.states.numel() for _, shared in self.parts)

    def losses(self) -> dict[str, Tensor]:
        """One scalar per task: its loss, with R-Drop the mean of both and `r_drop` / 2 times their distance."""
        found = [losses_of(self.model, data, shared) for data, shared in self.parts]
        if not self.settings.r_drop:
            return found[0]
        answers = {name: [taped.answers[name] for taped in self.taped] for name in self.model.tasks}
        apart = self.data.processes.means(
            {
                name: Examples(mean=distance(self.model.tasks[name], first, second, mask), mask=mask)
                for name, ((first, mask), (second, _)) in answers.items()
            }
        )
        weight = self.settings.r_drop
        return {name: (loss + found[1][name] + weight * apart[name]) / 2 for name, loss in found[0].items()}

    def finish(self) -> None:
        """After the gradients of the losses: add those of the adversarial pass, and go on through the encoder."""
        if not self.settings.adversarial:
            return
        cuts = [taped.cut for taped in self.taped if taped.cut]
        text_NE = cuts[0].read[0]
        assert text_NE.grad is not None
        width = self.model.encoder.width
        towards_NE = F.normalize(self.data.processes.total(text_NE.grad)[:, :width], dim=-1)
        worse_NE = text_NE + self.settings.adversarial * F.pad(towards_NE, (0, text_NE.shape[1] - width))
        data = replace(self.data, through=Taped(self.taped[0], text_NE=worse_NE))
        losses = losses_of(self.model, data, represent(self.model, data, self.rows_BT))
        torch.stack([self.model.loss_weights[name] * loss for name, loss in losses.items()]).sum().backward()
        for cut in cuts:
            cut.backward([cut.read[0].grad])


def distance(task: Task, first: Tensor, second: Tensor, mask_X: Tensor) -> Tensor:
    """How far two answers of a task are apart, as a mean over the examples in the mask.

    ½ (KL(p ‖ q) + KL(q ‖ p)) of distributions (of each label, averaged over labels, where a task has several), the
    squared difference of numbers, and 1 − cosine of profiles.

    Args:
        task: whose answers these are.
        first: raw outputs of one pass, (X,) or (X, V).
        second: those of the other.
        mask_X: which examples count.
    """
    if isinstance(task, Regression):
        apart_X = (first - second) ** 2
    elif isinstance(task, Profile):
        apart_X = 1 - F.cosine_similarity(first, second, dim=-1, eps=1e-8)
    elif isinstance(task, (Binary, MultiLabel)):
        apart = (first.sigmoid() - second.sigmoid()) * (first - second) / 2
        apart_X = apart if apart.dim() == 1 else apart.mean(-1)
    else:
        p, q = (logits.clamp(min=IMPOSSIBLE).log_softmax(-1) for logits in (first, second))
        apart_X = ((p.exp() - q.exp()) * (p - q)).sum(-1) / 2
    mask = mask_X.to(apart_X.dtype)
    return (apart_X * mask).sum() / mask.sum().clamp(min=EMPTY)
