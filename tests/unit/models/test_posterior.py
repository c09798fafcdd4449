"""Closed-form posteriors: equal to brute force where that is possible, and honest on rows they have seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtrec.models.posterior import Events, Posterior
from mtrec.models.posterior_fit import Fitted, fit, implicit_directions, moments, user_columns

USERS, ITEMS, FACTORS = 120, 80, 3
Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Labels of a factor model of known size, with noise of spread 0.5; each pair once."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(USERS * ITEMS)[:4000]
    user, item = pairs // ITEMS, pairs % ITEMS
    p, q = rng.normal(size=(USERS, FACTORS)), rng.normal(size=(ITEMS, FACTORS)) * 0.5
    b, c = rng.normal(size=USERS) * 0.3, rng.normal(size=ITEMS) * 0.3
    label = (p[user] * q[item]).sum(1) + b[user] + c[item] + rng.normal(size=len(user)) * 0.5
    return user, item + 1, label


def fitted(rows: Rows, num_factors: int = FACTORS) -> Fitted:
    user, slot, _ = rows
    columns, basis = implicit_directions(user, slot, (USERS, ITEMS + 1))
    count = np.bincount(user, minlength=USERS)
    implicit = np.zeros((USERS, basis.shape[1]))
    np.add.at(implicit, user, basis[slot])
    items = np.concatenate([np.ones((ITEMS + 1, 1)), columns], axis=1)
    return fit(rows, user_columns(count, implicit), items, items * [1, *[0] * columns.shape[1]], basis, num_factors)


def posterior_of(found: Fitted) -> Posterior:
    posterior = Posterior(ITEMS + 1, found.item_mean_SK.shape[1] - 1).double()
    posterior.start_from(found)
    return posterior


def events_of(rows: Rows) -> Events:
    user, slot, label = (torch.from_numpy(part) for part in rows)
    return Events(owner_Y=user, slot_Y=slot, label_Y=label)


def test_noise_and_held_out_error_come_near_the_truth(rows: Rows) -> None:
    """Noise of spread 0.5 is the floor; the mean label's error is over 1."""
    train, test = tuple(p[:3600] for p in rows), tuple(p[3600:] for p in rows)
    found = fitted(train)  # type: ignore[arg-type]
    posterior = posterior_of(found)
    users = posterior.users(events_of(train), USERS)  # type: ignore[arg-type]
    answer = posterior(users, torch.from_numpy(test[0]), torch.from_numpy(test[1]))
    error = answer[:, 0] - torch.from_numpy(test[2])
    assert 0.4 < found.noise_precision**-0.5 < 0.6
    assert error.square().mean().sqrt() < 0.65
    assert float(np.std(test[2])) > 1.0
    total = (answer[:, 1].exp() ** 2 + 1 / found.noise_precision).sqrt()
    assert 0.85 < float((error / total).std()) < 1.15, "as sure as it should be"


def test_a_user_is_the_regression_on_the_items(rows: Rows) -> None:
    """With items known for certain, a user's posterior is Bayesian linear regression."""
    found = replace(fitted(rows), item_cov_SKK=np.zeros((ITEMS + 1, FACTORS + 1, FACTORS + 1)))
    posterior = posterior_of(found)
    mine = rows[0] == 7
    one: Rows = (np.zeros(mine.sum(), dtype=np.int64), rows[1][mine], rows[2][mine])
    users = posterior.users(events_of(one), 1)
    z = np.c_[found.item_mean_SK[one[1], :-1], np.ones(mine.sum())]
    implicit = found.basis_SM[one[1]].sum(0, keepdims=True)
    prior = (user_columns(np.array([mine.sum()]), implicit) @ found.user_map_CK)[0]
    precision = found.noise_precision * z.T @ z + np.diag(found.user_precision_K)
    right = found.noise_precision * z.T @ (one[2] - found.item_mean_SK[one[1], -1]) + found.user_precision_K * prior
    np.testing.assert_allclose(users.mean_BK[0], np.linalg.solve(precision, right), rtol=1e-6, atol=1e-9)


def test_moments_are_those_of_the_gaussian() -> None:
    rng = np.random.default_rng(1)
    root = rng.normal(size=(3, 3)) * 0.4
    mean, cov = rng.normal(size=3), root @ root.T
    draws = rng.multivariate_normal(mean, cov, size=400_000)
    z, zz, zb = (part[0].numpy() for part in moments(torch.from_numpy(mean[None]), torch.from_numpy(cov[None])))
    drawn = np.c_[draws[:, :2], np.ones(len(draws))]
    np.testing.assert_allclose(z, drawn.mean(0), atol=0.01)
    np.testing.assert_allclose(zz, drawn.T @ drawn / len(draws), atol=0.02)
    np.testing.assert_allclose(zb, (drawn * draws[:, 2:]).mean(0), atol=0.02)


def test_a_row_left_out_is_predicted_as_well_as_a_row_never_seen(rows: Rows) -> None:
    train, test = tuple(p[:3600] for p in rows), tuple(p[3600:] for p in rows)
    posterior = posterior_of(fitted(train))  # type: ignore[arg-type]
    events = events_of(train)  # type: ignore[arg-type]
    users = posterior.users(events, USERS)

    def rmse(mean: torch.Tensor, label: torch.Tensor) -> float:
        return float((mean - label).square().mean().sqrt())

    inside = rmse(posterior(users, events.owner_Y, events.slot_Y)[:, 0], events.label_Y)
    outside = rmse(
        posterior(users, torch.from_numpy(test[0]), torch.from_numpy(test[1]))[:, 0], torch.from_numpy(test[2])
    )
    left, unseen = posterior.left_out(users, events)
    assert inside < 0.9 * outside
    assert rmse(left[:, 0], events.label_Y) == pytest.approx(outside, rel=0.05)
    assert rmse(unseen[:, 0], events.label_Y) > 1.1 * outside


def test_a_row_left_out_does_not_depend_on_its_own_label(rows: Rows) -> None:
    """Exact on the user's side: the posterior of items is given."""
    found = fitted(rows)
    posterior = posterior_of(replace(found, item_cov_SKK=found.item_cov_SKK * 1e-9))
    events = events_of(rows)
    moved = events.label_Y.clone()
    moved[5] += 10
    before = posterior.left_out(posterior.users(events, USERS), events)[0][5, 0]
    changed = replace(events, label_Y=moved)
    after = posterior.left_out(posterior.users(changed, USERS), changed)[0][5, 0]
    assert float(after) == pytest.approx(float(before), abs=1e-4)


def test_events_without_labels_move_the_prior_alone(rows: Rows) -> None:
    posterior = posterior_of(fitted(rows))
    slots = torch.arange(1, 9)
    nothing = torch.full((8,), torch.nan, dtype=torch.double)
    events = Events(owner_Y=torch.zeros(8, dtype=torch.long), slot_Y=slots, label_Y=nothing)
    took, new = (
        posterior.users(events, 1),
        posterior.users(replace(events, slot_Y=slots[:0], owner_Y=slots[:0], label_Y=nothing[:0]), 1),
    )
    torch.testing.assert_close(took.precision_BKK, new.precision_BKK)
    assert not torch.allclose(took.mean_BK, new.mean_BK)
    assert posterior(new, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize("sizes", [(1, 2), (2, 2), (5, 3)])
def test_tiny_matrices_have_few_directions_or_none(sizes: tuple[int, int]) -> None:
    user, item = np.arange(sizes[0]), np.arange(sizes[0]) % sizes[1]
    columns, basis = implicit_directions(user, item, sizes)
    assert columns.shape == basis.shape
    assert np.isfinite(columns).all()
    assert np.isfinite(basis).all()
    assert (np.abs(basis).sum(0) > 0).sum() < min(sizes)
