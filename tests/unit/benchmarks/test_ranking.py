"""The ranking baselines and their measure, worked out by hand."""

import numpy as np
import pytest
from scipy import sparse

from benchmarks import ranking
from benchmarks.ratings import Ratings


def make(pairs: list[tuple[int, int]], num_users: int, num_items: int) -> Ratings:
    users, items = np.array(pairs, dtype=np.int64).T
    return Ratings(
        users=users,
        items=items,
        values=np.ones(len(pairs)),
        user_ids=[f"u{i}" for i in range(num_users)],
        item_ids=[f"i{i}" for i in range(num_items)],
        low=1.0,
        high=5.0,
    )


def test_popularity_counts_users_per_item() -> None:
    ratings = make([(0, 0), (1, 0), (1, 2)], 2, 4)
    scores = ranking.Popularity().fit(ratings).scores(np.array([0, 1]))
    assert scores.tolist() == [[2, 0, 1, 0], [2, 0, 1, 0]]


# Items of the users: u0 {0, 1}, u1 {0, 1, 2}, u2 {1, 2}, u3 {3}; so n = (2, 3, 2, 1).
KNN_PAIRS = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("shrink", [0.0, 2.0])
def test_item_knn_by_hand(shrink: float) -> None:
    near = 2 / (np.sqrt(6) + shrink)  # items 0-1 and 1-2: two users in common
    far = 1 / (2 + shrink)  # items 0-2: one user in common
    scores = ranking.ItemKnn(neighbours=10, shrink=shrink).fit(make(KNN_PAIRS, 4, 5)).scores(np.arange(4))
    np.testing.assert_allclose(scores[0], [near, near, far + near, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(scores[2], [far + near, near, near, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(scores[3], np.zeros(5))


def test_item_knn_keeps_the_nearest_neighbours_of_the_scored_item() -> None:
    scores = ranking.ItemKnn(neighbours=1).fit(make(KNN_PAIRS, 4, 5)).scores(np.array([0]))
    near = 2 / np.sqrt(6)
    np.testing.assert_allclose(scores[0], [near, near, near, 0, 0], rtol=1e-6)


def test_recency_halves_the_weight_of_older_items() -> None:
    ratings = make(KNN_PAIRS, 4, 5)
    scores = ranking.ItemKnn(half_life=1.0).fit(ratings).scores(np.array([0]))
    near, far = 2 / np.sqrt(6), 1 / 2
    np.testing.assert_allclose(scores[0, 2], near + far / 2, rtol=1e-6)
    np.testing.assert_array_equal(ranking._age_in_rows(np.array([1, 0, 1, 1, 0])), [2, 1, 1, 0, 0])


def test_a_user_without_history_scores_zero_everywhere() -> None:
    scores = ranking.ItemKnn().fit(make(KNN_PAIRS, 6, 5)).scores(np.array([5]))
    np.testing.assert_array_equal(scores, np.zeros((1, 5)))


def test_ranks_exclude_seen_items_and_share_the_mean_of_ties() -> None:
    scores = np.array([[9.0, 5.0, 5.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    seen = sparse.csr_matrix(np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]))
    ranks = ranking.mean_tie_ranks(scores, np.array([2, 4]), seen)
    # First user: item 0 is seen; items 1, 2 and 3 tie for ranks 1 to 3. Second: four open items tie.
    np.testing.assert_allclose(ranks, [2.0, 2.5])


def test_gains_by_hand() -> None:
    found = ranking.gains(np.array([1.0, 3.0, 10.0, 10.5]))
    assert found["hr@10"].tolist() == [1, 1, 1, 0]
    assert found["ndcg@10"].tolist() == pytest.approx([1, 1 / 2, 1 / np.log2(11), 0])


def test_ndcg_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(3)
    scores, targets = rng.random((40, 30)), rng.integers(0, 30, 40)
    truth = np.zeros_like(scores)
    truth[np.arange(40), targets] = 1
    ranks = ranking.mean_tie_ranks(scores, targets, sparse.csr_matrix((40, 30)))
    assert ranking.gains(ranks)["ndcg@10"].mean() == pytest.approx(ndcg_score(truth, scores, k=10))


def test_means_come_with_their_standard_error() -> None:
    found = ranking.means_and_errors(ranking.gains(np.array([1.0, 3.0, 11.0, 20.0])))
    assert found == {
        "hr@10": 0.5,
        "hr@10_se": pytest.approx(np.sqrt(1 / 3) / 2),
        "ndcg@10": 0.375,
        "ndcg@10_se": pytest.approx(np.std([1, 0.5, 0, 0], ddof=1) / 2),
        "users": 4,
    }
