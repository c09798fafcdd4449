import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

from mtrec.errors import InputError, RunError
from pipelines import port_forward
from pipelines.kfp_server import Access, connect
from pipelines.port_forward import forwarded
from tests.kfp_stand_in import StandIn


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl of our own, first on PATH; the test writes what it does."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    file = tmp_path / "kubectl"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def says(kubectl: Path, script: str) -> None:
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {kubectl}.arguments\necho $$ > {kubectl}.pid\n{script}\n')


def test_the_server_is_reached_and_kubectl_is_gone_afterwards(kubectl: Path) -> None:
    with StandIn().running() as stand_in:
        port = stand_in.url.rpartition(":")[2]
        says(kubectl, f"echo 'Forwarding from 127.0.0.1:{port} -> 8888'\nexec sleep 60")
        with connect(Access(installed="pipelines", context="prod")) as server:
            assert server.runs(1) == []
            assert server.home == "pipelines"
            assert server.run_link("x") == ""  # the forwarded port is not the page's
    given = kubectl.with_name("kubectl.arguments").read_text().strip()
    assert given == "--context prod -n pipelines port-forward svc/ml-pipeline :8888 --address 127.0.0.1"
    pid = kubectl.with_name("kubectl.pid").read_text().strip()
    assert subprocess.run(["ps", "-p", pid], capture_output=True, check=False).returncode == 1


def test_it_is_started_again_on_the_same_port_when_it_has_ended(
    kubectl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forward, "_AGAIN_S", 0.05)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = f"exec {sys.executable} -m http.server {port} --bind 127.0.0.1 --directory {kubectl.parent}"
    says(
        kubectl, f"printf '%s\\n' \"$*\" >> {kubectl}.all\necho 'Forwarding from 127.0.0.1:{port} -> 8888'\n{serve}"
    )

    def ask(url: str) -> str:
        """The number of the process that answers."""
        retries = urllib3.Retry(200, backoff_factor=0.1, backoff_max=0.1)
        return urllib3.request("GET", f"{url}/kubectl.pid", retries=retries).data.decode().strip()

    with forwarded("ml-pipeline", 8888, namespace="n") as url:
        first = ask(url)
        os.kill(int(first), signal.SIGKILL)
        second = ask(url)
        assert second != first
    assert subprocess.run(["ps", "-p", second], capture_output=True, check=False).returncode == 1
    first_call, second_call = Path(f"{kubectl}.all").read_text().splitlines()
    assert second_call == first_call.replace(" :8888", f" {port}:8888") != first_call


def test_kubectls_own_last_words_are_told(kubectl: Path) -> None:
    says(kubectl, "echo 'error: services \"ml-pipeline\" not found' >&2; exit 1")
    with pytest.raises(RunError, match=r'failed: error: services "ml-pipeline" not found; give'), connect(Access()):
        pass


def test_a_kubectl_that_says_nothing(kubectl: Path) -> None:
    says(kubectl, "exec sleep 60")
    begin = time.monotonic()
    with pytest.raises(RunError, match="no answer within 1 s"), forwarded("a", 1, namespace="b", seconds=1):
        pass
    assert time.monotonic() - begin < 10


def test_no_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="kubectl is not installed"), forwarded("a", 1, namespace="b"):
        pass
