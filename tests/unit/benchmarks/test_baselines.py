"""The baselines on cases small enough to work out by hand, and on the real data where it is present."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("surprise", reason="scikit-surprise is not installed (pip install 'mtrec[dev]')")

from benchmarks import baselines, ranking
from benchmarks.ratings import Ratings, from_tables, load_tables, split


def make(rows: list[tuple[int, int, float]], num_users: int, num_items: int) -> Ratings:
    users, items, values = (np.array(column) for column in zip(*rows, strict=True))
    return Ratings(
        users=users.astype(np.int64),
        items=items.astype(np.int64),
        values=values.astype(np.float64),
        user_ids=[f"u{i}" for i in range(num_users)],
        item_ids=[f"i{i}" for i in range(num_items)],
        low=1.0,
        high=5.0,
    )


@pytest.fixture(scope="module")
def low_rank() -> tuple[Ratings, Ratings]:
    """Ratings of a known rank-2 taste plus biases plus noise of 0.2, as training and test rows."""
    rng = np.random.default_rng(0)
    num_users, num_items = 120, 80
    taste, kind = rng.normal(0, 0.8, (num_users, 2)), rng.normal(0, 0.8, (num_items, 2))
    mean = 3 + rng.normal(0, 0.3, num_users)[:, None] + rng.normal(0, 0.3, num_items)[None, :]
    values = np.clip(mean + taste @ kind.T + rng.normal(0, 0.2, (num_users, num_items)), 1, 5)
    users, items = np.nonzero(rng.random((num_users, num_items)) < 0.5)
    rows = list(zip(users, items, values[users, items], strict=True))
    ratings = make(rows, num_users, num_items)
    test = rng.random(len(ratings)) < 0.1
    return ratings.take(~test), ratings.take(test)


# ----------------------------------------------------------------------------------------------- ratings


def test_bias_only_equals_the_written_out_least_squares() -> None:
    ratings = make([(0, 0, 5.0), (0, 1, 3.0), (1, 0, 4.0), (2, 1, 1.0)], 3, 2)
    mean = ratings.values.mean()
    user, item = np.zeros(3), np.zeros(2)
    for _ in range(4):
        for i in range(2):
            on = ratings.items == i
            item[i] = (ratings.values[on] - mean - user[ratings.users[on]]).sum() / (3.0 + on.sum())
        for u in range(3):
            on = ratings.users == u
            user[u] = (ratings.values[on] - mean - item[ratings.items[on]]).sum() / (2.0 + on.sum())
    model = baselines.bias_only(reg_user=2.0, reg_item=3.0, epochs=4).fit(ratings)
    predicted = model.predict(np.array([0, 1, 2]), np.array([1, 1, 0]))
    expected = mean + user[[0, 1, 2]] + item[[1, 1, 0]]
    np.testing.assert_allclose(predicted, expected, rtol=1e-12)


def test_bias_only_takes_the_mean_for_strangers_and_stays_in_range() -> None:
    ratings = make([(0, 0, 5.0), (0, 1, 5.0), (1, 0, 5.0), (1, 2, 2.0)], 5, 5)
    model = baselines.bias_only(reg_user=0.01, reg_item=0.01).fit(ratings)
    assert model.predict(np.array([4]), np.array([4]))[0] == pytest.approx(ratings.values.mean())
    predicted = model.predict(np.array([0, 0, 1]), np.array([0, 1, 2]))
    assert predicted.max() <= 5.0
    assert predicted.min() >= 1.0


@pytest.mark.parametrize(
    ("name", "make_model"),
    [
        ("svd", lambda: baselines.svd(factors=5, epochs=150, lr=0.01, reg=0.02)),
        ("svd++", lambda: baselines.svd_plus_plus(factors=5, epochs=100, lr=0.01, reg=0.02)),
    ],
)
def test_factorisation_finds_a_low_rank_taste_that_biases_miss(low_rank, name, make_model) -> None:
    train, test = low_rank
    biases = baselines.rating_rmse(baselines.bias_only(), train, test)
    factors = baselines.rating_rmse(make_model(), train, test)
    assert factors < 0.55 * biases, f"{name}: {factors:.3f} against {biases:.3f} from biases alone"
    assert factors > 0.15, "below the noise: the test rows leaked"


def test_svd_is_decided_by_its_seed(low_rank) -> None:
    train, test = low_rank
    first, again, other = (
        baselines.svd(factors=5, epochs=3, seed=seed).fit(train).predict(test.users, test.items)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


def test_rmse_by_hand() -> None:
    assert baselines.rmse(np.array([1.0, 2.0, 5.0]), np.array([1.0, 4.0, 4.0])) == pytest.approx(np.sqrt(5 / 3))


def test_tuning_takes_the_lowest_validation_error() -> None:
    scores = {1: 0.9, 2: 0.7, 3: 0.7, 4: 0.8}
    settings = list(baselines.grid({"a": (1, 2, 3, 4)}))
    assert baselines.best_of(settings, lambda setting: scores[setting["a"]], higher=False) == {"a": 2}
    assert baselines.best_of(settings, lambda setting: scores[setting["a"]], higher=True) == {"a": 1}
    assert list(baselines.grid({"a": (1, 2), "b": (3,)})) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]


# ----------------------------------------------------------------------------------------------- real data


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("folder", "num_ratings", "low", "high"),
    [("movielens-latest-small", 100_836, 0.5, 5.0), ("movietweetings-100k", 99_000, None, None)],
)
def test_real_ratings_load_and_split(real_data, folder, num_ratings, low, high) -> None:
    ratings, rows = from_tables(load_tables(real_data / folder))
    assert len(ratings) == rows.height
    assert num_ratings <= len(ratings) <= 100_836
    assert low is None or (ratings.low, ratings.high) == (low, high)

    random = split(ratings, rows, "random", seed=1)
    assert len(random.test) == pytest.approx(0.1 * len(ratings), rel=0.04)
    assert len(random.before_test) + len(random.test) == len(ratings)
    other = split(ratings, rows, "random", seed=2)
    assert not np.array_equal(random.test.items, other.test.items)

    last = split(ratings, rows, "leave_last_out")
    assert len(last.test) == len(last.valid) == len(set(last.test.users.tolist()))
    full = last.before_test
    assert np.all(np.diff(full.users) >= 0)
    assert len(full) + len(last.test) == len(ratings)
    pairs = set(zip(full.users.tolist(), full.items.tolist(), strict=True))
    assert pairs.isdisjoint(zip(last.test.users.tolist(), last.test.items.tolist(), strict=True))


@pytest.mark.realdata
def test_published_size_of_the_errors_on_movielens(real_data) -> None:
    """Surprise's page gives 0.944 and 0.934 on MovieLens-100k; latest-small is a little easier."""
    ratings, rows = from_tables(load_tables(real_data / "movielens-latest-small"))
    parts = split(ratings, rows, "random", seed=0)
    biases = baselines.rating_rmse(baselines.bias_only(), parts.before_test, parts.test)
    factors = baselines.rating_rmse(baselines.svd(), parts.before_test, parts.test)
    assert 0.85 < biases < 0.89
    assert 0.85 < factors < 0.89
    shuffled = dataclasses.replace(parts.test, values=parts.test.values[::-1].copy())
    assert baselines.rating_rmse(baselines.bias_only(), parts.before_test, shuffled) > 1.0


@pytest.mark.realdata
def test_item_knn_beats_popularity_on_movielens(real_data) -> None:
    ratings, rows = from_tables(load_tables(real_data / "movielens-latest-small"))
    parts = split(ratings, rows, "leave_last_out")
    popular, knn = (
        ranking.gains(ranking.rank_targets(model, parts.before_test, parts.test))["ndcg@10"].mean()
        for model in (ranking.Popularity(), ranking.ItemKnn())
    )
    assert knn > popular > 0.01
