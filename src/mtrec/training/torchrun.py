"""The nodes of a job as torchrun agents on this machine.

They get the command that the nodes of a TrainJob get, and the PET_ variables that Trainer's torch policy sets
there. The SDK's own local backend cannot do it: it takes a function's source instead of a command, and runs it in a
fresh environment without torch.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mtrec.errors import RunError
from mtrec.training.nodes import End, Job

_GRACE_SECONDS = 40.0
"""For the other nodes once one has failed, and for the agents once they were asked to end: torchrun itself gives
its processes 30 s."""
_OF_THE_STEP = ("MTREC_NODE", "MTREC_FAILURES")
"""By these a step notes that its next tries are of no use (`mtrec.stages.retrying`), which is not for a process to
judge that lost another."""


class Torchrun:
    """See `mtrec.training.nodes.Nodes`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._agents: list[subprocess.Popen[str]] = []
        self._lines: queue.Queue[tuple[int, str]] = queue.Queue()
        self._readers: list[threading.Thread] = []
        self._late = False

    def start(self, *, adopt: bool) -> None:
        """Start one agent per node. There is never an earlier attempt to go on with.

        Raises:
            RunError: torchrun is missing.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        known = {name: value for name, value in os.environ.items() if name not in _OF_THE_STEP}
        self._deadline = time.monotonic() + self.job.place.deadline_seconds
        for node in range(self.job.place.num_nodes):
            told = {
                "PET_NNODES": str(self.job.place.num_nodes),
                "PET_NODE_RANK": str(node),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            try:
                agent = subprocess.Popen(
                    self.job.command,
                    env={**known, **self.job.env, **told, "PATH": path},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                )
            except FileNotFoundError as error:
                raise RunError(f"{self.job.command[0]} is not installed; it comes with torch") from error
            self._agents.append(agent)
            self._readers.append(threading.Thread(target=self._read, args=(node,), daemon=True))
            self._readers[-1].start()

    def lines(self) -> Iterator[tuple[int, str]]:
        """Every node's lines as they come."""
        failed = None
        while any(reader.is_alive() for reader in self._readers) or not self._lines.empty():
            with suppress(queue.Empty):
                yield self._lines.get(timeout=0.2)
                continue
            now = time.monotonic()
            codes = [agent.poll() for agent in self._agents]
            if failed is None and any(codes):
                failed = now
            self._late = self._late or (now > self._deadline and None in codes)
            if self._late or (failed and now - failed > _GRACE_SECONDS):
                self.delete()

    def end(self) -> End:
        """Complete where every agent ended with 0."""
        codes = [agent.wait() for agent in self._agents]
        if self._late:
            return End(complete=False, reason=f"not done after {self.job.place.deadline_seconds} s", lost=True)
        failed = [f"node {node} ended with exit code {code}" for node, code in enumerate(codes) if code]
        return End(complete=not failed, reason="; ".join(failed))

    def delete(self) -> None:
        """End the agents, which end their processes; kill what does not."""
        import psutil

        running = [agent for agent in self._agents if agent.poll() is None]
        family: list[psutil.Process] = []
        for agent in running:
            with suppress(psutil.NoSuchProcess):
                family += psutil.Process(agent.pid).children(recursive=True)
            agent.terminate()
        for agent in running:
            try:
                agent.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                agent.kill()
        for process in psutil.wait_procs(family, timeout=1)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _read(self, node: int) -> None:
        stream = self._agents[node].stdout
        assert stream is not None
        for line in stream:
            self._lines.put((node, line.rstrip("\n")))
