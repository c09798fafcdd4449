"""Fixtures for the runner: the small stages, and the mtrec command in its own process."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

SMALL = Path(__file__).parent / "small_stages"

Mtrec = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True, scope="session")
def stacks_without_sources() -> Iterator[None]:
    """kfp asks for the stack at every setting of a task; with sources that takes seconds where much is loaded."""
    from kfp.dsl import pipeline_task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=lambda: inspect.stack(0)))
        yield


@pytest.fixture
def small_stages(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every step's process take the small stages; call it to ask one of them to misbehave."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SMALL), os.environ.get("PYTHONPATH")])))
    monkeypatch.delenv("SMALL_STAGES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda wishes: monkeypatch.setenv("SMALL_STAGES", wishes)


@pytest.fixture
def mtrec(tmp_path: Path) -> Mtrec:
    """Run the mtrec command in a process of its own, in the test's folder."""

    def call(
        *arguments: str, cwd: Path = tmp_path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    return call
