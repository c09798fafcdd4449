"""How good the multi-task model is, measured side by side with plain baselines.

On every data set and split the baselines of `benchmarks.baselines` and mtrec's whole model (all tasks of scenario
`video` at once, one set of settings everywhere) learn from the same rows and are judged on the same test rows:

    random          about 10 % of the ratings, several seeds: rating RMSE
    time            the last 10 % by time: rating RMSE
    leave_last_out  each user's last film: HR@10 and NDCG@10, full ranking, seen films excluded, mean rank of ties
    cold_items      all ratings of about 10 % of the films, several seeds: HR@10 and NDCG@10 of each (see
                    `benchmarks.cold`). Baselines have the settings of leave_last_out, since nothing can be tuned
                    on films that they do not know; an mtrec that knows films by their ids alone (`IDS_ONLY`) is
                    measured, too

Baselines learn from training and validation rows together: all but the test part. Their settings stand in
`TUNED`, chosen per data set and split on the validation part of seed 0; for other data, or with --tune, they are
chosen anew. mtrec stops early on its validation part (2 % of all rows; under leave_last_out each user's last film
but one) and is not refitted on it, which favours the baselines.

SVD++ is by far the slowest: its grid takes 10 to 15 minutes of a core where users have many ratings, one fit up to
two. Choosing the settings of SASRec takes an hour. --no-svdpp and --no-sasrec leave them out.

    python -m benchmarks.quality                                # both public data sets, 3 seeds
    python -m benchmarks.quality --data FOLDER --splits leave_last_out --seeds 0 --out runs/last.jsonl
    python -m benchmarks.quality --only mtrec --seeds 1 --out runs/last.jsonl       # adds to the file
    python -m benchmarks.quality --only settings --splits random time    # prints what `TUNED` should hold
    python -m benchmarks.quality --table runs/*.jsonl           # prints the tables, measures nothing
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import baselines, cold
from benchmarks.common import ROOT, Results, add_output_options, check_folders, folder_of, print_tables
from benchmarks.ranking import means_and_errors
from benchmarks.ratings import By, Parts, from_tables, load_tables, split
from mtrec.config import Scenario, load_scenario
from mtrec.data.contract import Tables

DATA_SETS = ("movielens-latest-small", "movietweetings-100k")
SPLITS: tuple[By, ...] = ("random", "time", "leave_last_out", "cold_items")
VALID = 0.02
"""Share of all rows that mtrec holds out for early stopping, and the baselines learn from."""
IDS_ONLY = ("items.text=item", "items.numeric=[]", "items.multi=[]", "training.texts_per_step=0")
"""Settings that leave mtrec nothing but ids: one text for all films, and no attributes."""
MODELS: tuple[tuple[str, Sequence[str]], ...] = (("all tasks", ()), ("ids only", IDS_ONLY))
METRICS = {"leave_last_out": ("hr@10", "ndcg@10"), "cold_items": cold.METRICS}
"""What is measured under a split; else RMSE."""

TUNED: dict[tuple[str, str], baselines.Settings] = {
    ("movielens-latest-small", "random"): {
        "bias": {"reg_user": 4, "reg_item": 2, "epochs": 20},
        "svd": {"factors": 100, "epochs": 80, "reg": 0.1},
        "svdpp": {"factors": 50, "epochs": 80, "lr": 0.01, "reg": 0.1},
    },
    ("movielens-latest-small", "time"): {
        "bias": {"reg_user": 15, "reg_item": 8, "epochs": 20},
        "svd": {"factors": 200, "epochs": 40, "reg": 0.05},
    },
    ("movielens-latest-small", "leave_last_out"): {
        "knn": {"neighbours": 10, "shrink": 5.0},
        "recent": {"neighbours": 10, "shrink": 5.0, "half_life": 5.0},
        "sasrec": {"loss": "sampled", "length": 200, "batch": 32, "dropout": 0.2, "epochs": 174},
        "sasrec_full": {
            "loss": "full",
            "length": 200,
            "batch": 16,
            "dropout": 0.5,
            "width": 64,
            "epochs": 41,
        },
    },
    ("movietweetings-100k", "random"): {
        "bias": {"reg_user": 2, "reg_item": 2, "epochs": 20},
        "svd": {"factors": 20, "epochs": 80, "reg": 0.15},
        "svdpp": {"factors": 20, "epochs": 40, "lr": 0.01, "reg": 0.1},
    },
    ("movietweetings-100k", "time"): {
        "bias": {"reg_user": 2, "reg_item": 2, "epochs": 20},
        "svd": {"factors": 20, "epochs": 80, "reg": 0.1},
        "svdpp": {"factors": 20, "epochs": 20, "lr": 0.01, "reg": 0.1},
    },
    ("movietweetings-100k", "leave_last_out"): {
        "knn": {"neighbours": 1000, "shrink": 500.0},
        "recent": {"neighbours": 1000, "shrink": 500.0, "half_life": 0.5},
    },
}
"""What `benchmarks.baselines.choose` found, by data set and split."""


def measure_mtrec(tables: Tables, scenario: Scenario, parts: Parts) -> dict[str, Any]:
    """Train on the training part, stop on the validation part, measure on the test part.

    Args:
        tables: the data.
        scenario: all settings.
        parts: the same split of the ratings, for `cold_items`.

    Returns:
        `rmse`, `hr@10` and `ndcg@10` on the test part, the standard errors of the last two over `users`,
        `seconds` and `epochs`; under `cold_items` what `cold.measure` gives in place of the first three.
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
    if scenario.split.by == "cold_items":
        found = cold.measure(cold.Trained(trainer, parts.test), parts.before_test, parts.test)
    else:
        rows, rankings = predict(
            bundle.model.eval(), view, trainer.data.catalogue, scenario.tasks, TEST, scenario.model.history
        )
        users = [user.metrics for user in rankings["next_item"]]
        ranked = {name: np.array([user[name] for user in users]) for name in ("hr@10", "ndcg@10")}
        rmse = metrics.regression(rows["rating"].target, rows["rating"].predicted)["rmse"]
        found = {"rmse": rmse, **means_and_errors(ranked)}
    return {**found, "epochs": end.best_epoch, "seconds": round(time.perf_counter() - started, 1)}


def measure(
    folder: Path,
    splits: Sequence[By],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    *,
    only: str | None = None,
    tune: bool = False,
    **slow: bool,
) -> Iterator[dict[str, Any]]:
    """All results of one data set, one dict per method, split and seed.

    Args:
        folder: of the data set.
        splits: which of `SPLITS`.
        seeds: of the random split, of SVD, SASRec and mtrec; what has no chance in it is ranked once.
        overrides: scenario settings of mtrec's runs.
        only: `baselines` or `mtrec`; None measures both. `settings` chooses the baselines' settings that `TUNED`
            lacks, and gives them all, one dict per split, in place of results.
        tune: choose the baselines' settings even where `TUNED` has them.
        slow: `plus_plus` and `sasrec`, whether to measure these; both are.
    """
    tables = load_tables(folder)
    ratings, frame = from_tables(tables)
    tables = replace(tables, interactions=frame)
    for by in splits:
        tuned_by: By = "leave_last_out" if by == "cold_items" else by
        settings = {} if tune else TUNED.get((folder.name, tuned_by), {})
        if only != "mtrec":
            settings = baselines.choose(split(ratings, frame, tuned_by, seed=seeds[0]), tuned_by, settings, **slow)
        if only == "settings":
            yield {"data": folder.name, "split": by, "settings": settings}
            continue
        for seed in seeds:
            about = {"data": folder.name, "split": by, "seed": seed}
            parts = split(ratings, frame, by, seed=seed)
            if only != "mtrec":
                methods = baselines.methods(by, settings, seed=seed, **slow)
                if by == "leave_last_out" and seed != seeds[0]:
                    methods = [method for method in methods if "seed" in method[2]]
                for result in baselines.measure(parts, by, methods):
                    yield {**about, **result}
            if only != "baselines":
                own = [f"split.by={by}", f"split.seed={seed}", f"split.valid={VALID}", f"training.seed={seed}"]
                for name, changes in MODELS if by == "cold_items" else MODELS[:1]:
                    scenario = load_scenario(ROOT / "scenarios" / "video.yaml", [*own, *overrides, *changes])
                    method = ", ".join([f"mtrec, {name}", *overrides])
                    yield {**about, "method": method, **measure_mtrec(tables, scenario, parts)}


def table(results: Iterable[dict[str, Any]]) -> str:
    """Means over seeds as Markdown tables, one per data set and split; the best of each column in bold.

    Behind ± stands the standard error over test users (HR, NDCG; of one run, since all seeds share the users), or
    the standard deviation over seeds (RMSE, from two seeds on). Of two results of one method and seed the later
    one counts.
    """
    latest = {(r["data"], r["split"], r["method"], r["seed"]): r for r in results}
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for (data, by, method, _), result in latest.items():
        groups.setdefault((data, by), {}).setdefault(method, []).append(result)
    return "\n".join(line for (data, by), runs in groups.items() for line in _one_table(data, by, runs)) + "\n"


def _one_table(data: str, by: str, runs: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    ranking, columns = by in METRICS, METRICS.get(by, ("rmse",))
    spread = "standard error over test users" if ranking else "standard deviation over seeds"
    yield from ["", f"**{data}, split {by}** (± {spread})", "", f"| method | {' | '.join(columns)} | runs |"]
    yield "|---" * (len(columns) + 2) + "|"
    means = {name: {c: float(np.mean([r[c] for r in rows])) for c in columns} for name, rows in runs.items()}
    best = {c: (max if ranking else min)(mean[c] for mean in means.values()) for c in columns}
    for name, rows in runs.items():
        cells = []
        for c, mean in means[name].items():
            cells.append((f"**{mean:.4f}**" if mean == best[c] else f"{mean:.4f}") + _spread(rows, c))
        yield f"| {name} | {' | '.join(cells)} | {len(rows)} |"


def _spread(rows: Sequence[dict[str, Any]], column: str) -> str:
    if column == "rmse":
        return f" ± {np.std([r[column] for r in rows], ddof=1):.4f}" if len(rows) > 1 else ""
    errors = [r[f"{column}_se"] for r in rows if f"{column}_se" in r]
    return f" ± {np.mean(errors):.4f}" if errors else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per result, then the tables."""
    parser = argparse.ArgumentParser(description="Measure mtrec against plain baselines.")
    parser.add_argument("--data", nargs="+", type=Path, help="folders; default: the public sets in MTREC_DATA")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="scenario overrides")
    parser.add_argument("--only", choices=("baselines", "mtrec", "settings"), help="these alone")
    parser.add_argument("--tune", action="store_true", help="choose the baselines' settings anew")
    parser.add_argument("--no-svdpp", action="store_true", help="leave out SVD++, the slowest baseline")
    parser.add_argument("--no-sasrec", action="store_true", help="leave out SASRec, the slowest ranker")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    if options.only == "settings" and options.out:
        parser.error("--only settings prints no results that could be added to --out; leave it out")
    if options.table:
        print_tables(parser, options.table, table, ("data", "split", "method", "seed"))
        return
    folders = options.data or [folder_of(name) for name in DATA_SETS]
    check_folders(parser, folders, "set MTREC_DATA or give --data")
    results = Results(options.out)
    kinds = {"only": options.only, "tune": options.tune}
    kinds |= {"plus_plus": not options.no_svdpp, "sasrec": not options.no_sasrec}
    for folder in folders:
        for result in measure(folder, options.splits, options.seeds, options.set, **kinds):
            results.add(result)
    if options.only != "settings":
        print(table(results.all))


if __name__ == "__main__":
    main()
