"""A run's results with believable numbers, in the shapes that the stages write, for the report's tests."""

import math
from typing import Any

import numpy as np

CATEGORIES = [
    "Audio",
    "Books",
    "Camping",
    "Coffee & tea",
    "Cycling",
    "Garden",
    "Kitchen",
    "Lighting",
    "Toys",
    "Yoga",
]
BETTER_LOW = {"rmse", "mae", "log_loss", "brier"}
TASKS: dict[str, tuple[str, str, dict[str, tuple[float, float, float]]]] = {
    "rating": ("regression", "pair", {"rmse": (1.2134, 0.9312, 0.9541), "mae": (0.9688, 0.7301, 0.7449)}),
    "purchase": (
        "binary",
        "pair",
        {
            "auc": (0.5123, 0.7811, 0.7702),
            "log_loss": (0.6944, 0.4127, 0.4201),
            "f1": (0.2811, 0.5022, 0.4871),
            "precision": (0.2134, 0.4675, 0.4512),
            "recall": (0.4117, 0.5425, 0.5291),
        },
    ),
    "category": (
        "classification",
        "item",
        {"accuracy": (0.0917, 0.9417, 0.9333), "macro_f1": (0.0412, 0.9318, 0.9207)},
    ),
    "tags": (
        "multilabel",
        "item",
        {
            "micro_f1": (0.1221, 0.6122, 0.6317),
            "macro_f1": (0.0874, 0.4431, 0.4522),
            "precision": (0.071, 0.7017, 0.72),
        },
    ),
    "preferred_category": ("classification", "user", {"accuracy": (0.1082, 0.4361, 0.4358)}),
    "profile": ("profile", "user", {"cosine": (0.0231, 0.7418, 0.7395)}),
    "next_item": (
        "next_item",
        "user",
        {
            "ndcg@10": (0.0041, 0.0523, 0.0498),
            "hr@10": (0.0087, 0.0991, 0.0942),
            "mrr": (0.0069, 0.0471, 0.0455),
            "recall@50": (0.0433, 0.2817, 0.2764),
            "coverage@10": (0.9921, 0.3127, 0.3302),
        },
    ),
}


COUNTS = {
    "category": {"unseen_class": 17},
    "tags": {"unranked": 41, "outside_values": 1234},
    "preferred_category": {"unseen_class": 1},
    "profile": {"outside_values": 0},
}


def sample_evaluation() -> dict[str, Any]:
    """An evaluation as the evaluate stage writes it, with believable numbers."""
    rng = np.random.default_rng(7)
    tasks = {}
    for name, (kind, on, metrics) in TASKS.items():
        primary = next(iter(metrics))
        protocol = "split=time" + (", seen=excluded, ties=mean rank" if kind == "next_item" else "")
        before, after, champion = metrics[primary]
        better = -1 if primary in BETTER_LOW else 1
        tasks[name] = {
            "type": kind,
            "on": on,
            "primary": primary,
            "num_examples": int(rng.integers(600, 6000)),
            "metrics": {
                metric: {
                    "higher_is_better": metric not in BETTER_LOW,
                    "before": b,
                    "after": a,
                    "champion": c,
                    "protocol": protocol,
                }
                for metric, (b, a, c) in metrics.items()
            },
            "slices": [
                {
                    "slice": label,
                    "num_examples": int(rng.integers(20, 900)),
                    "metric": primary,
                    "before": round(before * (1 + 0.02 * i), 4),
                    "after": round(after * (1 - better * 0.05 * i), 4),
                }
                for i, label in enumerate(["warm", "cold users", "long tail", "cold items"])
            ],
            "improvement": compared(name, before),
            "comparison": compared(name, champion),
            "counts": COUNTS.get(name, {}),
            "reliability": None,
            "confusion": None,
        }
    add_curves(tasks, rng)
    return {
        "scenario": "ecommerce",
        "description": "A shop with views, carts, purchases and ratings; simulated unless --data is given.",
        "created": "2026-11-22T06:14:09Z",
        "dataset": {
            "num_users": 1500,
            "num_items": 1200,
            "num_interactions": 60217,
            "num_train": 48173,
            "num_valid": 6022,
            "num_test": 6022,
            "first": "2025-01-01",
            "last": "2026-01-01",
        },
        "model": {
            "encoder": "minilm",
            "parameters": 23104512,
            "trained_parameters": 3614208,
            "sharing": "shared_bottom",
            "balancing": "static",
            "seconds": 88.2,
            "seconds_per_step": 0.1382,
            "best_epoch": 4,
            "parts": {
                "encoder": 22565376,
                "items": 214016,
                "users": 171264,
                "pair factors": 86450,
                "sharing": 57600,
                "heads": 9806,
            },
            "trained_encoder": 3075072,
            "neighbours_table": 241401,
        },
        "protocol": {
            "split": "time",
            "seen_items": "excluded",
            "ranking": "full",
            "tie_order": "mean rank of ties",
            "text": "The last tenth of the interactions by time is the test part; rankings are over the whole "
            "catalogue without the items that a user has seen, and ties share their mean rank.",
        },
        "champion": {"name": "ecommerce", "version": "3", "tasks": list(TASKS)},
        "tasks": tasks,
    }


def compared(name: str, other: float) -> dict[str, Any]:
    """The candidate of a task against another model with the primary metric `other`."""
    _, on, metrics = TASKS[name]
    primary = next(iter(metrics))
    difference = round(metrics[primary][1] - other, 4)
    better = (difference < 0) == (primary in BETTER_LOW)
    sure = abs(difference) > 0.0024
    half = abs(difference) * (0.4 if sure else 3)
    return {
        "metric": primary,
        "difference": difference,
        "low": round(difference - half, 4),
        "high": round(difference + half, 4),
        "confidence": 0.95,
        "groups": 412,
        "drawn": "items" if on == "item" else "users",
        "verdict": ("better" if better else "worse") if sure else "same",
    }


def add_curves(tasks: dict[str, Any], rng: np.random.Generator) -> None:
    predicted = np.array([0.04, 0.11, 0.2, 0.31, 0.42, 0.53, 0.61, 0.74, 0.86])
    observed = np.array([0.03, 0.12, 0.17, 0.27, 0.36, 0.49, 0.58, 0.71, 0.9])
    counts = [1520, 1211, 804, 512, 331, 204, 121, 64, 22]
    bins = [
        {"predicted": float(p), "observed": float(o), "count": n}
        for p, o, n in zip(predicted, observed, counts, strict=True)
    ]
    tasks["purchase"]["reliability"] = {
        "ece": 0.0173,
        "bins": bins,
        "temperature": 1.42,
        "uncalibrated_ece": 0.0518,
    }
    matrix = rng.poisson(0.35, (10, 10)) + np.diag(rng.integers(15, 60, 10))
    matrix[3, 6], matrix[6, 3] = 9, 5
    tasks["category"]["confusion"] = {"labels": CATEGORIES, "counts": matrix.tolist()}
    edges = np.linspace(1, 5, 17)
    true = np.clip(rng.normal(3.9, 1.0, 4000).round(), 1, 5)
    guess = np.clip(rng.normal(3.85, 0.55, 4000), 1, 5)
    tasks["rating"]["histogram"] = {
        "edges": edges.tolist(),
        "target": np.histogram(true, edges)[0].tolist(),
        "predicted": np.histogram(guess, edges)[0].tolist(),
    }


def sample_losses() -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    start = {name: 6.6 if name == "next_item" else 1.4 for name in TASKS}
    lines = sample_comparisons()
    for step in range(5, 605, 5):
        losses = {
            name: round(top * (0.35 + 0.65 * math.exp(-step / 150)) * float(rng.normal(1, 0.05)), 4)
            for name, top in start.items()
        }
        loss = round(sum(losses.values()), 4)
        lines.append(
            {"kind": "train", "step": step, "epoch": step / 120, "loss": loss, "losses": losses, "lr": 1e-3}
        )
        if step % 120 == 0:
            epoch = step // 120
            metrics = {}
            for name, (_, _, values) in TASKS.items():
                for metric, (before, after, _) in values.items():
                    part = 1 - math.exp(-epoch) - (0.03 if epoch == 5 else 0)
                    metrics[f"{name}.{metric}"] = round(before + (after - before) * part, 4)
            score = round(0.3 + 0.08 * epoch - (0.09 if epoch == 5 else 0), 4)
            lines.append({"kind": "valid", "step": step, "epoch": epoch, "score": score, "metrics": metrics})
    return sorted(lines, key=lambda line: float(line["step"]))


PULLS = {"rating": 1.0, "purchase": 0.9, "next_item": -0.6, "profile": 0.3, "preferred_category": 0.0}
"""How much of a common direction is in a task's gradient, once training is under way."""


def sample_comparisons(steps: int = 600, every: int = 25) -> list[dict[str, Any]]:
    """The tasks' gradients compared: pair and user tasks meet, those of items meet among themselves only."""
    rng = np.random.default_rng(11)
    common = np.eye(80)[0]
    lines = []
    for step in range(0, steps, every):
        rows = []
        for name in TASKS:
            on_items = name in ("category", "tags")
            noise = rng.normal(0, 0.16, 80) * (np.arange(80) >= 40 if on_items else np.arange(80) < 40)
            own = np.eye(80)[50] * 1.2 if on_items else common * PULLS[name] * min(1, 0.2 + step / steps)
            rows.append((own + noise) * (3.0 if name == "next_item" else 1.0) * math.exp(-step / 300))
        rows_KD = np.stack(rows)
        norm_K = np.linalg.norm(rows_KD, axis=1)
        products_KK = rows_KD @ rows_KD.T
        lines.append(
            {
                "kind": "tasks",
                "step": step,
                "tasks": list(TASKS),
                "norms": norm_K.tolist(),
                "cosines": (products_KK / np.outer(norm_K, norm_K)).tolist(),
                "effects": (products_KK / norm_K[:, None] / 2.0).tolist(),
            }
        )
    return lines


def sample_gate(*, passed: bool = True) -> dict[str, Any]:
    rules = []
    for name, (_, _, metrics) in TASKS.items():
        primary = next(iter(metrics))
        before, after, champion = metrics[primary]
        missed = name == "tags" and not passed
        rules.append(
            {
                "rule": f"{name}.{primary} must be at least as good as before fine-tuning",
                "task": name,
                "metric": primary,
                "kind": "improvement",
                "value": after,
                "threshold": before,
                "verdict": "pass",
                "why": f"{after} against {before}",
            }
        )
        rules.append(
            {
                "rule": f"{name}.{primary} must not be more than 2 % worse than the champion",
                "task": name,
                "metric": primary,
                "kind": "no_regression",
                "value": after,
                "threshold": champion,
                "verdict": "fail" if missed else "pass",
                "why": "3.1 % worse, and the 95 % interval agrees"
                if name == "tags" and not passed
                else "within 2 %",
            }
        )
    rules.append(
        {
            "rule": "rating.rmse must be at most 1.2",
            "task": "rating",
            "metric": "rmse",
            "kind": "floor",
            "value": 0.9312,
            "threshold": 1.2,
            "verdict": "pass",
            "why": "0.9312 ≤ 1.2",
        }
    )
    champion = {"name": "ecommerce", "version": "3"}
    return {"verdict": "pass" if passed else "fail", "rules": rules, "champion": champion}


def sample_validation() -> dict[str, Any]:
    return {
        "success": True,
        "tables": {
            "users": {"input": 1500, "good": 1500, "quarantined": 0, "reasons": {}},
            "items": {"input": 1203, "good": 1200, "quarantined": 3, "reasons": {"title is missing": 3}},
            "interactions": {
                "input": 60231,
                "good": 60217,
                "quarantined": 14,
                "reasons": {"dangling item_id": 9, "rating outside 1–5": 4, "timestamp in the future": 1},
            },
        },
        "expectations": [
            {
                "table": "items",
                "expectation": "expect_column_values_to_not_be_null(title)",
                "severity": "critical",
                "success": True,
                "unexpected": 0,
                "of": 1200,
            },
            {
                "table": "users",
                "expectation": "expect_column_values_to_be_between(age, 13, 110)",
                "severity": "warning",
                "success": False,
                "unexpected": 7,
                "of": 1500,
            },
        ],
        "warnings": ["users: 7 of 1,500 values of age are outside 13–110"],
        "failures": [],
    }


LINEAGE = {
    "data_version": "9f2b7c01d4e58a6637ab54cc10de9f27.dir",
    "code_revision": "b0cd85e0c5a14f2d7f6a2b7f4e7a4b1b9d0c3e21",
    "parameters_hash": "5b1f3c" * 10 + "abcd",
    "image": None,
    "pipeline_run": "ecommerce-20261122-061409",
}
