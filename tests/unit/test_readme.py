"""What the README shows exists and is true."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from pipelines.cli import app


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_links_and_pictures_exist(readme: str, repository: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    assert len(targets) > 5
    for target in targets:
        assert (repository / target).exists(), target


def test_make_targets_exist(readme: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^make (\S+)", readme, flags=re.MULTILINE))
    assert {"run", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_commands_and_options_exist(readme: str) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [line.split("mtrec ", 1)[1] for line in lines if re.match(r"(\.venv/bin/)?mtrec ", line)]
    assert len(commands) > 5
    for line in commands:
        words = shlex.split(line, comments=True)
        command: Any = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"no such command: mtrec {line}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_shown_tasks_are_those_of_the_scenario(readme: str, repository: Path) -> None:
    shown = re.findall(r"```yaml\n(tasks:.*?)```", readme, flags=re.DOTALL)[0]
    assert shown.strip() in (repository / "scenarios" / "ecommerce.yaml").read_text(encoding="utf-8")
