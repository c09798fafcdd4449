"""SASRec: it reads no later item and no padding, loses no row, and finds what follows what."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import sasrec
from benchmarks.ranking import gains, rank_targets
from benchmarks.ratings import Parts, Ratings


def make(sequences: list[list[int]], num_items: int) -> Ratings:
    """Users with items from 0, oldest first."""
    items = np.array([item for sequence in sequences for item in sequence], dtype=np.int64)
    return Ratings(
        users=np.repeat(np.arange(len(sequences)), [len(s) for s in sequences]),
        items=items,
        values=np.ones(len(items)),
        user_ids=[f"u{i}" for i in range(len(sequences))],
        item_ids=[f"i{i}" for i in range(num_items)],
        low=1.0,
        high=5.0,
    )


def circle(num_users: int, length: int, num_items: int) -> Parts:
    """Everybody goes round the same circle of items; the last two steps are held out."""
    paths = [[(3 * user + step) % num_items for step in range(length)] for user in range(num_users)]
    parts = [slice(None, -2), slice(-2, -1), slice(-1, None)]
    train, valid, test = (make([path[part] for path in paths], num_items) for part in parts)
    return Parts(train=train, valid=valid, test=test)


@pytest.mark.parametrize("loss", ["sampled", "full"])
def test_it_learns_what_follows_what(loss: sasrec.Loss) -> None:
    parts = circle(40, 9, 30)
    model = sasrec.SasRec(loss=loss, width=32, length=8, batch=8, dropout=0.1, epochs=60)
    found = gains(rank_targets(model, parts.before_test, parts.test))["hr@10"].mean()
    assert found > 0.9  # chance: 10 of the 22 items that a user has not seen


def test_states_see_neither_padding_nor_later_items() -> None:
    model = sasrec.SasRec(width=8, length=6, epochs=1).fit(make([[0, 1, 2, 3], [4, 5]], 10)).eval()
    short = model(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(model(torch.tensor([[0, 0, 0, 1, 2, 3]]))[:, 3:], short)
    torch.testing.assert_close(model(torch.tensor([[1, 2, 9]]))[:, :2], short[:, :2])
    assert (model(torch.tensor([[9, 2, 3]]))[:, 2] - short[:, 2]).abs().max() > 1e-4
    scores = model.scores(np.array([0, 1]))
    assert scores.shape == (2, 10)
    torch.testing.assert_close(
        torch.from_numpy(scores[1]), model(torch.tensor([[5, 6]]))[0, 1] @ model.items.weight[1:].T
    )


def test_windows_hold_every_step_once_or_the_last_ones() -> None:
    items = np.arange(10)
    whole = sasrec.windows(items, 4, whole=True)
    steps = sorted((int(a), int(b)) for window in whole for a, b in itertools.pairwise(window))
    assert steps == [(i, i + 1) for i in range(9)]
    assert max(map(len, whole)) == 4
    assert [w.tolist() for w in sasrec.windows(items, 4, whole=False)] == [[6, 7, 8, 9]]
    assert sasrec.windows(items[:1], 4, whole=True) == []


def test_negatives_are_items_that_the_user_has_not_taken() -> None:
    model = sasrec.SasRec(width=4, length=6).fit(make([[0, 1, 2, 3, 4], [5, 6]], 8))
    users = np.repeat([0, 1], 300)
    drawn = model._not_taken(users, np.random.default_rng(0))
    assert set(drawn[users == 0]) == {6, 7, 8}
    assert set(drawn[users == 1]) == {1, 2, 3, 4, 5, 8}


def test_settings_follow_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    published = sasrec.usual_setting(make([list(range(60))] * 3, 60), "sampled")
    assert (published["length"], published["dropout"]) == (200, 0.2)
    published = sasrec.usual_setting(make([list(range(9))] * 3, 60), "sampled")
    assert (published["length"], published["dropout"], published["batch"]) == (50, 0.5, 128)

    tried: list[tuple[int, float]] = []

    def best_epochs(model: sasrec.SasRec, parts: Any) -> tuple[float, int]:
        tried.append((model.width, model.p))
        return {(50, 0.5): 0.1, (64, 0.2): 0.2, (64, 0.5): 0.3, (128, 0.5): 0.25}[model.width, model.p], len(tried)

    monkeypatch.setattr(sasrec, "best_epochs", best_epochs)
    parts = circle(40, 9, 30)
    assert sasrec.choose(parts, "sampled") == {**published, "epochs": 1}
    assert sasrec.choose(parts, "full") == {**published, "loss": "full", "width": 64, "epochs": 3}
    assert tried == [(50, 0.5), (64, 0.2), (64, 0.5), (128, 0.5)]


def test_epochs_are_chosen_on_the_validation_part(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = circle(40, 9, 30)
    values = {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.3, 6: 0.1}
    seen: list[int] = []

    def ranks(model: sasrec.SasRec, train: Any, test: Any) -> Any:
        assert test is parts.valid
        seen.append(len(seen) + 1)
        return seen[-1]

    monkeypatch.setattr(sasrec, "rank_fitted", ranks)
    monkeypatch.setattr(sasrec, "gains", lambda look: {"ndcg@10": np.array([values[look]])})
    monkeypatch.setattr(sasrec, "PATIENCE", 3)
    monkeypatch.setattr(sasrec, "STEPS", {"sampled": 10, "full": 10})
    model = sasrec.SasRec(width=4, length=8, batch=8, epochs=100)
    assert sasrec.best_epochs(model, parts) == (0.5, 4)  # five steps an epoch, so a look every second one
    assert seen == [1, 2, 3, 4, 5]


def test_a_seed_decides_everything() -> None:
    parts = circle(20, 9, 30)
    first, again, other = (
        sasrec.SasRec(width=8, length=8, epochs=2, seed=seed).fit(parts.train).scores(np.arange(5))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
