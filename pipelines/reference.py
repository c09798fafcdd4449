"""The reference of the command line, docs/cli.md, written from the commands themselves.

`python -m pipelines.reference docs` writes it into the folder docs, beside it those of scenario and cluster files.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtrec.data.contract import replacing_file
from pipelines.cluster_reference import cluster_reference
from pipelines.scenario_reference import scenario_reference

_HEAD = """# The `mtrec` command

Written by `make docs` from the command's own help; a test fails when it is out of date.
"""


def write_references(folder: Path) -> None:
    """Write cli.md, every command and option, and every key of a scenario and of a cluster file."""
    pages = {"cli.md": reference(), "scenario.md": scenario_reference(), "cluster-file.md": cluster_reference()}
    for name, text in pages.items():
        with replacing_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def reference() -> str:
    """The reference of every command and option, in Markdown."""
    return "\n".join([_HEAD, *(_section(name, command) for name, command in commands())])


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help."""
    import typer

    from pipelines.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name, command
        for child, found in (children or {}).items():
            yield from walk(f"{name} {child}", found)

    yield from walk("mtrec", typer.main.get_command(app))


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *(p.metavar or str(p.name).upper() for p in arguments), "[OPTIONS]"])
    lines = [f"## `{name}`", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
    if arguments or options:
        lines += ["| argument or option | what it does | default |", "|---|---|---|"]
        lines += [f"| `{p.metavar or str(p.name).upper()}` | {p.help} | |" for p in arguments]
        lines += [f"| {_names(p)} | {p.help} | {_default(p)} |" for p in options]
        lines.append("")
    return "\n".join(lines)


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'N'}".replace("|", "\\|")
    return ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag:
        return f"`{option.opts[0]}`" if option.default and option.secondary_opts else ""
    return "" if option.default in (None, [], ()) else f"`{option.default}`"


if __name__ == "__main__":
    write_references(Path(sys.argv[1]))
