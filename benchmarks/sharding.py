"""Time and peak memory of preprocessing in shards, against the one stage, on simulated interactions.

Every stage runs in a process of its own; the memory is the highest resident set that the system saw of it. The
files of both ways are compared byte for byte. Needs Unix.

    python -m benchmarks.sharding
    python -m benchmarks.sharding --interactions 12000000 --shards 16
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mtrec.data.sources.simulated import Dials, simulate

ROWS_PER_USER = 50


def make_tables(folder: Path, interactions: int) -> None:
    """Write contract tables of a simulated shop."""
    dials = {"num_users": interactions // ROWS_PER_USER, "num_items": 10_000, "num_interactions": interactions}
    simulate(Dials.parse(dials))[0].write(folder)


def measured(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak MiB of a process; ends the program where the process fails."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts bytes there, KiB elsewhere
    return time.monotonic() - start, usage.ru_maxrss / unit


def stage(name: str, inputs: dict[str, Path | int], outputs: dict[str, Path]) -> tuple[float, float]:
    """Seconds and peak MiB of a stage."""
    words = [word for key, value in inputs.items() for word in ("--input", f"{key}={value}")]
    words += [word for key, value in outputs.items() for word in ("--output", f"{key}={value}")]
    return measured([sys.executable, "-m", "mtrec.stages", name, "--scenario", "ecommerce", *words])


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other)]
    return files[0] == files[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="benchmarks.sharding"
    )
    parser.add_argument("--interactions", type=int, default=3_000_000, metavar="N")
    parser.add_argument("--shards", type=int, default=8, metavar="K")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # In a process of its own: the stages begin as copies of this one, which is charged to them.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_tables, args=(folder / "tables", options.interactions)
        )
        maker.start()
        maker.join()
        shards, items, parts = (folder / name for name in ("shards", "items", "parts"))
        rows = {"preprocess": stage("preprocess", {"tables": folder / "tables"}, {"dataset": folder / "whole"})}
        given: dict[str, Path | int] = {"tables": folder / "tables", "num_shards": options.shards}
        rows["shard"] = stage("shard", given, {"shards": shards, "items": items})
        each = [
            stage("preprocess_shard", {"shards": shards, "shard": number}, {"part": parts / str(number)})
            for number in range(options.shards)
        ]
        rows["preprocess_shard, the costliest"] = (max(s for s, _ in each), max(m for _, m in each))
        rows["join_shards"] = stage("join_shards", {"parts": parts, "items": items}, {"dataset": folder / "joined"})
        same = same_files(folder / "whole", folder / "joined")
    print(f"{options.interactions:,} interactions, {options.shards} shards, {os.cpu_count()} processors\n")
    print("| stage | seconds | peak MiB |\n|---|---:|---:|")
    for name, (seconds, memory) in rows.items():
        print(f"| {name} | {seconds:.1f} | {memory:.0f} |")
    print(f"\nfiles of both ways: {'the same' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
