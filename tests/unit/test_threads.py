"""Threads that wait leave the processor to others."""

import os
import subprocess
import sys

import pytest


def shown(**environment: str) -> str:
    """What OpenMP prints of its settings when torch is loaded after mtrec."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-c", "import mtrec, torch; torch.rand(9) + 1"]
    done = subprocess.run(
        command, env={**kept, "OMP_DISPLAY_ENV": "true", **environment}, capture_output=True, text=True, check=True
    )
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch's OpenMP does not show its settings")
    return done.stderr


def test_threads_do_not_spin() -> None:
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in shown()


def test_a_policy_that_is_set_stays() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in shown(OMP_WAIT_POLICY="active")
