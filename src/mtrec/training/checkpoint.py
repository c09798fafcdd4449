"""Checkpoints: safetensors for arrays, JSON for the rest, complete or not there at all.

A run is deterministic from (weights, optimiser, text vectors, step), because data order and random draws depend
only on the seed, the epoch and the step. That is all a checkpoint holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtrec.data.contract import recover, replacing_folder
from mtrec.errors import RunError
from mtrec.training.distributed import placed

FILES = ("tensors.safetensors", "state.json")


def save_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Write groups of tensors and plain JSON state, replacing the checkpoint that was there."""
    flat = {
        f"{group}/{name}": t.detach().contiguous() for group, named in tensors.items() for name, t in named.items()
    }
    with replacing_folder(folder) as temporary:
        save_file(flat, temporary / FILES[0])
        (temporary / FILES[1]).write_text(json.dumps(state), encoding="utf-8")


def has_checkpoint(folder: Path | None, key: str) -> bool:
    """Whether a run of that key would be resumed there.

    Raises:
        RunError: the checkpoint is damaged.
    """
    if folder is None:
        return False
    recover(folder)
    if not all((folder / name).is_file() for name in FILES):
        return False
    try:
        return bool(json.loads((folder / FILES[1]).read_text(encoding="utf-8"))["key"] == key)
    except (ValueError, LookupError, TypeError) as error:
        raise damaged(folder, error) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """Read what `save_checkpoint` wrote; None when there is no checkpoint.

    Where a kill came between the old checkpoint and the new one, this is the old one.

    Raises:
        RunError: the checkpoint is damaged.
    """
    recover(folder)
    if not all((folder / name).is_file() for name in FILES):
        return None
    try:
        flat = load_file(folder / FILES[0])
        state = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
    except Exception as error:
        raise damaged(folder, error) from error
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = tensor
    return groups, state


def damaged(folder: Path | None, error: Exception) -> RunError:
    """What to raise when a checkpoint cannot be used."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RunError(f"{folder}: the checkpoint is damaged ({reason}); delete the folder to start anew")


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: `<parameter number>.<name>`."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, values in state.items() for name, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for n, values in state.items():
        state[n] = placed(values, dict.fromkeys(values, parameters[n]))
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
