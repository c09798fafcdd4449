"""docs/operations.md names what exists: commands, options, targets, files, secrets."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipelines.cli import app


@pytest.fixture(scope="module")
def guide(repository: Path) -> str:
    return (repository / "docs" / "operations.md").read_text(encoding="utf-8")


def _commands(guide: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", guide, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    said = [line for line in lines if line.strip()]
    said += re.findall(r"`(mtrec (?:models|data) [^`]*)`", guide)
    return [shlex.split(part) for line in said for part in re.split(r" \| | && ", line)]


def test_every_mtrec_command_and_its_options_exist(guide: str) -> None:
    named = [words[1:] for words in _commands(guide) if words[0] == "mtrec"]
    assert len(named) > 8
    for words in named:
        left = list(words)
        command: Any = typer.main.get_command(app)
        while left and left[0] in getattr(command, "commands", {}):
            command = command.commands[left.pop(0)]
        assert not hasattr(command, "commands"), f"no such command: mtrec {' '.join(words)}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in left if word.startswith("--")} <= known, words


def test_make_targets_and_files_exist(guide: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for words in _commands(guide):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), words
        for word in words:
            if word.startswith("k8s/"):
                assert (repository / word).exists(), word
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", guide):
        assert (repository / "docs" / target).exists(), target


def test_links_within_pages_lead_to_a_heading(guide: str, repository: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", guide):
        page = guide if not file else (repository / "docs" / file).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w -]", "", line).strip() for line in re.findall(r"^#+ (.*)$", page, flags=re.M)]
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


def test_the_secrets_are_made_with_the_keys_that_the_manifests_want(guide: str, repository: Path) -> None:
    made = {
        f"{words[2]}/{words[6]}": {re.split("[=]", w)[1] for w in words[7:] if w.startswith("--from-")}
        for words in _commands(guide)
        if words[0] == "kubectl" and words[3:6] == ["create", "secret", "generic"]
    }
    rows = re.findall(r"^\| `(m\w+/[\w-]+)` \| ([\w, -]+) \|", (repository / "k8s" / "README.md").read_text(), re.M)
    wanted = {name: set(keys.split(", ")) for name, keys in rows}
    assert made == wanted


def test_sizes_are_those_of_the_manifests(guide: str, repository: Path) -> None:
    server = (repository / "k8s" / "base" / "mlflow" / "server.yaml").read_text()
    assert "requests: {cpu: 250m, memory: 1Gi" in server
    assert 'limits: {cpu: "2", memory: 2Gi' in server
    assert "| MLflow, each of 2 | 0.25, at most 2 | 1, at most 2 GiB |" in guide
    node = (repository / "k8s" / "base" / "runs" / "trainingruntime.yaml").read_text()
    assert 'requests: {cpu: "2", memory: 8Gi' in node
    assert 'limits: {cpu: "8", memory: 16Gi' in node
    assert "| a node of a distributed training | 2, at most 8 | 8, at most 16 GiB |" in guide
