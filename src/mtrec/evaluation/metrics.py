"""Metrics per task type, from arrays of targets and predictions.

scikit-learn computes what it has; ranking, calibration and cosine are defined here. Shapes: X examples, V labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtrec.config import Binary, Classification, MultiLabel, Profile, Regression, Task

Metrics = dict[str, float]
LOWER_IS_BETTER = {"rmse", "mae", "mse", "log_loss", "ece", "hamming_loss"}
PRIMARY = {
    "regression": "rmse",
    "binary": "auc",
    "classification": "accuracy",
    "multilabel": "lrap",
    "profile": "cosine",
    "next_item": "ndcg@10",
}
CUTOFFS = (10, 50)
UNSEEN = -1
"""Target of an example whose class training never saw. No prediction of it can be right."""


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of the metric is better."""
    return metric not in LOWER_IS_BETTER


def compute(task: Task, target: np.ndarray, predicted: np.ndarray, thresholds: np.ndarray | None = None) -> Metrics:
    """All metrics of a task that is not next-item ranking; empty without examples.

    Args:
        task: decides which metrics apply.
        target: (X,) numbers, yes/no or class numbers (or `UNSEEN`); (X, V) for multi-label and profile.
        predicted: (X,) numbers or probabilities of yes; (X, V) class or label probabilities, or profiles.
        thresholds: multi-label only, see `multilabel`.
    """
    if len(target) == 0:
        return {}
    if isinstance(task, Regression):
        return regression(target, predicted)
    if isinstance(task, Binary):
        return binary(target, predicted)
    if isinstance(task, Classification):
        return classification(target, predicted)
    if isinstance(task, MultiLabel):
        return multilabel(target, predicted, 0.5 if thresholds is None else thresholds)
    if isinstance(task, Profile):
        rows = measured_rows(task, target)
        return {"cosine": float(cosine(target[rows], predicted[rows]).mean()) if rows.any() else math.nan}
    raise TypeError(f"{task.type} is ranked, not scored row by row: use ranking()")


def measured_rows(task: Task, target: np.ndarray) -> np.ndarray:
    """Which examples the primary metric is measured on, (X,) bool: all, save for multi-label and profile.

    A row that carries none or all of the labels has no order that could be wrong. scikit-learn counts both kinds as
    a perfect 1, which lifts every model alike; here both are left out of label-ranking average precision. A profile
    of zeros has no direction, so no cosine.

    Args:
        task: decides which rows count.
        target: as in `compute`.
    """
    if isinstance(task, MultiLabel):
        return ranked_rows(target)
    if isinstance(task, Profile):
        mask_X: np.ndarray = (target != 0).any(1)
        return mask_X
    return np.ones(len(target), dtype=bool)


def ranked_rows(target_XV: np.ndarray) -> np.ndarray:
    """Rows of a multi-label target with at least one label and without at least one, (X,) bool."""
    carried_X = (target_XV > 0).sum(1)
    mask_X: np.ndarray = (carried_X > 0) & (carried_X < target_XV.shape[1])
    return mask_X


def regression(target_X: np.ndarray, predicted_X: np.ndarray) -> Metrics:
    """RMSE, MSE and MAE in the label's units."""
    error = predicted_X - target_X
    mse = float(np.mean(error**2))
    return {"rmse": mse**0.5, "mse": mse, "mae": float(np.abs(error).mean())}


def binary(target_X: np.ndarray, probability_X: np.ndarray) -> Metrics:
    """AUC, average precision, log loss, accuracy, precision, recall, F1 at one half, and ECE.

    When only one class occurs, AUC and average precision are NaN: there is no pair to order. Without any yes so are
    recall and F1.
    """
    from sklearn import metrics as sk

    yes = probability_X >= 0.5
    precision, recall, f1, _ = sk.precision_recall_fscore_support(target_X, yes, average="binary", zero_division=0)
    found = bool(target_X.sum() > 0)
    both = found and bool(target_X.sum() < len(target_X))
    return {
        "auc": float(sk.roc_auc_score(target_X, probability_X)) if both else math.nan,
        "average_precision": float(sk.average_precision_score(target_X, probability_X)) if both else math.nan,
        "log_loss": float(sk.log_loss(target_X, np.clip(probability_X, 1e-7, 1 - 1e-7), labels=[0, 1])),
        "accuracy": float((yes == target_X).mean()),
        "precision": float(precision),
        "recall": float(recall) if found else math.nan,
        "f1": float(f1) if found else math.nan,
        "ece": expected_calibration_error(target_X, probability_X),
    }


def classification(target_X: np.ndarray, probability_XV: np.ndarray) -> Metrics:
    """Accuracy, macro and micro F1, precision and recall (macro), log loss, and ECE of the chosen class.

    A target of `UNSEEN` is wrong whatever was predicted; all such examples are one further class of the macro
    means. They have no probability, so the log loss leaves them out; it is NaN when there are no others.
    """
    from sklearn import metrics as sk

    chosen = probability_XV.argmax(1)
    labels = np.arange(probability_XV.shape[1])
    seen = target_X != UNSEEN
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        target_X, chosen, average="macro", zero_division=0
    )
    return {
        "accuracy": float((chosen == target_X).mean()),
        "macro_f1": float(f1),
        "micro_f1": float(sk.f1_score(target_X, chosen, average="micro")),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "log_loss": float(sk.log_loss(target_X[seen], probability_XV[seen], labels=labels))
        if seen.any()
        else math.nan,
        "ece": expected_calibration_error(chosen == target_X, probability_XV.max(1)),
    }


def multilabel(
    target_XV: np.ndarray, probability_XV: np.ndarray, thresholds_V: np.ndarray | float = 0.5
) -> Metrics:
    """Label-ranking average precision, micro and macro F1, Hamming loss, and ECE of all decisions.

    A label is given from its threshold up.

    The first is over `ranked_rows` alone, NaN without any; the others are over all rows. A label that no row
    carries and none is given has no F1 and is no part of the macro mean; without any other label the F1 are NaN.
    """
    from sklearn import metrics as sk

    yes = probability_XV >= thresholds_V
    used_V = (target_XV > 0).any(0) | yes.any(0)
    ranked = ranked_rows(target_XV)
    precision = label_ranking_precision(target_XV[ranked], probability_XV[ranked])
    return {
        "lrap": float(precision.mean()) if ranked.any() else math.nan,
        "micro_f1": float(sk.f1_score(target_XV, yes, average="micro")) if used_V.any() else math.nan,
        "macro_f1": float(sk.f1_score(target_XV, yes, average="macro", labels=np.flatnonzero(used_V)))
        if used_V.any()
        else math.nan,
        "hamming_loss": float(sk.hamming_loss(target_XV, yes)),
        "ece": expected_calibration_error(target_XV.ravel(), probability_XV.ravel()),
    }


def label_ranking_precision(target_XV: np.ndarray, score_XV: np.ndarray) -> np.ndarray:
    """Label-ranking average precision of each row with at least one label, (X,).

    scikit-learn has the mean over rows alone, and takes ten times as long for it.
    """
    return np.array([_row_precision(t > 0, s) for t, s in zip(target_XV, score_XV, strict=True)])


def _row_precision(true_V: np.ndarray, score_V: np.ndarray) -> float:
    at_least = score_V[None, :] >= score_V[true_V][:, None]
    return float((at_least[:, true_V].sum(1) / at_least.sum(1)).mean())


def cosine(target_XV: np.ndarray, predicted_XV: np.ndarray) -> np.ndarray:
    """Cosine between rows, (X,); 0 where either is zero."""
    norms = np.linalg.norm(target_XV, axis=1) * np.linalg.norm(predicted_XV, axis=1)
    return np.where(norms > 0, (target_XV * predicted_XV).sum(1) / np.maximum(norms, 1e-12), 0.0)


def reliability(target_X: np.ndarray, probability_X: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean prediction, observed share and count in equally wide bins of the prediction; empty bins are left out."""
    which = np.minimum((probability_X * bins).astype(int), bins - 1)
    return [
        {
            "predicted": float(probability_X[which == b].mean()),
            "observed": float(target_X[which == b].mean()),
            "count": int((which == b).sum()),
        }
        for b in np.unique(which)
    ]


def expected_calibration_error(target_X: np.ndarray, probability_X: np.ndarray, bins: int = 10) -> float:
    """ECE: mean distance of prediction and observation over bins, weighted by count (Naeini et al. 2015)."""
    rows = reliability(np.asarray(target_X, dtype=float), probability_X, bins)
    return sum(abs(r["predicted"] - r["observed"]) * r["count"] for r in rows) / max(len(target_X), 1)


def decisions(task: Task, target: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ECE is measured on: whether each decision came true, and the probability that it was given.

    Of classification the chosen class is the decision, of the others every yes or no.
    """
    if isinstance(task, Classification):
        return (predicted.argmax(1) == target).astype(float), predicted.max(1)
    return target.ravel().astype(float), predicted.ravel()


def mean_ranks(scores_N: np.ndarray, allowed_N: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rank of each relevant item among the allowed ones, 1 the best; items of equal score share their mean rank.

    Args:
        scores_N: a score per item, no NaN.
        allowed_N: true for candidates; the relevant items are among them.
        relevant: item rows.

    Returns:
        (len(relevant),) float ranks.
    """
    candidates = np.sort(scores_N[allowed_N])
    wanted = scores_N[relevant]
    not_above = np.searchsorted(candidates, wanted, side="right")
    below = np.searchsorted(candidates, wanted, side="left")
    above, equal = len(candidates) - not_above, not_above - below
    return above + (equal + 1) / 2


def ranking_of_user(ranks: np.ndarray, cutoffs: Sequence[int] = CUTOFFS) -> Metrics:
    """Metrics of one user from the ranks of the relevant items.

    HR@k: any relevant item in the first k; recall@k: the share of them; NDCG@k with binary gains (Järvelin &
    Kekäläinen 2002); MRR: reciprocal of the best rank.
    """
    out = {"mrr": float(1 / ranks.min())}
    for k in cutoffs:
        inside = np.sort(ranks[ranks <= k])
        ideal = (1 / np.log2(np.arange(2, min(len(ranks), k) + 2))).sum()
        out[f"hr@{k}"] = float(len(inside) > 0)
        out[f"recall@{k}"] = len(inside) / len(ranks)
        out[f"ndcg@{k}"] = float((1 / np.log2(inside + 1)).sum() / ideal)
    return out


def ranking(users: Sequence[Metrics]) -> Metrics:
    """Mean over users of `ranking_of_user`; empty without users."""
    return {name: float(np.mean([u[name] for u in users])) for name in users[0]} if users else {}


def skill(task: Task, target: np.ndarray, predicted: np.ndarray, prior: Sequence[float]) -> float:
    """One number per task that is 0 without skill and grows with it, for early stopping.

    Regression: 1 − MSE / MSE of the training mean. Binary: 2 · AUC − 1, and 0 when only one class occurs.
    Otherwise the primary metric.
    """
    values: dict[str, Any] = compute(task, target, predicted)
    if not values or not measured_rows(task, target).any():
        return 0.0
    if isinstance(task, Regression):
        return 1 - values["mse"] / max(float(np.mean((target - prior[0]) ** 2)), 1e-12)
    if isinstance(task, Binary):
        return 0.0 if math.isnan(values["auc"]) else 2 * float(values["auc"]) - 1
    return float(values[PRIMARY[task.type]])
