"""How this process was started: alone, or as one of several by torchrun or a Kubeflow TrainJob.

The one place that reads the launcher's environment. It needs no torch, so that a command can ask before anything
heavy is imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from mtrec.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The place of this process among those of its run."""

    rank: int = 0
    local_rank: int = 0
    """Its number on its machine, which is also that of its GPU."""
    size: int = 1
    """Processes in all, on all machines."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes, logs and shows progress."""
        return self.rank == 0


def launched() -> Launch:
    """Read WORLD_SIZE, RANK and LOCAL_RANK as torchrun sets them; one process where they are not set.

    Raises:
        ConfigError: there are several processes, but a variable is missing or no number.
    """
    size = _number("WORLD_SIZE", "1")
    if size <= 1:
        return Launch()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set; start the processes with torchrun, or "
            "unset WORLD_SIZE for one process"
        )
    return Launch(rank=_number("RANK", "0"), local_rank=_number("LOCAL_RANK", "0"), size=size)


def _number(name: str, default: str) -> int:
    value = os.environ.get(name) or default
    if not value.isdecimal():
        raise ConfigError(f"{name}: '{value}' is no number; start the processes with torchrun, or unset it")
    return int(value)
