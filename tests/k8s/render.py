"""The manifests as kustomize renders them, or as it last did; run as a program, this renews the golden files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("dev", "prod")


def golden(overlay: str) -> Path:
    return ROOT / "tests" / "golden" / f"k8s-{overlay}.yaml"


def renderer() -> list[str] | None:
    """A command that takes a folder, or None. kubectl before 1.27 knows too little of kustomize."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if kubectl := shutil.which("kubectl"):
        said = subprocess.run([kubectl, "version", "--client", "-o", "yaml"], capture_output=True, text=True)
        version = (yaml.safe_load(said.stdout) or {}).get("clientVersion", {}) if said.returncode == 0 else {}
        if int(version.get("minor", "0").rstrip("+")) >= 27:
            return [kubectl, "kustomize"]
    return None


def render(folder: Path) -> str:
    """Render a folder; neither a cluster nor a configuration of one is looked at."""
    command = renderer()
    if command is None:
        raise FileNotFoundError("neither kustomize nor kubectl 1.27 or newer is installed")
    environment = os.environ | {"KUBECONFIG": os.devnull}
    return subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, check=True
    ).stdout


def documents(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


if __name__ == "__main__":
    if renderer() is None:
        sys.exit("mtrec: neither kustomize nor kubectl 1.27 or newer is installed: tests/golden/k8s-*.yaml stay")
    for name in OVERLAYS:
        golden(name).write_text(render(ROOT / "k8s" / "overlays" / name), encoding="utf-8")
