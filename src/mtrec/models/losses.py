"""The loss of every task type.

Each function takes predictions, targets and a mask of the examples that have a label, and returns a mean over
those examples (0 when there is none); a mask of numbers weighs them. Shapes: X examples, V values or classes, N
items, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EMPTY = 1e-6
"""Weight that stands for none, in place of dividing by 0."""


def _masked_mean(values_X: Tensor, mask_X: Tensor) -> Tensor:
    mask = mask_X.to(values_X.dtype)
    return (values_X * mask).sum() / mask.sum().clamp(min=EMPTY)


def regression_loss(predicted_X: Tensor, target_X: Tensor, mask_X: Tensor) -> Tensor:
    """Mean squared error: 1/N Σ (yᵢ − ŷᵢ)²."""
    return _masked_mean((predicted_X - target_X.nan_to_num()) ** 2, mask_X)


def binary_loss(logits_X: Tensor, target_X: Tensor, mask_X: Tensor) -> Tensor:
    """Binary cross-entropy of the sigmoid."""
    losses = F.binary_cross_entropy_with_logits(logits_X, target_X.nan_to_num(), reduction="none")
    return _masked_mean(losses, mask_X)


def classification_loss(logits_XV: Tensor, target_X: Tensor, mask_X: Tensor) -> Tensor:
    """Cross-entropy over the softmax; targets are class numbers."""
    losses = F.cross_entropy(logits_XV, target_X.nan_to_num().long(), reduction="none")
    return _masked_mean(losses, mask_X)


def multilabel_loss(logits_XV: Tensor, target_XV: Tensor, mask_X: Tensor) -> Tensor:
    """Binary cross-entropy over sigmoids, averaged over labels."""
    losses = F.binary_cross_entropy_with_logits(logits_XV, target_XV.nan_to_num(), reduction="none")
    return _masked_mean(losses.mean(-1), mask_X)


def profile_loss(predicted_XV: Tensor, target_XV: Tensor, mask_X: Tensor, cos_gt: float = 1.0) -> Tensor:
    """Distance of a predicted profile from its target: mean of max(0, cos_gt − c) / cos_gt, c the cosine.

    The literature prints (c − cos_gt) / cos_gt; minimised as printed it would drive users away from their
    profiles. This is the same quantity with the sign that trains.

    Args:
        predicted_XV: predicted preference vectors.
        target_XV: target preference vectors, non-negative.
        mask_X: which examples count.
        cos_gt: similarity that is good enough, in (0, 1]; nothing is gained beyond it.
    """
    cosine_X = F.cosine_similarity(predicted_XV, target_XV.nan_to_num(), dim=-1, eps=1e-8)
    return _masked_mean((cos_gt - cosine_X).clamp(min=0) / cos_gt, mask_X)


def chained_logit(first_X: Tensor, then_X: Tensor) -> Tensor:
    """Log-odds of σ(first) · σ(then): both a first event and, given it, the next (ESMM).

    Ma et al. 2018, arXiv:1804.07931. With p = 1 / ((1 + e⁻ᵃ)(1 + e⁻ᵇ)) the log-odds are −log(e⁻ᵃ + e⁻ᵇ + e⁻ᵃ⁻ᵇ).
    """
    return -torch.stack([-first_X, -then_X, -first_X - then_X]).logsumexp(0)


def softmax_ranking_loss(logits_XN: Tensor, target_X: Tensor, mask_X: Tensor) -> Tensor:
    """Cross-entropy of the taken item against every item."""
    return _masked_mean(F.cross_entropy(logits_XN, target_X, reduction="none"), mask_X)


def sampled_softmax_loss(
    positive_X: Tensor,
    negative_XM: Tensor,
    log_q_negative_M: Tensor,
    hit_XM: Tensor,
    mask_X: Tensor,
) -> Tensor:
    """Softmax over the taken item and M sampled negatives with the logQ correction.

    The taken item always stands in the sum and needs no correction. For the sampled ones, subtracting the log of
    their expected count in the sample makes the loss an estimate of the full softmax
    (Bengio & Senécal 2008; Yi et al. 2019, doi:10.1145/3298689.3346996).

    Args:
        positive_X: logits of the taken items.
        negative_XM: logits of the sampled items.
        log_q_negative_M: log of each sampled item's expected count in the sample.
        hit_XM: true where a sampled item is the taken one (left out of the sum).
        mask_X: which examples count.
    """
    negative_XM = (negative_XM - log_q_negative_M).masked_fill(hit_XM, float("-inf"))
    logits = torch.cat([positive_X.unsqueeze(-1), negative_XM], dim=-1)
    return _masked_mean(-F.log_softmax(logits, dim=-1)[:, 0], mask_X)
