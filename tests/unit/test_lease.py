"""A lease in a file: what is its own; what leases have in common is in test_lease_stores.py."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mtrec.errors import RunError
from mtrec.lease import Held, Lease

HOLDER = (
    "import sys, time; from pathlib import Path; from mtrec.lease import Lease, holding\n"
    "with holding(Lease(Path(sys.argv[1]), seconds=600), 'work'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_killed_holder_of_this_machine_blocks_nobody(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "shop.json")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    lease = Lease(tmp_path / "shop.json")
    with pytest.raises(Held):
        lease.acquire("x")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lease.acquire("x")


def test_a_holder_that_was_killed_on_another_machine_blocks_no_longer_than_its_time(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "shop.json"
    Lease(path, seconds=60, clock=clock).acquire("x")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another", "process": 2**22 + 1}))
    with pytest.raises(Held):
        Lease(path, clock=clock).acquire("x")
    clock.now += 61
    Lease(path, clock=clock).acquire("x")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the clock is all there is")
def test_setting_the_clock_frees_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lease(tmp_path / "shop.json").acquire("x")
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3600)
    with pytest.raises(Held):
        Lease(tmp_path / "shop.json").acquire("x")


def test_a_lease_that_an_mtrec_of_before_wrote_lasts_its_time(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "shop.json"
    Lease(path, seconds=60, clock=clock).acquire("x")
    before = {"host": socket.gethostname(), "born": psutil.Process().create_time()}
    path.write_text(json.dumps(json.loads(path.read_text()) | before))
    with pytest.raises(Held):
        Lease(path, clock=clock).acquire("x")
    clock.now += 61
    assert Lease(path, clock=clock).acquire("x") == 2


def test_a_long_write_under_the_guard_keeps_the_lease_its_holders(tmp_path: Path) -> None:
    """The step that writes is another process than the holder."""
    clock = Clock()
    path = tmp_path / "shop.json"
    lease = Lease(path, seconds=60, clock=clock)
    lease.acquire("retraining of shop")
    before = json.loads(path.read_text()) | {"host": "another", "process": 7, "born": 1.0}
    path.write_text(json.dumps(before))
    step = Lease.from_text(lease.as_text())
    step.clock, step.seconds = clock, 60
    with step.guarded():
        clock.now += 3600
    assert json.loads(path.read_text()) == before | {"expires": clock.now + 60}
    with pytest.raises(Held):
        Lease(path, clock=clock).acquire("x")


def test_who_finds_somebody_writing_is_told_so_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtrec.lease._PATIENCE", 0.1)
    lease = Lease(tmp_path / "shop.json")
    lease.acquire("retraining of shop")
    said = r"^retraining of shop is under way already \(.*process \d+.*shop\.json; wait for it$"
    with lease.guarded(), pytest.raises(Held, match=said):
        Lease(tmp_path / "shop.json").acquire("x")


def test_of_many_processes_one_gets_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from mtrec.lease import Held, Lease\n"
        "try:\n    Lease(Path(sys.argv[1])).acquire('work'); print('mine', flush=True)\n"
        "except Held:\n    print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "shop.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, **pipes, text=True) for _ in range(4)]
    said = sorted(process.stdout.readline().strip() for process in processes if process.stdout is not None)
    for process in processes:
        process.communicate()
    assert said == ["held", "held", "held", "mine"]


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "shop.json"
    path.write_text("{")
    with pytest.raises(RunError, match="not a lock file"):
        Lease(path).acquire("x")
