"""How often drift is called where there is none, and how surely it is found where there is some.

    python -m benchmarks.drift --out drift.jsonl            # every shop, one JSON line each
    python -m benchmarks.drift --table drift.jsonl          # the tables of docs/drift.md
    python -m benchmarks.drift --plot docs/images/drift-power.svg drift.jsonl

Each shop is simulated for 26 weeks. A champion knows the first half: the model before fine-tuning, with all that is
fitted in closed form, so that a shop takes seconds. The 12 windows of the second half are measured with every
statistic, those of the champion's texts, predictions and quality included, and the decision is replayed over them.

`size` is the dial `drift` of the simulator: by how many standard deviations each category's liking moves over the
26 weeks. At 0 nothing moves, and no item appears late; sessions, users who join and the same users' habits go on.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.common import Result, Results, add_output_options, read_results
from mtrec.config import Scenario, load_scenario
from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.data.sources.simulated import Dials, simulate
from mtrec.drift.decision import Known, decide
from mtrec.drift.statistics import Timeline, columns_of, windows_of
from mtrec.models.store import new_model
from mtrec.stages.champion_answers import ask

SIZES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
CALM, MOVING = 18, 4
"""Shops without drift, and with each size of it."""
SHOP = {"num_users": 1500, "num_items": 300, "num_interactions": 30_000, "days": 182, "cold_items": 0.0}
UNTIL = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=91)


def measure(scenario: Scenario, size: float, seed: int) -> Result:
    """One shop: how many of its windows drifted, by which statistics, and what was decided."""
    start = time.perf_counter()
    tables, _ = clean(simulate(Dials.parse({**SHOP, "seed": seed, "drift": size}))[0])
    past = replace(tables, interactions=tables.interactions.filter(pl.col("timestamp") <= UNTIL))
    bundle, _, _ = new_model(*prepare(clean(past)[0], scenario), scenario, to_train=False)
    settings = scenario.retraining
    timeline = Timeline.of(tables, UNTIL, settings)
    said = ask(bundle, tables, timeline, settings)
    windows = windows_of(timeline, columns_of(timeline, scenario) | said.columns, said.qualities, settings)
    first = None
    for number in range(1, len(windows) + 1):
        known = Known(
            now=windows[number - 1].end,
            champion_until=UNTIL,
            data_problems=[],
            windows=windows[:number],
            new_rows=sum(window.num_rows for window in windows[:number]),
            attempts=[],
        )
        if first is None and decide(known, settings).verdict == "retrain":
            first = number
    category = [s for window in windows for s in window.statistics if s.name == "items.category"]
    return {
        "size": size,
        "seed": seed,
        "windows": len(windows),
        "drifted": [window.drifted for window in windows],
        "statistics": sorted({s.name for window in windows for s in window.statistics}),
        "distance": [round(float(np.sqrt(max(s.value**2 - s.by_chance**2, 0))), 4) for s in category],
        "retrain": first,
        "seconds": round(time.perf_counter() - start, 1),
    }


def tables_of(results: Sequence[Result]) -> str:
    """Markdown: false alarms, power by size, and what found it."""
    calm = [r for r in results if r["size"] == 0]
    windows = sum(r["windows"] for r in calm)
    alarms = sum(bool(names) for r in calm for names in r["drifted"])
    culprits = Counter(name for r in calm for names in r["drifted"] for name in names)
    decided = sum(r["retrain"] is not None for r in calm)
    lines = []
    if windows:
        lines += [
            f"Without drift: {alarms} of {windows} windows called drifted ({alarms / windows:.1%}; "
            f"{', '.join(f'{name} {n}' for name, n in culprits.most_common()) or 'none'}), "
            f"{decided} of {len(calm)} shops retrained.",
            "",
        ]
    lines += [
        "| size | shops | windows | drifted, weeks 1–4 | weeks 5–8 | weeks 9 on | distance of categories, weeks "
        "9 on | retrained | after weeks |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in sorted({r["size"] for r in results}):
        own = [r for r in results if r["size"] == size]
        share = [_share(own, part) for part in (slice(0, 4), slice(4, 8), slice(8, None))]
        late = np.mean([d for r in own for d in r["distance"][8:]])
        after = [r["retrain"] for r in own if r["retrain"] is not None]
        lines.append(
            f"| {size:g} | {len(own)} | {sum(r['windows'] for r in own)} | {' | '.join(f'{s:.0%}' for s in share)} "
            f"| {late:.3f} | {len(after)} of {len(own)} | {np.median(after) if after else '–'} |"
        )
    found = Counter(name for r in results if r["size"] > 0 for names in r["drifted"] for name in names)
    if found:
        lines += ["", f"What found it: {', '.join(f'{name} {n}' for name, n in found.most_common())}."]
    return "\n".join(lines)


def power_svg(results: Sequence[Result]) -> str:
    """The share of drifted windows over the size of drift, for early, middle and late windows."""
    import io

    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mtrec"
    from matplotlib import pyplot

    sizes = sorted({r["size"] for r in results})
    figure, axes = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
    for label, part, colour in (
        ("weeks 1–4", slice(0, 4), "#b4bac4"),
        ("weeks 5–8", slice(4, 8), "#56b4e9"),
        ("weeks 9 on", slice(8, None), "#0072b2"),
    ):
        shares = [_share([r for r in results if r["size"] == size], part) for size in sizes]
        axes.plot(sizes, shares, "o-", color=colour, label=label)
    axes.axhline(0.05, color="#8a93a3", linestyle="--", linewidth=1)
    axes.text(sizes[-1], 0.06, "5 %", color="#5b6472", ha="right", va="bottom", fontsize="small")
    axes.set(
        xlabel="drift of category likings over 26 weeks (standard deviations)", ylabel="windows called drifted"
    )
    axes.set_ylim(-0.02, 1.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, title="after the champion's data", loc="center right", bbox_to_anchor=(1, 0.36))
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _share(results: Sequence[Result], part: slice) -> float:
    return float(np.mean([bool(names) for r in results for names in r["drifted"][part]]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every shop, or print the tables of earlier results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm", type=int, default=CALM, help="shops without drift")
    parser.add_argument("--moving", type=int, default=MOVING, help="shops with each size of drift")
    parser.add_argument("--sizes", type=float, nargs="*", default=SIZES, help="sizes of drift")
    parser.add_argument("--plot", nargs=2, type=Path, metavar=("SVG", "FILE"), help="draw the results in FILE")
    add_output_options(parser)
    options = parser.parse_args(arguments)
    keys = ("size", "seed", "windows", "drifted", "distance", "retrain")
    if options.plot:
        options.plot[0].write_text(power_svg(list(read_results([options.plot[1]], keys))), encoding="utf-8")
        return
    if options.table:
        print(tables_of(list(read_results(options.table, keys))))
        return
    scenario = load_scenario("ecommerce", ["training.device=cpu"])
    results = Results(options.out)
    done: set[Any] = set()
    if options.out and options.out.exists():  # go on where an earlier run ended
        results.all = list(read_results([options.out], keys))
        done = {(r["size"], r["seed"]) for r in results.all}
    shops = [(0.0, seed) for seed in range(options.calm)]
    shops += [(size, 100 + seed) for size in options.sizes for seed in range(options.moving)]
    for size, seed in shops:
        if (size, seed) not in done:
            results.add(measure(scenario, size, seed))
    print(tables_of(results.all))


if __name__ == "__main__":
    main()
