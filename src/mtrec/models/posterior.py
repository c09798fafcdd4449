"""Factors of users and items with their uncertainty: the part of a rating that closed forms know best.

Gradient descent finds one set of factors; averaging over all that the labels allow predicts better (Salakhutdinov
& Mnih 2008, doi:10.1145/1390156.1390267). Here the average is variational (Lim & Teh 2007, "Variational Bayesian
approach to movie rating prediction"). Its priors read attributes (Kim & Choi 2014, doi:10.1109/LSP.2014.2326155)
and what was taken, with a label or without, which is the signal of SVD++ (Koren 2008, doi:10.1145/1401890.1401944).

A user needs no table: the posterior follows from the rows of the user in one solve of K × K, so that a new rating
counts at once and a new user has one after the first event. `mtrec.models.posterior_fit` finds the rest.

Shapes: S item slots (0 unknown), K factors and a bias, M implicit directions, B users, Y events, X pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtrec.models.posterior_fit import DIRECTIONS, LARGEST, Fitted, moments, pair_moments
from mtrec.models.took import DAMPING

CHUNK = 16_384
"""Pairs whose K × K matrices are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """What B users did: Y rows, in any order."""

    owner_Y: Tensor
    """Which of the B users, in [0, B)."""
    slot_Y: Tensor
    label_Y: Tensor
    """Standardised; NaN where an event has no label."""


@dataclass(frozen=True, kw_only=True)
class UserPosterior:
    """Mean (B, K) and precision (B, K, K) of users' vectors."""

    mean_BK: Tensor
    precision_BKK: Tensor


class Posterior(nn.Module):
    """Predicts the label of a pair, and how sure that is, from closed-form posteriors. Nothing here is trained."""

    item_mean: Tensor
    item_cov: Tensor
    item_prior: Tensor
    basis: Tensor
    user_map: Tensor
    user_precision: Tensor
    item_precision: Tensor
    noise_precision: Tensor

    def __init__(self, num_slots: int, num_factors: int) -> None:
        super().__init__()
        K = num_factors + 1
        self.register_buffer("item_mean", torch.zeros(num_slots, K))
        self.register_buffer("item_cov", torch.eye(K).repeat(num_slots, 1, 1))
        self.register_buffer("item_prior", torch.zeros(num_slots, K))
        self.register_buffer("basis", torch.zeros(num_slots, DIRECTIONS))
        self.register_buffer("user_map", torch.zeros(2 + DIRECTIONS, K))
        self.register_buffer("user_precision", torch.ones(K))
        self.register_buffer("item_precision", torch.ones(K))
        self.register_buffer("noise_precision", torch.ones(()))

    @torch.no_grad()
    def start_from(self, fitted: Fitted) -> None:
        """Take over what `mtrec.models.posterior_fit.fit` found."""
        for mine, found in (
            (self.item_mean, fitted.item_mean_SK),
            (self.item_cov, fitted.item_cov_SKK),
            (self.item_prior, fitted.item_prior_SK),
            (self.basis, fitted.basis_SM),
            (self.user_map, fitted.user_map_CK),
            (self.user_precision, fitted.user_precision_K),
            (self.item_precision, fitted.item_precision_K),
        ):
            mine.copy_(torch.as_tensor(found))
        self.noise_precision.fill_(fitted.noise_precision)

    def users(self, events: Events, num_users: int) -> UserPosterior:
        """Posteriors of B users given their events."""
        owner, slot = events.owner_Y, events.slot_Y
        count_B = torch.bincount(owner, minlength=num_users).float()
        implicit = self.basis.new_zeros(num_users, DIRECTIONS).index_add(0, owner, self.basis[slot])
        directions = (implicit / (count_B + DAMPING).sqrt().unsqueeze(1)).clamp(-LARGEST, LARGEST)
        columns = torch.cat(
            [torch.stack([torch.ones_like(count_B), count_B.log1p() / 4], dim=1), directions], dim=1
        )
        precision = torch.diag(self.user_precision).repeat(num_users, 1, 1)
        right = (columns @ self.user_map) * self.user_precision
        rated = ~events.label_Y.isnan()
        for part in rated.nonzero().squeeze(1).split(CHUNK):
            z, zz, zb = moments(self.item_mean[slot[part]], self.item_cov[slot[part]])
            precision.index_add_(0, owner[part], self.noise_precision * zz)
            right.index_add_(0, owner[part], self.noise_precision * (z * events.label_Y[part].unsqueeze(1) - zb))
        return UserPosterior(mean_BK=torch.linalg.solve(precision, right), precision_BKK=precision)

    def forward(self, users: UserPosterior, user_X: Tensor, slot_X: Tensor) -> Tensor:
        """Mean and log standard deviation of the labels of pairs, (X, 2).

        Args:
            users: posteriors.
            user_X: row of each pair's user in them.
            slot_X: the items' id slots.
        """
        found = []
        for user, slot in zip(user_X.split(CHUNK), slot_X.split(CHUNK), strict=True):
            cov = torch.linalg.inv(users.precision_BKK[user])
            found.append(_predicted(users.mean_BK[user], cov, self.item_mean[slot], self.item_cov[slot]))
        return torch.cat(found) if found else self.item_mean.new_zeros(0, 2)

    def left_out(self, users: UserPosterior, events: Events) -> tuple[Tensor, Tensor]:
        """What the rows that the posteriors were made from would be predicted as without themselves.

        Taking one Gaussian factor out of a posterior is a downdate of its precision (the cavity of Opper & Winther
        2000, doi:10.1162/089976600300014881). Trained on these, heads learn how far to trust the rest of the rows
        rather than to copy the label.

        Returns:
            Mean and log standard deviation (Y, 2), and the same for an item of which no label was ever seen
            (Y, 2). Rows without a label keep the posterior of all rows.
        """
        left, unseen = [], []
        for part in torch.arange(len(events.slot_Y), device=events.slot_Y.device).split(CHUNK):
            owner, slot, label = events.owner_Y[part], events.slot_Y[part], events.label_Y[part]
            rated = (~label.isnan()).float() * self.noise_precision
            label = label.nan_to_num()
            z_i, zz_i, zb_i = moments(self.item_mean[slot], self.item_cov[slot])
            precision = users.precision_BKK[owner]
            mean = users.mean_BK[owner]
            cov = torch.linalg.inv(precision)
            z_u, zz_u, zb_u = moments(mean, cov)
            right = (precision @ mean.unsqueeze(2)).squeeze(2) - rated[:, None] * (z_i * label[:, None] - zb_i)
            cov_u, mean_u = _solved(precision - rated[:, None, None] * zz_i, right)
            inverse = torch.linalg.inv(self.item_cov[slot])
            right = (inverse @ self.item_mean[slot].unsqueeze(2)).squeeze(2)
            cov_i, mean_i = _solved(
                inverse - rated[:, None, None] * zz_u, right - rated[:, None] * (z_u * label[:, None] - zb_u)
            )
            left.append(_predicted(mean_u, cov_u, mean_i, cov_i))
            fresh = torch.diag(1 / self.item_precision).expand_as(cov_i)
            unseen.append(_predicted(mean_u, cov_u, self.item_prior[slot], fresh))
        return torch.cat(left), torch.cat(unseen)


def _solved(precision: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance and mean; eigenvalues that a downdate left at or below 0 are lifted to a small positive one."""
    values, vectors = torch.linalg.eigh(precision)
    cov = (vectors / values.clamp(min=1e-3).unsqueeze(1)) @ vectors.transpose(1, 2)
    return cov, (cov @ right.unsqueeze(2)).squeeze(2)


def _predicted(p: Tensor, P: Tensor, q: Tensor, Q: Tensor) -> Tensor:
    """Mean and log standard deviation of p·q + both biases, (X, 2)."""
    mean, variance = pair_moments(p, P, q, Q)
    return torch.stack([mean, variance.clamp(min=1e-6).log() / 2], dim=1)
