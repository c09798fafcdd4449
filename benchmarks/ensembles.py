"""What an ensemble brings: models of different seeds alone, and joined with equal and with fitted shares.

All learn from the same rows, and all are judged on the same test rows.

    python -m benchmarks.ensembles --data FOLDER --split leave_last_out --members 3 --seeds 0 1 2
    python -m benchmarks.ensembles --data FOLDER --set training.epochs=4 --set model.encoder.train_layers=0
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Results, add_output_options
from benchmarks.ratings import load_tables
from mtrec.config import Scenario, load_scenario
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.splits import TEST
from mtrec.evaluation import metrics
from mtrec.evaluation.predict import predict
from mtrec.models.ensemble import Ensemble
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue, Recommender
from mtrec.models.store import new_model
from mtrec.stages.ensemble import Measured, fitted
from mtrec.stages.fine_tune import validation
from mtrec.training.loop import Trainer

Values = dict[str, float]


def measure(tables: Tables, scenario: Scenario, members: int, seed: int) -> dict[str, Any]:
    """Train members and join them.

    Args:
        tables: the data.
        scenario: all settings but the seed.
        members: how many.
        seed: of the first one; the others' follow in steps of 1000.

    Returns:
        The test value of every task's primary metric: `alone` (one mapping per member), `equal` and `fitted`; and
        the shares that were fitted.
    """
    dataset, encoding = prepare(tables, scenario)
    models, texts, alone = [], [], []
    for number in range(members):
        own = scenario.training.model_copy(update={"seed": seed + 1000 * number})
        bundle, view, catalogue = new_model(dataset, encoding, scenario.model_copy(update={"training": own}))
        trainer = Trainer(bundle, view, catalogue, validate=validation(scenario, encoding))
        trainer.fit()
        models.append(bundle.model.eval())
        texts.append(trainer.data.catalogue.text_NE)
        alone.append(test(models[-1], view, trainer.data.catalogue, scenario))
    joined = Ensemble(scenario.tasks, models).eval()
    together = replace(catalogue, text_NE=torch.cat(texts, dim=-1))
    equal = test(joined, view, together, scenario)
    judge = validation(scenario, encoding)
    with torch.no_grad():
        measured = Measured(joined, lambda: judge(joined, view, together), 1)
        each = [{name: [float(n == m) for m in range(members)] for name in scenario.tasks} for n in range(members)]
        joined.shares = fitted(measured, [measured.under(shares) for shares in each])
    found = test(joined, view, together, scenario)
    return {"alone": alone, "equal": equal, "fitted": found, "shares": joined.shares}


def test(model: Recommender, view: View, catalogue: Catalogue, scenario: Scenario) -> Values:
    """`task.metric` → value on the test part, of every task's primary metric."""
    answers, rankings = predict(model, view, catalogue, scenario.tasks, TEST, scenario.model.history)
    found = {}
    for name, task in scenario.tasks.items():
        primary = metrics.PRIMARY[task.type]
        if name in answers:
            rows = answers[name]
            keep = metrics.measured_rows(task, rows.target)
            values = metrics.compute(task, rows.target[keep], rows.predicted[keep])
        else:
            values = metrics.ranking([user.metrics for user in rankings[name]])
        found[f"{name}.{primary}"] = values.get(primary, float("nan"))
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over the seeds; the change of equal shares against the mean member, and its spread."""
    lines = [
        "| task | members, mean | best member | equal shares | fitted shares | equal against mean |",
        "|---|" * 2,
    ]
    lines[1] = "|---" + "|---:" * 5 + "|"
    for key in results[0]["equal"]:
        alone = [[member[key] for member in result["alone"]] for result in results]
        best = max if metrics.higher_is_better(key.partition(".")[2]) else min
        mean = [statistics.mean(values) for values in alone]
        change = [100 * (result["equal"][key] / m - 1) for result, m in zip(results, mean, strict=True)]
        spread = f" ± {statistics.stdev(change):.1f}" if len(change) > 1 else ""
        columns = [
            statistics.mean(mean),
            statistics.mean(best(values) for values in alone),
            *(statistics.mean(result[name][key] for result in results) for name in ("equal", "fitted")),
        ]
        told = " | ".join(f"{value:.4f}" for value in columns)
        lines.append(f"| {key} | {told} | {statistics.mean(change):+.1f}{spread} % |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenario", default="video")
    parser.add_argument("--split", default="random")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    add_output_options(parser, table=False)
    given = parser.parse_args()
    scenario = load_scenario(given.scenario, [f"split.by={given.split}", *given.settings])
    tables, results = load_tables(given.data), Results(given.out)
    for seed in given.seeds:
        about = {"data": given.data.name, "split": given.split, "seed": seed}
        results.add({**about, **measure(tables, scenario, given.members, seed)})
    print(table(results.all))


if __name__ == "__main__":
    main()
