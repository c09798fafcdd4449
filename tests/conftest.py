"""Fixtures shared by all tests."""

import os
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("mtrec", deadline=None)
hypothesis.settings.load_profile("mtrec")

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Tests run two at a time; processes that share two cores wait for each other's threads otherwise."""

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    # Before any test module is imported: the hub's client reads its variable once.
    os.environ.update(HF_HUB_OFFLINE="1", DVC_NO_ANALYTICS="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets, from MTREC_DATA or beside the repository."""
    folder = Path(os.environ.get("MTREC_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no public data sets: {folder} is not a folder (set MTREC_DATA)")
    return folder
