"""What the README shows exists and is true."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mtrec import tracking
from mtrec.config import Scenario, load_scenario
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


def test_the_registered_model_is_used_as_shown(
    readme: str, uri: str, tiny_model: Path, scenario: Scenario, judged: Callable[..., dict[str, Path]]
) -> None:
    """The README's lines against a real registered model, and their answers in the form that the README shows."""
    lineage = dict.fromkeys(("data_version", "code_revision", "parameters_hash", "image", "pipeline_run"), "x")
    files = judged()
    tracking.register(
        tiny_model,
        evaluation=files["evaluation"],
        gate=files["gate"],
        report=files["report"],
        scenario=scenario,
        lineage=lineage,
    )
    code, shown = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, flags=re.DOTALL)[0]
    folder = Path(uri.removeprefix("sqlite:///")).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [_form(line) for line in done.stdout.splitlines()] == [_form(line) for line in shown.splitlines()]
    assert "scores=[#, #, #]" in _form(shown)


def _form(text: str) -> str:
    """The text without its numbers and without which items it names."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?…?", "#", re.sub(r"'i\d{5}'", "'item'", text))


def test_the_sources_shown_are_what_the_scenarios_want(readme: str, repository: Path) -> None:
    line = re.findall(r"^mtrec run --scenario online-retail .*$", readme, flags=re.MULTILINE)[0]
    mapped = load_scenario(repository / "scenarios" / "online-retail.yaml").source
    assert mapped.interactions is not None
    assert mapped.interactions.file in line
    (own,) = re.findall(r"^mtrec run --scenario my-shop.yaml .*$", readme, flags=re.MULTILINE)
    assert "docs/scenario.md" in own


def test_the_default_remote_is_where_the_readme_says(readme: str, repository: Path) -> None:
    assert "`.mtrec/dvc-remote`" in readme
    assert "url = ../.mtrec/dvc-remote" in (repository / ".dvc" / "config").read_text()
