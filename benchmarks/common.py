"""What the benchmark scripts share: where the public data is, and results as JSON lines."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

Result = dict[str, Any]


def folder_of(name: str) -> Path:
    """Where a public data set lies: in MTREC_DATA, or in ../shared/data beside the repository."""
    return Path(os.environ.get("MTREC_DATA") or ROOT.parent / "shared" / "data") / name


def folders_of(parser: argparse.ArgumentParser, names: Mapping[str, str | None]) -> dict[str, Path | None]:
    """Folders of data sets, None where the name is None; ends the program with one line when some are missing."""
    folders = {key: folder_of(name) if name else None for key, name in names.items()}
    check_folders(parser, [folder for folder in folders.values() if folder])
    return folders


def check_folders(
    parser: argparse.ArgumentParser, folders: Iterable[Path], way_out: str = "set MTREC_DATA"
) -> None:
    """End the program with one line when some folders are missing."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        parser.error(f"no such folder: {', '.join(missing)}; {way_out}")


def add_output_options(parser: argparse.ArgumentParser, *, table: bool = True) -> None:
    """The options --out and, with `table`, --table."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="add each JSON line to this file, too")
    if table:
        parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="print the tables of such files")


class Results:
    """Results of one run: printed as JSON lines as they come, and added to a file if one is given."""

    def __init__(self, out: Path | None = None) -> None:
        self.all: list[Result] = []
        self._out = out
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)

    def add(self, result: Result) -> None:
        """Print and keep a result."""
        self.all.append(result)
        line = json.dumps(result)
        print(line, flush=True)
        if self._out:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def read_results(files: Iterable[Path], keys: Sequence[str]) -> Iterator[Result]:
    """The JSON lines of result files, in order.

    Args:
        files: written by `Results`.
        keys: what every result has.

    Raises:
        ValueError: a line is not a result; the message says where.
    """
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                result = json.loads(line)
                _ = [result[key] for key in keys]
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(f"{file}:{number}: not a result line ({error!r}); take the line out") from error
            yield result


def print_tables(
    parser: argparse.ArgumentParser,
    files: Sequence[Path],
    table: Callable[[list[Result]], str],
    keys: Sequence[str],
) -> None:
    """Print the tables of result files; ends the program with one line when one cannot be read."""
    try:
        print(table(list(read_results(files, keys))))
    except (OSError, ValueError) as error:
        parser.error(str(error))
