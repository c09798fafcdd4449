"""Whether a process has ended: only what ran here, in this namespace, can be known to be gone."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mtrec.processes import is_gone, me

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_processes_are_told_apart() -> None:
    process = me()
    assert not is_gone(process)
    assert not is_gone({**process, "host": "another machine", "pid": 1}), "it cannot be known"
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_gone({**process, "pid": other.pid}), "another process has its number now"
    as_before = {**process, "pid": other.pid, "started": psutil.Process(other.pid).create_time()}
    assert not is_gone(as_before), "an mtrec of before wrote seconds"
    assert is_gone({**as_before, "started": 5.0})
    other.kill()
    other.wait()
    assert is_gone(as_before)
    assert not is_gone(None)


@ON_LINUX
def test_setting_the_clock_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    process, created = me(), psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3600)
    assert not is_gone(process)


@ON_LINUX
def test_of_two_containers_with_one_name_neither_knows_of_the_other() -> None:
    process = me()
    assert str(Path("/proc/self/ns/pid").readlink()) in str(process["host"])
    assert not is_gone({**process, "host": str(process["host"]).replace("pid:[", "pid:[1"), "pid": 2**22 + 1})


@ON_LINUX
def test_a_boot_ends_everybody() -> None:
    process = me()
    assert is_gone({**process, "started": f"another-boot {str(process['started']).split()[1]}"})
