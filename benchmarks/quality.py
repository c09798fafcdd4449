"""How good the multi-task model is, measured side by side with plain baselines.

On every data set and split the baselines of `benchmarks.baselines` and mtrec's whole model (all tasks of scenario
`video` at once, one set of settings everywhere) learn from the same rows and are judged on the same test rows:

    random          10 % of the ratings, several seeds: rating RMSE
    time            the last 10 % by time: rating RMSE
    leave_last_out  each user's last film: HR@10 and NDCG@10, full ranking, seen films excluded, mean rank of ties

Baselines learn from training and validation rows together (90 %); their settings in `TUNED` were chosen on the
validation part by `python -m benchmarks.baselines`. mtrec stops early on a validation part of 2 % and is not
refitted, which favours the baselines.

    python -m benchmarks.quality                        # both public data sets, 3 seeds
    python -m benchmarks.quality --data FOLDER --splits leave_last_out --seeds 0
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.baselines import bias_only, rating_rmse, svd
from benchmarks.ranking import ItemKnn, Popularity, hr_and_ndcg, rank_targets
from benchmarks.ratings import Parts, from_tables, load_tables, split
from mtrec.config import Scenario, load_scenario
from mtrec.data.contract import Tables

ROOT = Path(__file__).resolve().parents[1]
DATA_SETS = ("movielens-latest-small", "movietweetings-100k")
SPLITS = ("random", "time", "leave_last_out")
VALID = 0.02
"""Share that mtrec holds out for early stopping, out of the 90 % that the baselines learn from."""

TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "movielens-latest-small": {
        "bias": {"reg_user": 2, "reg_item": 2, "epochs": 20},
        "svd": {"factors": 100, "epochs": 80, "reg": 0.1},
        "knn": {"neighbours": 10, "shrink": 5.0},
        "recent": {"neighbours": 10, "shrink": 5.0, "half_life": 5.0},
    },
    "movietweetings-100k": {
        "bias": {"reg_user": 2, "reg_item": 2, "epochs": 20},
        "svd": {"factors": 20, "epochs": 80, "reg": 0.15},
        "knn": {"neighbours": 1000, "shrink": 500.0},
        "recent": {"neighbours": 1000, "shrink": 500.0, "half_life": 0.5},
    },
}


def measure_baselines(data: str, by: str, parts: Parts, seed: int) -> Iterator[dict[str, Any]]:
    """Every baseline on one split: rating RMSE, or HR@10 and NDCG@10 under leave-last-out."""
    tuned = TUNED.get(data, {"bias": {}, "svd": {}, "knn": {}, "recent": {"half_life": 5.0}})
    if by == "leave_last_out":
        rankers = {
            "popularity": Popularity(),
            "item-kNN, tuned": ItemKnn(**tuned["knn"]),
            "item-kNN with recency, tuned": ItemKnn(**tuned["recent"]),
        }
        for name, ranker in rankers.items():
            hr, ndcg = hr_and_ndcg(rank_targets(ranker, parts.before_test, parts.test))
            yield {"method": name, "hr@10": hr, "ndcg@10": ndcg}
        return
    raters = {
        "bias-only": bias_only(),
        "bias-only, tuned": bias_only(**tuned["bias"]),
        "SVD": svd(seed=seed),
        "SVD, tuned": svd(**tuned["svd"], seed=seed),
    }
    for name, rater in raters.items():
        yield {"method": name, "rmse": rating_rmse(rater, parts.before_test, parts.test)}


def measure_mtrec(tables: Tables, scenario: Scenario) -> dict[str, Any]:
    """Train on the training part, stop on the validation part, measure on the test part.

    Returns:
        `rmse`, `hr@10` and `ndcg@10` on the test part, `seconds` and `epochs`.
    """
    from mtrec.data.dataset import prepare
    from mtrec.data.splits import TEST
    from mtrec.evaluation import metrics
    from mtrec.evaluation.predict import predict
    from mtrec.models.store import new_model
    from mtrec.stages.fine_tune import validation
    from mtrec.training.loop import Trainer

    started = time.perf_counter()
    dataset, encoding = prepare(tables, scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    trainer = Trainer(bundle, view, catalogue, validate=validation(scenario, encoding))
    end = trainer.fit()
    rows, rankings = predict(
        bundle.model.eval(), view, trainer.data.catalogue, scenario.tasks, TEST, scenario.model.history
    )
    ranking = metrics.ranking([user.metrics for user in rankings["next_item"]])
    return {
        "rmse": metrics.regression(rows["rating"].target, rows["rating"].predicted)["rmse"],
        "hr@10": ranking["hr@10"],
        "ndcg@10": ranking["ndcg@10"],
        "epochs": end.best_epoch,
        "seconds": round(time.perf_counter() - started, 1),
    }


def measure(
    folder: Path, splits: Sequence[str], seeds: Sequence[int], overrides: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """All results of one data set, one dict per method, split and seed."""
    tables = load_tables(folder)
    ratings, frame = from_tables(tables)
    tables = replace(tables, interactions=frame)
    for by in splits:
        for seed in seeds:
            about = {"data": folder.name, "split": by, "seed": seed}
            if by == "random" or seed == seeds[0]:
                parts = split(ratings, frame, by, seed=seed)
                for result in measure_baselines(folder.name, by, parts, seed):
                    yield {**about, **result}
            settings = [f"split.by={by}", f"split.seed={seed}", f"split.valid={VALID}", f"training.seed={seed}"]
            scenario = load_scenario(ROOT / "scenarios" / "video.yaml", [*settings, *overrides])
            yield {**about, "method": "mtrec, all tasks", **measure_mtrec(tables, scenario)}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means over seeds as Markdown tables, one per data set and split; the best of each column in bold."""
    lines = []
    for data, by in dict.fromkeys((r["data"], r["split"]) for r in results):
        chosen = [r for r in results if (r["data"], r["split"]) == (data, by)]
        columns = ["hr@10", "ndcg@10"] if by == "leave_last_out" else ["rmse"]
        lines += ["", f"**{data}, split {by}**", "", f"| method | {' | '.join(columns)} | runs |"]
        lines.append("|---" * (len(columns) + 2) + "|")
        rows = {
            method: [[r[c] for r in chosen if r["method"] == method] for c in columns]
            for method in dict.fromkeys(r["method"] for r in chosen)
        }
        means = {method: [sum(v) / len(v) for v in values] for method, values in rows.items()}
        best = [(min if c == "rmse" else max)(m[i] for m in means.values()) for i, c in enumerate(columns)]
        for method, values in means.items():
            cells = [f"**{v:.4f}**" if v == best[i] else f"{v:.4f}" for i, v in enumerate(values)]
            lines.append(f"| {method} | {' | '.join(cells)} | {len(rows[method][0])} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Measure mtrec against plain baselines.")
    parser.add_argument("--data", nargs="+", type=Path, help="folders; default: the public sets in MTREC_DATA")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    options = parser.parse_args(arguments)
    home = Path(os.environ.get("MTREC_DATA") or ROOT.parent / "shared" / "data")
    folders = options.data or [home / name for name in DATA_SETS]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        parser.error(f"no such folder: {', '.join(missing)}; set MTREC_DATA or give --data")
    results = []
    for folder in folders:
        for result in measure(folder, options.splits, options.seeds, options.set):
            print(json.dumps(result), flush=True)
            results.append(result)
    print(table(results))


if __name__ == "__main__":
    main()
