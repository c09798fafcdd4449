"""Plain baselines that the quality benchmark measures mtrec against.

Rating prediction comes from scikit-surprise (Hug 2020, doi:10.21105/joss.02174), a kept library whose
published numbers others can compare with: on MovieLens-100k, 5-fold, its page gives RMSE 0.944 for
BaselineOnly, 0.934 for SVD and 0.92 for SVD++. Weak baselines flatter any new model (Rendle et al. 2019,
arXiv:1905.01395), so biases, SVD and SVD++ also have a setting that is chosen on the validation part.

Popularity, item-kNN (`benchmarks.ranking`) and SASRec (`benchmarks.sasrec`) rank items.
`python -m benchmarks.quality` measures them all.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from benchmarks import cold
from benchmarks.ranking import (
    ItemKnn,
    Popularity,
    gains,
    means_and_errors,
    rank_targets,
)
from benchmarks.ratings import Parts, Ratings
from benchmarks.sasrec import SasRec
from benchmarks.sasrec import choose as choose_sasrec

# ----------------------------------------------------------------------------------------------- ratings


class RatingModel(Protocol):
    """Predicts ratings."""

    def fit(self, train: Ratings) -> Any:
        """Learn from N ratings."""

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict the ratings of M pairs: [M] codes and [M] codes to [M] ratings."""


class SurpriseModel:
    """A scikit-surprise algorithm behind arrays of codes."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._fitted: Any = None

    def fit(self, train: Ratings) -> SurpriseModel:
        """Learn from N ratings; predictions are clipped to [train.low, train.high]."""
        import pandas as pd
        from surprise import Dataset, Reader

        frame = pd.DataFrame({"user": train.users, "item": train.items, "rating": train.values})
        data = Dataset.load_from_df(frame, Reader(rating_scale=(train.low, train.high)))
        self._fitted = self._make().fit(data.build_full_trainset())
        return self

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict [M] ratings; an unknown user or item falls back on the biases that are known."""
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([self._fitted.predict(user, item).est for user, item in pairs])


def bias_only(*, reg_user: float = 15.0, reg_item: float = 10.0, epochs: int = 10) -> SurpriseModel:
    """Global mean plus a user and an item bias, fitted by regularised alternating least squares.

    Koren 2010, "Factor in the neighbors", doi:10.1145/1644873.1644874, section 2.1; the defaults are those of
    surprise's BaselineOnly.
    """
    from surprise import BaselineOnly

    options = {"method": "als", "reg_u": reg_user, "reg_i": reg_item, "n_epochs": epochs}
    return SurpriseModel(lambda: BaselineOnly(bsl_options=options, verbose=False))


def svd(
    *, factors: int = 100, epochs: int = 20, lr: float = 0.005, reg: float = 0.02, seed: int = 0
) -> SurpriseModel:
    """Biased matrix factorisation by stochastic gradient descent, known as Funk's SVD.

    Koren, Bell, Volinsky 2009, doi:10.1109/MC.2009.263; the defaults are those of surprise's SVD.
    """
    from surprise import SVD

    return SurpriseModel(lambda: SVD(n_factors=factors, n_epochs=epochs, lr_all=lr, reg_all=reg, random_state=seed))


def svd_plus_plus(
    *, factors: int = 20, epochs: int = 20, lr: float = 0.007, reg: float = 0.02, seed: int = 0
) -> SurpriseModel:
    """SVD with implicit feedback: which items a user rated shapes the user's vector.

    Koren 2008, doi:10.1145/1401890.1401944, equation 15; the defaults are those of surprise's SVDpp.
    One fit on 100,000 ratings takes 40 s when 610 users gave them and 5 s when 16,554 did: its time grows with
    ratings per user.
    """
    from surprise import SVDpp

    return SurpriseModel(
        lambda: SVDpp(
            n_factors=factors, n_epochs=epochs, lr_all=lr, reg_all=reg, random_state=seed, cache_ratings=True
        )
    )


BIAS_GRID: dict[str, Sequence[Any]] = {
    "reg_user": (1, 2, 4, 8, 15),
    "reg_item": (1, 2, 4, 8),
    "epochs": (20,),
}
SVD_GRID: dict[str, Sequence[Any]] = {
    "factors": (20, 100, 200),
    "epochs": (20, 40, 80),
    "reg": (0.05, 0.1, 0.15, 0.2),
}
SVDPP_GRID: dict[str, Sequence[Any]] = {
    "epochs": (20, 40),
    "lr": (0.005, 0.01),
    "reg": (0.05, 0.1, 0.15),
}
SVDPP_FACTORS: tuple[int, ...] = (20, 50)
"""Tried with the best of `SVDPP_GRID`, which is searched with the first of them: time grows with factors."""
SVDPP_LONGER: tuple[int, ...] = (40, 80)
"""Epochs tried last, where `SVDPP_GRID` chose the most it has."""


def rmse(predicted: np.ndarray, target: np.ndarray) -> float:
    """Root mean squared error of two [M] arrays."""
    return float(np.sqrt(np.mean((predicted - target) ** 2)))


def rating_rmse(model: RatingModel, train: Ratings, test: Ratings) -> float:
    """Fit on `train`, then RMSE on `test`."""
    model.fit(train)
    return rmse(model.predict(test.users, test.items), test.values)


def grid(choices: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the choices, in order."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def best_of(
    settings: Iterable[dict[str, Any]], score: Callable[[dict[str, Any]], float], *, higher: bool
) -> dict[str, Any]:
    """The setting with the best score; of equal ones the first.

    Raises:
        ValueError: no setting is given.
    """
    return (max if higher else min)(settings, key=score)


def tuned_rating_model(
    make: Callable[..., RatingModel], choices: Mapping[str, Sequence[Any]], parts: Parts
) -> dict[str, Any]:
    """The setting of the grid with the lowest RMSE on the validation part, fitted on the training part."""
    return best_of(
        grid(choices), lambda setting: rating_rmse(make(**setting), parts.train, parts.valid), higher=False
    )


KNN_GRID: dict[str, Sequence[Any]] = {
    "neighbours": (10, 20, 50, 200, 1000),
    "shrink": (0.0, 5.0, 20.0, 100.0, 500.0),
}
HALF_LIVES: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


def tuned_knn(choices: Mapping[str, Sequence[Any]], parts: Parts) -> dict[str, Any]:
    """The setting of the grid with the best NDCG@10 on the validation part."""
    return best_of(
        grid(choices),
        lambda setting: float(gains(rank_targets(ItemKnn(**setting), parts.train, parts.valid))["ndcg@10"].mean()),
        higher=True,
    )


# ----------------------------------------------------------------------------------------------- measuring

Settings = dict[str, dict[str, Any]]
"""Settings of the tuned baselines on one data set and split: `bias`, `svd` and `svdpp`, or `knn`, `recent`,
`sasrec` and `sasrec_full`.
"""


def choose(
    parts: Parts, by: str, known: Settings | None = None, *, plus_plus: bool = True, sasrec: bool = True
) -> Settings:
    """The settings with the best score on the validation part: NDCG@10 under `leave_last_out`, else RMSE.

    Training rows fit, validation rows judge; the test part is not touched. For 100,000 rows this takes a few
    minutes, 10 to 15 more for SVD++ where users have many ratings, and an hour more for SASRec.

    Args:
        parts: the split.
        by: its rule.
        known: settings that stand already; only the others are searched for.
        plus_plus: choose those of SVD++, too.
        sasrec: choose those of SASRec, too.
    """
    found = dict(known or {})
    if by == "leave_last_out":
        if "knn" not in found:
            found["knn"] = tuned_knn(KNN_GRID, parts)
        if "recent" not in found:
            found["recent"] = tuned_knn({**_fixed(found["knn"]), "half_life": HALF_LIVES}, parts)
        if sasrec and "sasrec" not in found:
            found["sasrec"] = choose_sasrec(parts, "sampled")
        if sasrec and "sasrec_full" not in found:
            found["sasrec_full"] = choose_sasrec(parts, "full")
        return found
    if "bias" not in found:
        found["bias"] = tuned_rating_model(bias_only, BIAS_GRID, parts)
    if "svd" not in found:
        found["svd"] = tuned_rating_model(svd, SVD_GRID, parts)
    if plus_plus and "svdpp" not in found:
        first = tuned_rating_model(svd_plus_plus, {"factors": SVDPP_FACTORS[:1], **SVDPP_GRID}, parts)
        best = tuned_rating_model(svd_plus_plus, {**_fixed(first), "factors": SVDPP_FACTORS}, parts)
        if best["epochs"] == max(SVDPP_GRID["epochs"]):
            best = tuned_rating_model(svd_plus_plus, {**_fixed(best), "epochs": SVDPP_LONGER}, parts)
        found["svdpp"] = best
    return found


def _fixed(setting: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """A grid of this one setting."""
    return {key: [value] for key, value in setting.items()}


Method = tuple[str, Callable[..., Any], dict[str, Any]]
"""Name, class and setting."""


def methods(
    by: str, settings: Settings, *, seed: int = 0, plus_plus: bool = True, sasrec: bool = True
) -> list[Method]:
    """Every baseline that fits a split: rankers for `leave_last_out` and `cold_items`, else raters."""
    if by in ("leave_last_out", "cold_items"):
        rankers: list[Method] = [
            ("popularity", Popularity, {}),
            ("item-kNN, tuned", ItemKnn, settings["knn"]),
            ("item-kNN with recency, tuned", ItemKnn, settings["recent"]),
        ]
        networks: list[Method] = (
            [
                ("SASRec as published", SasRec, {**settings["sasrec"], "seed": seed}),
                ("SASRec, full softmax, tuned", SasRec, {**settings["sasrec_full"], "seed": seed}),
            ]
            if sasrec
            else []
        )
        return [*rankers, *networks]
    raters: list[Method] = [
        ("bias-only", bias_only, {}),
        ("bias-only, tuned", bias_only, settings["bias"]),
        ("SVD", svd, {"seed": seed}),
        ("SVD, tuned", svd, {**settings["svd"], "seed": seed}),
    ]
    slow: list[Method] = (
        [
            ("SVD++", svd_plus_plus, {"seed": seed}),
            ("SVD++, tuned", svd_plus_plus, {**settings["svdpp"], "seed": seed}),
        ]
        if plus_plus
        else []
    )
    return [*raters, *slow]


def measure(parts: Parts, by: str, chosen: Iterable[Method]) -> Iterator[dict[str, Any]]:
    """Baselines on the test part of one split, fitted on training and validation rows together.

    Args:
        parts: the split.
        by: its rule.
        chosen: some of `methods`.

    Yields:
        `method`, `setting`, `seconds`, and either `rmse`, or `hr@10` and `ndcg@10` with their standard errors, or
        what `cold.measure` gives.
    """
    for name, make, setting in chosen:
        started = time.perf_counter()
        model = make(**setting)
        if by == "leave_last_out":
            scores = means_and_errors(gains(rank_targets(model, parts.before_test, parts.test)))
        elif by == "cold_items":
            scores = cold.measure(model.fit(parts.before_test), parts.before_test, parts.test)
        else:
            scores = {"rmse": rating_rmse(model, parts.before_test, parts.test)}
        seconds = round(time.perf_counter() - started, 1)
        yield {"method": name, **scores, "setting": setting, "seconds": seconds}
