"""Words and numbers for people: metric names, what a metric means, how a value is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_UPPER = {
    "rmse": "RMSE",
    "mse": "MSE",
    "mae": "MAE",
    "auc": "AUC",
    "hr": "HR",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "map": "MAP",
    "ece": "ECE",
    "lrap": "LRAP",
    "f1": "F1",
    "r2": "R²",
}

_GLOSSARY = {
    "rmse": "Root mean squared error: the typical size of an error, in the label's own unit; large errors weigh "
    "more.",
    "mse": "Mean squared error: the square of the RMSE, which is what training minimises.",
    "mae": "Mean absolute error: how far off a prediction is on average, in the label's own unit.",
    "r2": "Share of the label's variance that the prediction explains; 1 is perfect, 0 is no better than the mean.",
    "accuracy": "Share of examples whose most probable class is the right one.",
    "precision": "Of what was predicted as yes, the share that is yes.",
    "recall": "Of what is yes, the share that was predicted as yes. With @k: of the relevant items, the share "
    "among the first k.",
    "f1": "Harmonic mean of precision and recall. Macro: averaged over classes, so rare classes count as much as "
    "common ones. Micro: over all decisions together.",
    "auc": "Probability that a random yes is scored above a random no; 0.5 is guessing, 1 is perfect.",
    "average_precision": "Area under the precision–recall curve; guessing gives the share of yes.",
    "log_loss": "Mean negative logarithm of the probability given to what happened; punishes confident errors.",
    "brier": "Mean squared distance between the predicted probability and what happened (0 or 1).",
    "ece": "Expected calibration error: how far the predicted probabilities are from the observed shares, on "
    "average.",
    "lrap": "Label-ranking average precision: how high an item's own labels stand among all labels ranked by "
    "probability; 1 is all on top.",
    "hamming": "Share of single label decisions that are wrong.",
    "cosine": "Cosine of the angle between predicted and true profile; 1 is the same direction.",
    "hr": "Hit rate: share of users whose next item is among the first k recommendations.",
    "ndcg": "Like the hit rate, but a hit counts less the lower it stands: 1 at rank 1, 0.63 at rank 2, 0.29 at "
    "rank 10.",
    "mrr": "Mean reciprocal rank of the right item: 1 at rank 1, a half at rank 2, and so on.",
    "map": "Mean average precision over the ranked list.",
    "coverage": "Share of the catalogue that appears in at least one user's first k recommendations.",
    "gap": "Largest difference between groups; 0 is equal treatment.",
}

TASK_KINDS = {
    "regression": "predicts a number",
    "binary": "predicts yes or no",
    "classification": "picks one class",
    "multilabel": "picks any number of labels",
    "profile": "predicts a user's taste",
    "next_item": "ranks the whole catalogue",
}


def metric_label(name: str) -> str:
    """`ndcg@10` → `NDCG@10`, `micro_f1` → `micro F1`."""
    stem, at, k = name.partition("@")
    return " ".join(_UPPER.get(word, word) for word in stem.split("_")) + at + k


def metric_meaning(name: str) -> str | None:
    """One sentence on what the metric says, or None when it is not known here."""
    stem = name.partition("@")[0].lower()
    for key in (stem, *stem.split("_")[::-1]):
        if key in _GLOSSARY:
            return _GLOSSARY[key]
    return None


def finite(value: Any) -> float | None:
    """The value as a finite float; None for missing, NaN, infinite or not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Any) -> str:
    """Write a number for people: about three significant digits, thousands separated; `n/a` when there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}".replace("-", "−")
    x = finite(value)
    if x is None:
        return "n/a"
    size = abs(x)
    if size == 0:
        text = "0"
    elif size < 0.000001:
        text = f"{x:.1e}"
    elif size < 0.0005:
        text = f"{x:.{1 - math.floor(math.log10(size))}f}"
    elif size < 0.0995:
        text = f"{x:.4f}"
    elif size < 9.995:
        text = f"{x:.3f}"
    elif size < 99.95:
        text = f"{x:.2f}"
    elif size < 999.5:
        text = f"{x:.1f}"
    else:
        text = f"{x:,.0f}"
    return text.replace("-", "−")


def percent(share: Any) -> str:
    """Write a share as a percentage with at most one decimal."""
    x = finite(share)
    if x is None:
        return "n/a"
    if 0 < abs(x) < 0.0005:
        return "under 0.1 %"
    text = f"{100 * x:.1f}".removesuffix(".0") if abs(x) < 0.0995 else f"{100 * x:.0f}"
    return text.replace("-", "−") + " %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 rule`, `2 rules`, `1,200 rules`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def and_list(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def seconds(value: Any) -> str:
    """Write a duration: `48 s`, `3 min 20 s`, `2 h 5 min`."""
    x = finite(value)
    if x is None:
        return "n/a"
    whole = round(x)
    if whole < 60:
        return f"{number(x)} s" if x < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def change(before: Any, after: Any, higher_is_better: bool) -> dict[str, str]:
    """Say how `after` compares with `before`.

    Returns:
        `kind` better, worse, same or unknown, and `text` such as `23 % better`. Where `before` is zero the change
        is given in the metric's own unit.
    """
    old, new = finite(before), finite(after)
    if old is None or new is None:
        return {"kind": "unknown", "text": "not comparable"}
    gain = (new - old) if higher_is_better else (old - new)
    if abs(gain) <= 1e-9 * max(abs(old), abs(new), 1e-9):
        return {"kind": "same", "text": "unchanged"}
    kind = "better" if gain > 0 else "worse"
    if old == 0:
        return {"kind": kind, "text": f"{number(abs(gain))} {kind}"}
    share = abs(gain) / abs(old)
    if old > 0 and new >= 3 * old:
        return {"kind": kind, "text": f"{_times(new / old)}× as high"}
    return {"kind": kind, "text": f"{percent(share)} {kind}"}


def _times(ratio: float) -> str:
    return f"{ratio:.1f}".removesuffix(".0") if ratio < 10 else f"{ratio:,.0f}"


def calibration(bins: list[dict[str, Any]], ece: Any, uncalibrated: Any = None) -> str:
    """Say a reliability curve's message in words.

    Args:
        bins: `predicted`, `observed` and `count` per bin of predictions.
        ece: expected calibration error, the count-weighted mean of |predicted − observed|.
        uncalibrated: the same before temperature scaling; None where there was none.
    """
    error = finite(ece)
    if error is None:
        return "The calibration error could not be computed."
    quality = "very well" if error < 0.02 else "well" if error < 0.05 else "fairly" if error < 0.1 else "poorly"
    text = (
        f"The probabilities are {quality} calibrated: on average a predicted probability is "
        f"{100 * error:.1f} percentage points away from what happens (ECE {number(error)})."
    )
    rows = [(finite(b.get("predicted")), finite(b.get("observed")), finite(b.get("count"))) for b in bins]
    known = [(p, o, n) for p, o, n in rows if p is not None and o is not None and n]
    total = sum(n for _, _, n in known)
    if total:
        lean = sum((p - o) * n for p, o, n in known) / total
        if abs(lean) > max(0.01, error / 2):
            slightly = "slightly " if abs(lean) < 0.03 else ""
            text += f" Overall they are {slightly}too {'high' if lean > 0 else 'low'}."
    without = finite(uncalibrated)
    if without is not None:
        text += f" Before temperature scaling the ECE was {number(without)}."
    return text
