"""Every loss against numbers worked out by hand, and against torch where it has the same one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mtrec.models import losses

ALL = torch.ones(2)


def test_regression_is_the_mean_squared_error() -> None:
    found = losses.regression_loss(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 2.0]), ALL)
    assert float(found) == 5.0  # (1 + 9) / 2


def test_binary_is_cross_entropy_of_the_sigmoid() -> None:
    # sigmoid(0) = 1/2, so −ln 1/2; sigmoid(ln 3) = 3/4, and the target is no: −ln 1/4.
    found = losses.binary_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]), ALL)
    assert float(found) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_classification_is_cross_entropy_of_the_softmax() -> None:
    # Softmax of (ln 1, ln 2, ln 5) is (1/8, 2/8, 5/8); of equal logits 1/3 each.
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [7.0, 7.0, 7.0]])
    found = losses.classification_loss(logits, torch.tensor([2.0, 0.0]), ALL)
    assert float(found) == pytest.approx((math.log(8 / 5) + math.log(3)) / 2)


def test_multilabel_is_binary_cross_entropy_averaged_over_labels() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    target = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    # Row 1: (ln 2 + ln 4/3) / 2; row 2: ln 2.
    found = losses.multilabel_loss(logits, target, ALL)
    assert float(found) == pytest.approx(((math.log(2) + math.log(4 / 3)) / 2 + math.log(2)) / 2)


@pytest.mark.parametrize(
    ("cos_gt", "wanted"),
    [
        (1.0, (0.4 + 1.0) / 2),  # cosines 0.6 and 0: (1 − 0.6) and 1
        (0.5, (0.0 + 1.0) / 2),  # 0.6 is similar enough: nothing is gained beyond 0.5
        (0.8, (0.25 + 1.0) / 2),  # (0.8 − 0.6) / 0.8
    ],
)
def test_profile_is_the_distance_below_the_wanted_cosine(cos_gt: float, wanted: float) -> None:
    predicted = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    target = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    assert float(losses.profile_loss(predicted, target, ALL, cos_gt)) == pytest.approx(wanted)


def test_profile_drives_users_towards_their_profile() -> None:
    target = torch.tensor([[1.0, 0.0]])
    predicted = torch.tensor([[1.0, 1.0]], requires_grad=True)
    loss = losses.profile_loss(predicted, target, torch.ones(1))
    (gradient,) = torch.autograd.grad(loss, predicted)
    step = predicted.detach() - 0.1 * gradient
    assert gradient[0, 0] < 0 < gradient[0, 1]
    assert F.cosine_similarity(step, target) > F.cosine_similarity(predicted, target)
    assert float(loss.detach()) == pytest.approx(1 - math.sqrt(0.5))


def test_profile_beyond_the_wanted_cosine_has_no_gradient_and_opposite_is_worst() -> None:
    near = torch.tensor([[1.0, 0.1]], requires_grad=True)
    loss = losses.profile_loss(near, torch.tensor([[1.0, 0.0]]), torch.ones(1), 0.9)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, near)[0].abs().sum() == 0
    opposite = losses.profile_loss(torch.tensor([[-1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1), 0.5)
    assert float(opposite) == pytest.approx(3.0)  # (0.5 + 1) / 0.5


def test_ranking_is_cross_entropy_over_all_items() -> None:
    logits = torch.tensor([[math.log(3), 0.0, -math.inf], [0.0, 0.0, 0.0]])
    found = losses.softmax_ranking_loss(logits, torch.tensor([0, 2]), ALL)
    assert float(found) == pytest.approx((math.log(4 / 3) + math.log(3)) / 2)


def test_sampled_softmax_by_hand() -> None:
    # The taken item: e^ln2 = 2, always in the sum. Samples: 1 / (1/4) = 4, and a hit that is left out.
    found = losses.sampled_softmax_loss(
        torch.tensor([math.log(2)]),
        torch.tensor([[0.0, math.log(2)]]),
        torch.tensor([math.log(1 / 4), math.log(1 / 2)]),
        torch.tensor([[False, True]]),
        torch.ones(1),
    )
    assert float(found) == pytest.approx(math.log(3))


def test_against_torch_on_random_numbers() -> None:
    torch.manual_seed(0)
    x, v = 50, 7
    numbers, target = torch.randn(x), torch.randn(x)
    yes = (torch.rand(x) < 0.4).float()
    logits, classes = torch.randn(x, v), torch.randint(v, (x,))
    many = (torch.rand(x, v) < 0.3).float()
    every = torch.ones(x)
    pairs = [
        (losses.regression_loss(numbers, target, every), F.mse_loss(numbers, target)),
        (losses.binary_loss(numbers, yes, every), F.binary_cross_entropy_with_logits(numbers, yes)),
        (losses.classification_loss(logits, classes.float(), every), F.cross_entropy(logits, classes)),
        (losses.multilabel_loss(logits, many, every), F.binary_cross_entropy_with_logits(logits, many)),
        (losses.softmax_ranking_loss(logits, classes, every), F.cross_entropy(logits, classes)),
        (
            losses.profile_loss(logits, many, every),
            1 - F.cosine_similarity(logits, many).mean(),
        ),
    ]
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted)


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], bool, bool]] = {
    "regression": (losses.regression_loss, False, False),
    "binary": (losses.binary_loss, False, False),
    "classification": (losses.classification_loss, True, False),
    "multilabel": (losses.multilabel_loss, True, True),
    "profile": (losses.profile_loss, True, True),
}
"""The function, whether its predictions are vectors, whether its targets are."""


@pytest.mark.parametrize("name", LOSSES)
def test_examples_without_a_label_count_for_nothing(name: str) -> None:
    loss, vectors, many = LOSSES[name]
    torch.manual_seed(1)
    predicted = torch.randn((6, 3) if vectors else (6,), requires_grad=True)
    target = (torch.rand((6, 3) if many else (6,)) < 0.5).float()
    missing = torch.tensor([True, False, True, False, False, True])
    target[missing] = math.nan
    found = loss(predicted, target, ~missing)
    known = loss(predicted[~missing], target[~missing], torch.ones(3))
    torch.testing.assert_close(found, known)
    (gradient,) = torch.autograd.grad(found, predicted)
    assert gradient[missing].abs().sum() == 0
    assert gradient[~missing].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_without_any_example_loss_and_gradient_are_zero(name: str) -> None:
    loss, vectors, many = LOSSES[name]
    predicted = torch.randn((4, 3) if vectors else (4,), requires_grad=True)
    target = torch.full((4, 3) if many else (4,), math.nan)
    found = loss(predicted, target, torch.zeros(4, dtype=torch.bool))
    assert float(found.detach()) == 0
    (gradient,) = torch.autograd.grad(found, predicted)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_batch_is_zero_too(name: str) -> None:
    loss, vectors, many = LOSSES[name]
    predicted = torch.zeros((0, 3) if vectors else (0,), requires_grad=True)
    found = loss(predicted, torch.zeros((0, 3) if many else (0,)), torch.zeros(0))
    assert float(found.detach()) == 0


def test_sampling_every_item_once_is_the_full_softmax() -> None:
    """All N items drawn uniformly: each is expected once (log q = 0), and the sampled loss is the full one."""
    torch.manual_seed(2)
    logits = torch.randn(8, 40, dtype=torch.float64, requires_grad=True)
    target = torch.randint(40, (8,))
    rows = torch.arange(8)
    hit = torch.arange(40).unsqueeze(0) == target.unsqueeze(1)
    zero = torch.zeros(40, dtype=torch.float64)
    sampled = losses.sampled_softmax_loss(logits[rows, target], logits, zero, hit, torch.ones(8))
    full = losses.softmax_ranking_loss(logits, target, torch.ones(8))
    torch.testing.assert_close(sampled, full, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (sampled, full)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_the_logq_correction_makes_the_true_shares_the_optimum() -> None:
    """At logits = log p the full softmax has no gradient; nor has, on average, the corrected sampled one.

    Without the correction the popular items, drawn more often as negatives, would be pushed down.
    """
    torch.manual_seed(3)
    items, negatives, draws = 60, 200, 400
    share = torch.softmax(torch.randn(items, dtype=torch.float64), 0)
    q = share.sqrt() / share.sqrt().sum()
    log_rate = (q * negatives).log()
    norms = {}
    for name, correction in (("corrected", log_rate), ("plain", torch.zeros(items, dtype=torch.float64))):
        generator = torch.Generator().manual_seed(4)
        logits = share.log().requires_grad_(True)
        total = torch.zeros(items, dtype=torch.float64)
        for _ in range(draws):
            sample = torch.multinomial(q, negatives, replacement=True, generator=generator)
            target = torch.multinomial(share, 500, replacement=True, generator=generator)
            loss = losses.sampled_softmax_loss(
                logits[target],
                logits[sample].expand(len(target), -1),
                correction[sample],
                sample.unsqueeze(0) == target.unsqueeze(1),
                torch.ones(len(target)),
            )
            total += torch.autograd.grad(loss, logits)[0] / draws
        norms[name] = float(total.norm())
    assert norms["corrected"] < 0.2 * norms["plain"], norms


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_the_sampled_sum_estimates_the_full_one_without_bias(power: float) -> None:
    """e^(loss + logit of the taken item) is the sum under the fraction; its mean over samples is that of all items.

    For uniform sampling (power 0) and for sampling by the root of popularity (power 0.5).
    """
    torch.manual_seed(5)
    items, negatives, draws = 30, 10, 4000
    logits = torch.randn(items, dtype=torch.float64)
    q = torch.softmax(torch.randn(items, dtype=torch.float64), 0) ** power
    q = q / q.sum()
    target = torch.tensor([4])
    sums = torch.empty(draws, dtype=torch.float64)
    samples = torch.multinomial(q.expand(draws, -1), negatives, replacement=True)
    for s, sample in enumerate(samples):
        log_rate = (q[sample] * negatives).log()
        hit = sample.unsqueeze(0) == target.unsqueeze(1)
        loss = losses.sampled_softmax_loss(
            logits[target], logits[sample].unsqueeze(0), log_rate, hit, torch.ones(1)
        )
        sums[s] = (loss + logits[target[0]]).exp()
    full = logits.exp().sum()
    assert float((sums.mean() - full).abs()) < 4 * float(sums.std()) / math.sqrt(draws)
    assert float(sums.std()) / math.sqrt(draws) < 0.02 * float(full)
