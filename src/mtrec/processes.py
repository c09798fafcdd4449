"""Processes as others on the machine recognise them, also where the clock was set or a number is used again."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def me() -> dict[str, str | int | float]:
    """This process, so that others on the machine can tell whether it still lives."""
    started = _started(os.getpid())
    assert started is not None
    return {"host": _host(), "pid": os.getpid(), "started": started}


def is_gone(process: object) -> bool:
    """Whether a process, as `me` told it, ran on this machine and has ended."""
    if not isinstance(process, dict) or process.get("host") != _host():
        return False
    known, pid = process["started"], int(process["pid"])
    started = _started(pid) if isinstance(known, str) else _created(pid)
    if isinstance(started, float):
        return abs(started - float(known)) > 1
    return started != known


def _started(pid: int) -> str | float | None:
    """When a process began: by Linux in ticks since the boot, elsewhere in seconds since the epoch."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        return _created(pid)
    try:
        ticks = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{boot.read_text(encoding='ascii').strip()} {ticks}"


def _created(pid: int) -> float | None:
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None


def _host() -> str:
    """The machine's name and, as containers may share it, the process namespace."""
    try:
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
