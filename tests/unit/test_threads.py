"""Threads that wait leave the processor to others before long."""

import os
import subprocess
import sys

import pytest


def shown(**environment: str) -> str:
    """What OpenMP prints of its settings when torch is loaded after mtrec."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", "import mtrec, torch; torch.rand(9) + 1"]
    done = subprocess.run(
        command,
        env={**kept, "OMP_DISPLAY_ENV": "verbose", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch's OpenMP is not GNU's")
    return done.stderr


def test_threads_spin_shortly() -> None:
    assert "GOMP_SPINCOUNT = '10000'" in shown()


def test_what_is_set_stays() -> None:
    assert "GOMP_SPINCOUNT = '7'" in shown(GOMP_SPINCOUNT="7")
    assert "GOMP_SPINCOUNT = '10000'" not in shown(OMP_WAIT_POLICY="passive")
