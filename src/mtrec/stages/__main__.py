"""Run one stage from a shell, as dvc.yaml does.

python -m mtrec.stages NAME --scenario SCENARIO --input FIELD=VALUE --output FIELD=PATH

fine_tune also runs in several processes: torchrun --nproc-per-node N -m mtrec.stages fine_tune …
With --marked progress and failure are lines that another process reads, as those of a component are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mtrec.config import load_scenario
from mtrec.data.contract import replacing_file
from mtrec.disk import explain
from mtrec.errors import ConfigError, MtrecError
from mtrec.launch import launched
from mtrec.progress import Progress, listening
from mtrec.stages.execution import KNOWN, run_component, run_stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and print its summary as JSON.

    Returns:
        The exit code: 0, or the error's after printing `mtrec: <message>`.
    """
    parser = argparse.ArgumentParser(prog="python -m mtrec.stages", description=__doc__)
    parser.add_argument("name", choices=KNOWN, metavar="NAME", help=f"one of {', '.join(KNOWN)}")
    parser.add_argument("--scenario", required=True, help="name or path of a scenario")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--input", action="append", default=[], metavar="FIELD=VALUE", help="an input")
    parser.add_argument("--output", action="append", default=[], metavar="FIELD=PATH", help="an output")
    parser.add_argument("--marked", action="store_true", help="tell progress and failure in marked lines")
    parser.add_argument("--summary", type=Path, metavar="PATH", help="write the summary there; else it is printed")
    options = parser.parse_args(arguments)
    speaks = True  # of several processes only the first one tells what all of them find
    try:
        launch = launched()
        speaks = launch.leads
        if launch.size > 1 and options.name != "fine_tune":
            raise ConfigError(f"stage '{options.name}' runs in one process; only fine_tune takes several")
        scenario = load_scenario(options.scenario, options.set)
        inputs, outputs = _pairs(options.input, "--input"), _pairs(options.output, "--output")
        speaks = True
        if options.marked:
            text = json.dumps(scenario.as_dict())
            summary = run_component(options.name, inputs=inputs, outputs=outputs, scenario=text)
        else:
            with listening(_print_progress):
                summary = run_stage(options.name, inputs=inputs, outputs=outputs, scenario=scenario)
        if launch.leads and options.summary:
            with replacing_file(options.summary) as temporary:
                temporary.write_text(json.dumps(summary, default=str), encoding="utf-8")
    except (MtrecError, OSError) as error:
        told = error if isinstance(error, MtrecError) else explain(error)
        if told is None:
            raise
        if speaks:
            print(f"mtrec: {told}", file=sys.stderr)
        return told.exit_code
    if launch.leads and not options.summary:
        print(json.dumps(summary, indent=2, default=str))
    return 0


def _pairs(items: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for item in items:
        field, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"{option} {item}: write it as field=value")
        pairs[field] = value
    return pairs


def _print_progress(progress: Progress) -> None:
    share = "" if progress.fraction is None else f" {progress.fraction:4.0%}"
    print(f"{progress.stage}{share} {progress.message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
