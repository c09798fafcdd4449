"""A way to a service inside a cluster for people whose kubeconfig reaches it: `kubectl port-forward`."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue

from mtrec.errors import InputError, RunError

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_AGAIN_S = 1.0
"""Before kubectl is started again."""


@contextmanager
def forwarded(service: str, port: int, *, namespace: str, context: str = "", seconds: float = 20) -> Iterator[str]:
    """Forward a free local port to a service while the block runs, again and again where kubectl ends before it.

    Args:
        service: its name: ml-pipeline.
        port: of the service.
        namespace: in which the service is.
        context: of the kubeconfig; empty for the current one.
        seconds: how long kubectl may take.

    Returns:
        The address: http://127.0.0.1:PORT.

    Raises:
        InputError: there is no kubectl.
        RunError: kubectl gave up, or took too long; the message has its own last words.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise InputError("kubectl is not installed: install it, or give the server's address with --host")
    what = f"kubectl port-forward svc/{service} in namespace {namespace}"
    where = ["--context", context] if context else []
    command = [kubectl, *where, "-n", namespace, "port-forward", f"svc/{service}"]
    child = _start(command, f":{port}", subprocess.PIPE)
    keeper = None
    try:
        local = _port(child, what, seconds)
        keeper = _Keeper(child, command, f"{local}:{port}")
        keeper.start()
        yield f"http://127.0.0.1:{local}"
    finally:
        if keeper is None:
            _stop(child)
        else:
            keeper.end()


class _Keeper(threading.Thread):
    """Starts kubectl again on the same port when it has ended: a pod of the service began anew, or nobody asked."""

    def __init__(self, child: subprocess.Popen[str], command: list[str], ports: str) -> None:
        super().__init__(daemon=True)
        self._child, self._command, self._ports = child, command, ports
        self._over, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        while True:
            self._child.wait()
            if self._over.wait(_AGAIN_S):
                return
            with self._lock:
                if self._over.is_set():
                    return
                with suppress(OSError):  # no process can be started now: the next time, perhaps
                    self._child = _start(self._command, self._ports, subprocess.DEVNULL)

    def end(self) -> None:
        with self._lock:
            self._over.set()
            _stop(self._child)
        self.join()


def _start(command: list[str], ports: str, output: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, ports, "--address", "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: what follows may still need the way
    )


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)
    if child.poll() is None:
        child.kill()
        child.wait()


def _port(child: subprocess.Popen[str], what: str, seconds: float) -> str:
    said: Queue[str] = Queue()

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            said.put(line.strip())
        said.put("")

    threading.Thread(target=listen, daemon=True).start()  # reads on: a full pipe would stop kubectl
    last = "it ended without a word"
    while True:
        try:
            line = said.get(timeout=seconds)
        except Empty:
            raise RunError(f"{what}: no answer within {seconds:.0f} s; is the cluster there?") from None
        if found := _FORWARDING.search(line):
            return found[1]
        if not line:
            raise RunError(f"{what} failed: {last}; give the server's address with --host")
        last = line
