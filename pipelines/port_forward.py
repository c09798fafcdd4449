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


@contextmanager
def forwarded(service: str, port: int, *, namespace: str, context: str = "", seconds: float = 20) -> Iterator[str]:
    """Forward a free local port to a service while the block runs.

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
    command = [kubectl, *where, "-n", namespace, "port-forward", f"svc/{service}", f":{port}"]
    child = subprocess.Popen(
        [*command, "--address", "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: what follows may still need the way
    )
    try:
        yield f"http://127.0.0.1:{_port(child, what, seconds)}"
    finally:
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
