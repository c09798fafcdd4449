"""Targets of user tasks: the next events of the window, and nothing else."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtrec.config import Task, parse_scenario
from mtrec.models.preferences import MIN_FUTURE, as_at_any_moment, future_targets, known, preference_of_rows
from mtrec.models.users import History

TYPES = ("classification", "profile", "multilabel", "regression", "binary")


def task(kind: str, horizon: int) -> Task:
    declared: dict[str, Any] = {"type": kind, "on": "user", "label": "items.x", "horizon": horizon}
    return parse_scenario({"name": "test", "tasks": {"it": declared}}).tasks["it"]


def history(items: list[list[int]]) -> History:
    """Rows of items, −1 pads."""
    rows = torch.tensor(items)
    mask = rows >= 0
    zero = torch.zeros(rows.shape)
    return History(
        item_BT=rows.clamp(min=0), event_BT=mask.long(), rating_BT=zero / 0, gap_BT=zero, mask_BT=mask, row_BT=rows
    )


def item_labels(kind: str, items: int, seed: int, missing: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind in ("profile", "multilabel"):
        labels = (torch.rand(items, 3, generator=generator) < 0.4).float()
    elif kind == "classification":
        labels = torch.randint(3, (items,), generator=generator).float()
    elif kind == "binary":
        labels = torch.randint(2, (items,), generator=generator).float()
    else:
        labels = torch.randn(items, generator=generator)
    labels[missing] = math.nan
    return labels


def test_class_targets_by_hand() -> None:
    # Items 0…3 have classes 1, 0, 1, unknown.
    labels = torch.tensor([1.0, 0.0, 1.0, math.nan])
    target, mask = future_targets(
        task("classification", 4), labels, history([[0, 1, 2, 3, 0, 1], [1, 0, 2, -1, -1, -1]])
    )
    # User 1: from event 0 the labelled ones are 1, 0, 1 (3 of 4 events), then 0, 1, 1; then too few.
    assert mask.tolist() == [
        [True, True, True, False, False, False],
        [True, False, False, False, False, False],
    ]
    assert target[mask].tolist() == [1, 1, 1, 1]


def test_a_profile_is_the_mean_of_the_next_events() -> None:
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [math.nan, math.nan]])
    target, mask = future_targets(task("profile", 3), labels, history([[0, 1, 1, 2, 0]]))
    assert mask.tolist() == [[True, False, False, False, False]]
    assert target[0, 0].tolist() == pytest.approx([1.0, 2 / 3])


@pytest.mark.parametrize(
    ("kind", "labels", "wanted"),
    [
        ("regression", [1.0, 2.0, 6.0], 3.0),
        ("binary", [1.0, 0.0, 0.0], 0.0),
        ("binary", [1.0, 1.0, 0.0], 1.0),
    ],
)
def test_numbers_average_and_yes_needs_the_majority(kind: str, labels: list[float], wanted: float) -> None:
    declared = task(kind, 3)
    target, mask = future_targets(declared, torch.tensor(labels), history([[0, 1, 2]]))
    assert mask.tolist() == [[True, False, False]]
    assert float(target[0, 0]) == wanted
    assert float(preference_of_rows(declared, torch.tensor(labels), torch.tensor([0, 1, 2]))) == wanted


def test_a_label_counts_when_it_occurs_at_all() -> None:
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    found = preference_of_rows(task("multilabel", 5), labels, torch.tensor([0, 1, 0]))
    assert found.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("events", "horizon", "known_"), [(2, 5, False), (3, 5, True), (2, 2, True), (1, 1, True)])
def test_a_preference_needs_as_many_events_when_asked_as_when_learned(
    events: int, horizon: int, known_: bool
) -> None:
    found = preference_of_rows(task("classification", horizon), torch.zeros(events), torch.arange(events))
    assert bool(known(found.unsqueeze(0))[0]) == known_


def test_rows_without_any_label_have_no_target() -> None:
    labels = torch.tensor([0.0, math.nan])
    found = preference_of_rows(task("classification", 5), labels, torch.tensor([1, 1]))
    assert found.isnan()
    vectors = torch.tensor([[0.0, 1.0], [math.nan, math.nan]])
    assert not known(preference_of_rows(task("profile", 5), vectors, torch.tensor([1])).unsqueeze(0)).any()


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(TYPES),
    horizon=st.integers(1, 6),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_targets_are_those_of_the_next_events_inside_the_window(
    kind: str, horizon: int, lengths: list[int], seed: int
) -> None:
    """Against a plain loop: events t … t + horizon − 1, cut where the window ends."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    rows = [[int(torch.randint(8, (1,), generator=generator)) for _ in range(n)] for n in lengths]
    window = history([row + [-1] * (longest - len(row)) for row in rows])
    labels = item_labels(kind, 8, seed, missing=[2, 5])
    declared = task(kind, horizon)
    target, mask = future_targets(declared, labels, window)
    for b, row in enumerate(rows):
        for t in range(longest):
            ahead = row[t : t + horizon]
            labelled = [i for i in ahead if i not in (2, 5)]
            enough = len(labelled) >= min(MIN_FUTURE, horizon)
            assert bool(mask[b, t]) == (t < len(row) and enough)
            if mask[b, t]:
                wanted = preference_of_rows(declared, labels, torch.tensor(ahead))
                torch.testing.assert_close(target[b, t], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
def test_past_events_and_other_users_change_no_target(kind: str) -> None:
    labels = item_labels(kind, 8, seed=1, missing=[])
    declared = task(kind, 3)
    first, mask = future_targets(declared, labels, history([[0, 1, 2, 3, 4], [5, 6, 7, 0, -1]]))
    other, other_mask = future_targets(declared, labels, history([[7, 6, 2, 3, 4], [1, 1, 1, -1, -1]]))
    assert mask[0].equal(other_mask[0])
    torch.testing.assert_close(first[0, 2], other[0, 2])
    assert mask[1].tolist() == [True, True, False, False, False]
    assert other_mask[1].tolist() == [True, False, False, False, False]


def test_a_moment_of_the_clock_falls_into_gaps_by_their_length() -> None:
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    gap = torch.tensor([[0.0, 0.5, 7.0, 99.0], [0.0, 2.5, 1.0, 0.0]])
    weight = as_at_any_moment(mask, gap, 2.0)
    torch.testing.assert_close(weight, torch.tensor([[0.0, 0.25, 3.5, 0], [0, 1.25, 0, 0]]))
    without_time = as_at_any_moment(mask, torch.zeros_like(gap), 0.0)
    assert without_time.equal(mask.float())
