"""Flat files for DVC: metrics.json for `dvc metrics diff`, and one CSV per picture for `dvc plots`.

python -m mtrec.evaluation.export --evaluation FILE --losses FILE --metrics FILE --plots FOLDER

    losses/<task>.csv        step, value; also of all tasks together, and of the validation score
    metrics/<task>.csv       metric (with before, after or champion), value
    reliability/<task>.csv   predicted, observed, count
    cosines/<task>.csv       task, value: the mean cosine of the two tasks' gradients in training
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtrec.data.contract import replacing_file, replacing_folder
from mtrec.errors import MtrecError, RunError
from mtrec.evaluation.relations import relations


def flat_metrics(evaluation: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Every metric after fine-tuning: task → metric → value. What was not measured is left out."""
    return {
        task: {
            metric: values["after"]
            for metric, values in result["metrics"].items()
            if values.get("after") is not None
        }
        for task, result in evaluation["tasks"].items()
        if result["metrics"]
    }


def write_metrics(path: Path, evaluation: Mapping[str, Any]) -> None:
    """Write metrics.json.

    Args:
        path: the file.
        evaluation: content of evaluation.json.
    """
    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(flat_metrics(evaluation), indent=2) + "\n", encoding="utf-8")


def write_plots(folder: Path, evaluation: Mapping[str, Any], losses: Iterable[Mapping[str, Any]]) -> None:
    """Write the CSV files of the plots; the folder appears whole or not at all.

    Args:
        folder: holds losses/, metrics/, reliability/ and cosines/ afterwards.
        evaluation: content of evaluation.json.
        losses: lines of losses.jsonl.
    """
    losses = list(losses)
    with replacing_folder(folder) as temporary:
        _write(temporary / "losses", ("step", "value"), _loss_rows(losses))
        _write(temporary / "metrics", ("metric", "value"), _metric_rows(evaluation))
        _write(temporary / "reliability", ("predicted", "observed", "count"), _reliability_rows(evaluation))
        _write(temporary / "cosines", ("task", "value"), _cosine_rows(losses))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both from files.

    Returns:
        The exit code: 0, or the error's after printing `mtrec: <message>`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mtrec.evaluation.export", description=__doc__.partition("\n")[0]
    )
    for name in ("evaluation", "losses", "metrics", "plots"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        (evaluation,) = _read(options.evaluation, [options.evaluation.read_text(encoding="utf-8")])
        losses = _read(options.losses, options.losses.read_text(encoding="utf-8").splitlines())
        write_plots(options.plots, evaluation, losses)
        write_metrics(options.metrics, evaluation)
    except (MtrecError, OSError) as error:
        print(f"mtrec: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, MtrecError) else 1
    return 0


def _read(path: Path, texts: Iterable[str]) -> list[dict[str, Any]]:
    try:
        return [json.loads(text) for text in texts]
    except ValueError as error:
        raise RunError(f"{path}: not readable as JSON ({error})") from error


Rows = Mapping[str, Sequence[tuple[Any, ...]]]


def _loss_rows(lines: Iterable[Mapping[str, Any]]) -> Rows:
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for line in lines:
        if line["kind"] == "train":
            rows["all tasks"].append((line["step"], line["loss"]))
            for task, value in line["losses"].items():
                rows[task].append((line["step"], value))
        elif line["kind"] == "valid":
            rows["validation score"].append((line["step"], line["score"]))
    return rows


def _metric_rows(evaluation: Mapping[str, Any]) -> Rows:
    return {
        task: [
            (f"{metric} {model}", values[model])
            for metric, values in result["metrics"].items()
            for model in ("before", "after", "champion")
            if values.get(model) is not None
        ]
        for task, result in evaluation["tasks"].items()
    }


def _reliability_rows(evaluation: Mapping[str, Any]) -> Rows:
    return {
        task: [(entry["predicted"], entry["observed"], entry["count"]) for entry in result["reliability"]["bins"]]
        for task, result in evaluation["tasks"].items()
        if result.get("reliability")
    }


def _cosine_rows(losses: Sequence[Mapping[str, Any]]) -> Rows:
    found = relations(losses)
    if found is None:
        return {}
    return {
        task: [
            (other, pair.mean)
            for j, other in enumerate(found.tasks)
            if i != j and (pair := found.between(i, j)).mean is not None
        ]
        for i, task in enumerate(found.tasks)
    }


def _write(folder: Path, header: Sequence[str], rows: Rows) -> None:
    folder.mkdir()
    for name, table in rows.items():
        if table:
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([header, *table])


if __name__ == "__main__":
    sys.exit(main())
