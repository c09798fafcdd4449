"""Balancing methods by name: TorchJD's, GradNorm, and sums.

Two kinds. Some combine the K losses into one (`LOSS_METHODS`) and cost nothing more than the plain sum. The others
combine the K gradients at the shared representation (`GRADIENT_METHODS`, see `mtrec.balancing.features`). All start
from the losses times their static weights α. TorchJD: Quinton & Rey 2024, arXiv:2406.16232, github.com/SimplexLab.

Departure: FAMO measures how much a step lowered the losses on the next batch, not once more on the same one, which
would cost a second forward pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mtrec.balancing.gradnorm import GradNorm
from mtrec.errors import ConfigError

LOSS_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "uncertainty": ("UW", {}),
    "geometric_mean": ("GeometricMean", {}),
    "imtl_l": ("IMTLL", {}),
    "stch": ("STCH", {"mu": 1.0}),
    "dwa": ("DWA", {}),
    "random": ("Random", {}),
    "famo": ("FAMO", {}),
}
"""Name → TorchJD scalarizer and the settings that it has no default for."""
GRADIENT_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "pcgrad": ("PCGrad", {}),
    "cagrad": ("CAGrad", {"c": 0.4}),
    "mgda": ("MGDA", {}),
    "upgrad": ("UPGrad", {}),
    "dualproj": ("DualProj", {}),
    "nash_mtl": ("NashMTL", {}),
    "imtl_g": ("IMTLG", {}),
    "aligned_mtl": ("AlignedMTL", {}),
    "gradvac": ("GradVac", {}),
    "graddrop": ("GradDrop", {}),
    "config": ("ConFIG", {}),
    "fairgrad": ("FairGrad", {"alpha": 2.0}),
}
"""Name → TorchJD aggregator and the settings that it has no default for."""
METHODS = ("static", "log_sum", *LOSS_METHODS, "gradnorm", *GRADIENT_METHODS)
_SIZED = ("uncertainty", "imtl_l", "famo", "nash_mtl", "gradnorm")
"""Methods that are told the number of tasks."""


class Balancer:
    """Runs K losses backward by one of the methods.

    A checkpoint holds its `memory`, so that a resumed run goes on exactly like an unbroken one. What GradVac,
    Nash-MTL and their like remember from one step to the next cannot be read from outside; they begin anew every
    epoch.

    Args:
        method: one of `METHODS`.
        weights: α per task.
        options: settings of the method, over its defaults.
        device: where the losses are.

    Raises:
        ConfigError: the method does not take such options.
    """

    def __init__(
        self,
        method: str,
        weights: Mapping[str, float],
        options: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.method, self.alpha, self.device = method, dict(weights), device
        self.core = _make(method, len(weights), dict(options or {})).to(device)
        self.combines_gradients = method == "gradnorm" or method in GRADIENT_METHODS

    @property
    def learned(self) -> list[nn.Parameter]:
        """Parameters that the run's optimiser learns together with the model's."""
        return list(self.core.parameters()) if self.method in ("uncertainty", "imtl_l") else []

    def weighted(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """α times each loss."""
        return [alpha * losses[name] for name, alpha in self.alpha.items()]

    def joint(self, losses_K: Tensor, after_update: bool = True) -> Tensor:
        """One loss of the weighted K, for methods that do not combine gradients.

        Args:
            losses_K: of a batch.
            after_update: weights of the model have changed since the batch before.
        """
        if self.method == "static":
            return losses_K.sum()
        if self.method == "log_sum":
            return (losses_K + 1e-8).log().sum()
        if self.method == "famo" and after_update and self.core._prev_losses is not None:
            self.core.update(losses_K.detach())
        joint: Tensor = self.core(losses_K)
        return joint

    def combine(self, jacobian_KD: Tensor, losses_K: Tensor) -> Tensor:
        """One gradient (D,) of the weighted tasks', for methods that combine gradients."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Nash-MTL's solver speaks up at every step
            held = (losses_K,) if self.method == "gradnorm" else ()
            combined: Tensor = self.core(jacobian_KD, *held)
        return combined

    def end_epoch(self) -> None:
        """Roll on what counts epochs; forget what no checkpoint could hold."""
        if self.method == "dwa":
            self.core.step()
        elif self.method == "famo":
            self.core._prev_losses = None
        elif hasattr(self.core, "reset"):
            self.core.reset()

    def memory(self) -> dict[str, Tensor]:
        """What the method has learned so far, for `remember`."""
        if self.method in GRADIENT_METHODS:
            return {}
        held = {f"core.{name}": value for name, value in self.core.state_dict().items()}
        if self.method == "dwa":
            held |= {f"average.{i}": value for i, value in enumerate(self.core._previous_averages)}
        if self.method in ("famo", "gradnorm") and (adam := self._adam()) is not None:
            state = adam.state_dict()["state"].get(0, {})
            held |= {f"adam.{name}": torch.as_tensor(value) for name, value in state.items()}
        return held

    def remember(self, held: Mapping[str, Tensor]) -> None:
        """Go on where `memory` was taken."""
        if self.method in GRADIENT_METHODS:
            return
        groups: dict[str, dict[str, Tensor]] = {"core": {}, "average": {}, "adam": {}}
        for key, value in held.items():
            group, _, name = key.partition(".")
            groups[group][name] = value.to(self.device)
        self.core.load_state_dict(groups["core"])
        if self.method == "dwa":
            self.core._previous_averages = [groups["average"][i] for i in sorted(groups["average"])]
        if groups["adam"]:
            if self.method == "famo":
                self.core._optimizer = torch.optim.Adam(
                    [self.core._w], lr=self.core.lr, weight_decay=self.core.weight_decay
                )
            adam = self._adam()
            assert adam is not None
            adam.load_state_dict({"state": {0: groups["adam"]}, "param_groups": adam.state_dict()["param_groups"]})

    def _adam(self) -> torch.optim.Adam | None:
        adam: torch.optim.Adam | None = self.core._optimizer if self.method == "famo" else self.core.optimiser
        return adam


def _make(method: str, num_tasks: int, options: dict[str, float]) -> Any:
    from torchjd import aggregation, scalarization

    make: Any
    settings: dict[str, Any] = {}
    if method in ("static", "log_sum"):
        if options:
            raise ConfigError(f"training.balancing_options: method '{method}' takes none")
        return nn.Identity()
    if method == "gradnorm":
        make = GradNorm
    elif method in LOSS_METHODS:
        name, settings = LOSS_METHODS[method]
        make = getattr(scalarization, name)
    else:
        name, settings = GRADIENT_METHODS[method]
        make = getattr(aggregation, name)
    sized = [num_tasks] if method in _SIZED else []
    try:
        return make(*sized, **settings | options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training.balancing_options: method '{method}' does not take them ({error})") from error
    except ImportError as error:
        raise ConfigError(f"training.balancing: method '{method}' needs a package ({error})") from error
