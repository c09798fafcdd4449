"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number per task that makes its probabilities honest.

The outputs of a yes-no, classification or multi-label task are divided by T before the sigmoid or softmax. T is
fitted on the validation part, never on test rows. It moves no AUC, no ranking of labels and no chosen class. A task
of a chain (`Binary.after`) has the log-odds of its product divided.

Departure: −½ log² T is added to the log-likelihood, a normal prior on log T. It weighs about one example,
so it matters only where the validation part is small or free of mistakes: the likelihood alone would then send T to
zero.

Shapes: X examples, V classes or labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mtrec.config import Binary, Classification, MultiLabel, Task
from mtrec.evaluation.metrics import UNSEEN
from mtrec.evaluation.predict import Predictions
from mtrec.models.losses import binary_loss, classification_loss
from mtrec.models.recommender import Recommender


def calibrate(model: Recommender, rows: Mapping[str, Predictions]) -> dict[str, float]:
    """Fit and set the temperature of every task in `rows` that answers with probabilities.

    Args:
        model: its heads get the temperatures.
        rows: what the model says on the validation part.

    Returns:
        The temperatures: above 1 the model was too sure of itself, below 1 not sure enough.
    """
    found = {}
    for name, given in rows.items():
        head = model.head(name)
        if head.temperature is not None:
            logits = logits_of(head.task, given.predicted) * given.temperature
            found[name] = fit_temperature(head.task, given.target, logits)
            head.temperature.fill_(found[name])
    return found


def fit_temperature(task: Task, target: np.ndarray, logits: np.ndarray) -> float:
    """The temperature with the highest posterior; 1 where nothing can be fitted.

    That is without examples, and without both a yes and a no.

    Args:
        task: binary, classification or multi-label.
        target: as in `mtrec.evaluation.metrics.compute`; classes that training never saw are left out.
        logits: (X,) or (X, V).
    """
    if isinstance(task, Classification):
        target, logits = target[target != UNSEEN], logits[target != UNSEEN]
        fittable = len(target) > 0
    else:
        target, logits = target.ravel(), logits.ravel()
        fittable = bool((target > 0.5).any() and (target < 0.5).any())
    if not fittable:
        return 1.0
    loss_of = classification_loss if isinstance(task, Classification) else binary_loss
    given, wanted = torch.from_numpy(logits).double(), torch.from_numpy(target).double()
    every = torch.ones(len(wanted), dtype=torch.float64)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            loss = loss_of(given / log_t.exp(), wanted, every) + log_t**2 / (2 * len(wanted))
            loss.backward()
        return loss

    optimiser.step(closure)
    return float(log_t.detach().exp())


def logits_of(task: Task, probability: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities, or log-probabilities of classes, which softmax takes back to the same.

    Single precision knows log-odds up to 16; what lies beyond counts as that.
    """
    if isinstance(task, Classification):
        return np.log(np.maximum(probability, 1e-30))
    inside = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    log_odds: np.ndarray = np.log(inside) - np.log1p(-inside)
    return log_odds


def uncalibrated(task: Task, given: Predictions) -> np.ndarray:
    """The probabilities as they were before the temperature, (X,) or (X, V)."""
    assert isinstance(task, (Binary, Classification, MultiLabel))
    logits = torch.from_numpy(logits_of(task, given.predicted) * given.temperature)
    return (logits.softmax(-1) if isinstance(task, Classification) else logits.sigmoid()).numpy()
