"""What Optuna's samplers and pruners are made with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def sampler(kind: str, seed: int, used: int) -> BaseSampler:
    """A sampler whose draws depend on the seed and on how many trials count so far, and on nothing else.

    So a resumed study goes on as if it had never stopped, and processes side by side do not draw the same point.
    """
    from optuna.samplers import RandomSampler, TPESampler

    drawn = int.from_bytes(hashlib.sha256(f"{seed} {used}".encode()).digest()[:4])
    if kind == "tpe":
        return TPESampler(seed=drawn, multivariate=True, warn_independent_sampling=False)
    return RandomSampler(seed=drawn)


def pruner(kind: str, epochs: int) -> BasePruner:
    """A pruner of that name for trials of at most so many epochs."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if kind == "median":  # the first epoch is mostly warm-up
        return MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    return HyperbandPruner(min_resource=1, max_resource=epochs) if kind == "hyperband" else NopPruner()
