"""Plain baselines that the quality benchmark measures mtrec against.

Rating prediction comes from scikit-surprise (Hug 2020, doi:10.21105/joss.02174), a kept library whose
published numbers others can compare with: on MovieLens-100k, 5-fold, its page gives RMSE 0.944 for
BaselineOnly, 0.934 for SVD and 0.92 for SVD++. Weak baselines flatter any new model (Rendle et al. 2019,
arXiv:1905.01395), so biases and SVD also have a setting that is chosen on the validation part.

Popularity and item-kNN rank items; they stand in `benchmarks.ranking`.

    python -m benchmarks.baselines ../shared/data/movielens-latest-small
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.ranking import ItemKnn, Popularity, RankingModel, hr_and_ndcg, rank_targets
from benchmarks.ratings import Parts, Ratings, from_tables, load_tables, split

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
    One fit on 100,000 ratings of 600 users takes about a minute: its time grows with ratings per user.
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
        lambda setting: hr_and_ndcg(rank_targets(ItemKnn(**setting), parts.train, parts.valid))[1],
        higher=True,
    )


# ----------------------------------------------------------------------------------------------- running


def measure_ratings(parts: Parts, *, seed: int = 0, plus_plus: bool = True) -> list[dict[str, Any]]:
    """RMSE of every rating baseline on the test part.

    Settings are chosen on the validation part; the final fit then sees training and validation rows together.
    """
    full, results = parts.before_test, []

    def add(name: str, make: Callable[..., RatingModel], setting: dict[str, Any], started: float) -> None:
        value = rating_rmse(make(**setting), full, parts.test)
        seconds = round(time.perf_counter() - started, 1)
        results.append({"baseline": name, "rmse": value, "setting": setting, "seconds": seconds})

    add("bias-only", bias_only, {}, time.perf_counter())
    started = time.perf_counter()
    add("bias-only, tuned", bias_only, tuned_rating_model(bias_only, BIAS_GRID, parts), started)
    add("SVD", svd, {"seed": seed}, time.perf_counter())
    started = time.perf_counter()
    add("SVD, tuned", svd, {**tuned_rating_model(svd, SVD_GRID, parts), "seed": seed}, started)
    if plus_plus:
        add("SVD++", svd_plus_plus, {"seed": seed}, time.perf_counter())
    return results


def measure_ranking(parts: Parts) -> list[dict[str, Any]]:
    """HR@10 and NDCG@10 of every ranking baseline on the test part; nothing here depends on a seed."""
    full, results = parts.before_test, []

    def add(name: str, model: RankingModel, setting: dict[str, Any], started: float) -> None:
        hr, ndcg = hr_and_ndcg(rank_targets(model, full, parts.test))
        seconds = round(time.perf_counter() - started, 1)
        results.append({"baseline": name, "hr@10": hr, "ndcg@10": ndcg, "setting": setting, "seconds": seconds})

    add("popularity", Popularity(), {}, time.perf_counter())
    started = time.perf_counter()
    setting = tuned_knn(KNN_GRID, parts)
    add("item-kNN, tuned", ItemKnn(**setting), setting, started)
    recent = tuned_knn({**{key: [value] for key, value in setting.items()}, "half_life": HALF_LIVES}, parts)
    add("item-kNN with recency, tuned", ItemKnn(**recent), recent, started)
    return results


def measure(data: Path, seeds: Sequence[int], *, plus_plus: bool = True) -> Iterator[dict[str, Any]]:
    """Measure all baselines on one data set: random 90/10 per seed, temporal, leave-last-out."""
    ratings, rows = from_tables(load_tables(data))
    about = {
        "data": data.name,
        "ratings": len(ratings),
        "users": ratings.num_users,
        "items": ratings.num_items,
    }
    for result in measure_ranking(split(ratings, rows, "leave_last_out")):
        yield {**about, "split": "leave_last_out", **result}
    for result in measure_ratings(split(ratings, rows, "time"), plus_plus=plus_plus):
        yield {**about, "split": "time", "scale": [ratings.low, ratings.high], **result}
    for seed in seeds:
        parts = split(ratings, rows, "random", seed=seed)
        for result in measure_ratings(parts, seed=seed, plus_plus=plus_plus):
            yield {**about, "split": "random", "seed": seed, "scale": [ratings.low, ratings.high], **result}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line per baseline and split."""
    parser = argparse.ArgumentParser(description="Measure the baselines on folders of ratings.")
    parser.add_argument("data", nargs="+", type=Path, help="folder of MovieLens or MovieTweetings")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no-plus-plus", action="store_true", help="leave out SVD++, the slowest")
    options = parser.parse_args(arguments)
    for folder in options.data:
        for result in measure(folder, options.seeds, plus_plus=not options.no_plus_plus):
            print(json.dumps(result), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
