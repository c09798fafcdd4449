import importlib.util
from types import ModuleType
from typing import Any

import pytest

from tests.k8s.render import OVERLAYS, ROOT, documents, golden


@pytest.fixture(scope="session")
def check() -> ModuleType:
    """k8s/check.py, which is no package: it runs wherever Python and PyYAML are."""
    spec = importlib.util.spec_from_file_location("check", ROOT / "k8s" / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def manifests(overlay: str) -> list[dict[str, Any]]:
    """The committed manifests of an overlay; test_manifests.py holds them against the sources."""
    return documents(golden(overlay).read_text(encoding="utf-8"))


@pytest.fixture
def dev() -> list[dict[str, Any]]:
    return documents(golden("dev").read_text(encoding="utf-8"))
