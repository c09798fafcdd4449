"""Joining the other processes of a run, and leaving them when one of them fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from mtrec.config import Training
from mtrec.errors import ModelError, RunError
from mtrec.launch import launched
from mtrec.models.encoder import choose_device
from mtrec.training.distributed import Processes

WAIT = timedelta(hours=2)
"""How long a process waits for the others, above all while the first one validates. A death ends it at once."""
JOIN = timedelta(minutes=10)
"""How long a process waits for the others to start."""
LOST = ("Connection closed", "Connection reset", "Broken pipe", "imed out", "remote process exited")
"""What gloo and NCCL say when a process at the other end is gone."""


@contextmanager
def joined(settings: Training) -> Iterator[Processes]:
    """Join the other processes of this run, if torchrun started several; leave them at the end.

    What is raised in one process ends all: that one raises it, the others leave without a word. Where a process
    was killed, the first of the others to notice says so.

    Raises:
        ConfigError: the environment names several processes, but not how to reach them.
        ModelError: a process has no GPU of its own.
        RunError: a process was lost.
        SystemExit: another process has failed and says why.
    """
    launch = launched()
    if launch.size == 1:
        yield Processes()
        return
    try:
        store, rank, size = next(iter(dist.rendezvous("env://", timeout=JOIN)))
        # A process may train several times; it cannot come a second time before all have come once.
        store = dist.PrefixStore(f"mtrec/{(store.add('mtrec/joined', 1) - 1) // size}", store)
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"training: process {launch.rank + 1} of {launch.size} cannot reach the others ({_line(error)})"
        ) from error
    try:
        device = choose_device(settings.device)
        if device.type == "cuda":
            if launch.local_rank >= torch.cuda.device_count():
                raise ModelError(
                    f"training: process {launch.local_rank + 1} of this machine has no GPU, there are "
                    f"{torch.cuda.device_count()}; start fewer with --nproc-per-node, or set training.device to cpu"
                )
            device = torch.device("cuda", launch.local_rank)
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAIT)
        yield Processes(rank, size, shards=settings.parallel == "fsdp", device=device)
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        failure = _failure(error, store)
        if failure is error:
            raise
        raise failure from error


def _failure(error: Exception, store: dist.Store) -> BaseException:
    """What to raise: only the first process that fails tells why."""
    try:
        first = store.add("failed", 1) == 1
    except Exception:  # whoever kept the store is gone
        first = True
    if not first:
        return SystemExit(1)
    if not isinstance(error, RuntimeError) or not any(sign in str(error) for sign in LOST):
        return error
    return RunError(
        "training: another process was lost, killed or out of memory; the last checkpoint is untouched, and the "
        "same command goes on from there"
    )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
