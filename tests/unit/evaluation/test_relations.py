"""How tasks get along: numbers by hand, and which of them are called help, conflict or nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mtrec.evaluation.relations import CLEAR, MIN_STEPS, relations

NAMES = ["rating", "like", "tags"]


def line(rows: Sequence[Sequence[float]], step: int = 0, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """The line of one step, whose gradients are the rows."""
    rows_KD = np.asarray(rows, dtype=float)
    norm_K = np.linalg.norm(rows_KD, axis=1)
    unit_KD = rows_KD / np.maximum(norm_K, 1e-12)[:, None]
    return {
        "kind": "tasks",
        "step": step,
        "tasks": list(names),
        "norms": norm_K.tolist(),
        "cosines": (unit_KD @ unit_KD.T).tolist(),
        "effects": [],
    }


def at(cosine: float, length: float = 1.0) -> list[float]:
    """A gradient with that cosine to (1, 0)."""
    return [length * cosine, length * float(np.sqrt(1 - cosine**2))]


def pair_of(cosines: Sequence[float]) -> Any:
    found = relations([line([[1, 0], at(c)], step, ["a", "b"]) for step, c in enumerate(cosines)])
    assert found is not None
    return found.pairs[0]


def test_nothing_recorded_is_none() -> None:
    assert relations([]) is None
    assert relations([{"kind": "train", "step": 0, "loss": 1.0, "losses": {}}]) is None


def test_means_shares_and_thirds_by_hand() -> None:
    pair = pair_of([0.6, 0.4, 0.3, 0.1, -0.1, -0.3])
    assert (pair.first, pair.second, pair.steps) == ("a", "b", 6)
    assert pair.mean == pytest.approx(1.0 / 6)
    assert (pair.above, pair.below) == pytest.approx((4 / 6, 2 / 6))
    assert (pair.start, pair.end) == pytest.approx((0.5, -0.2))


@pytest.mark.parametrize(
    ("cosines", "kind"),
    [
        ([0.3, 0.4] * 4, "helps"),
        ([-0.3, -0.4] * 4, "conflicts"),
        ([0.3, -0.3] * 4, "indifferent"),
        ([CLEAR / 2] * 8, "indifferent"),  # always above 0, by next to nothing
        ([0.9, 0.9, -0.05, -0.05, -0.05, -0.05], "indifferent"),  # a mean above 0 that most steps contradict
        ([-0.9, -0.9, 0.05, 0.05, 0.05, 0.05], "indifferent"),
        ([0.9, -0.8, 0.9, -0.8, 0.9, 0.1], "indifferent"),  # most steps above 0, the mean within its error
        ([0.0] * 8, "apart"),
        ([0.0] * 7 + [0.3], "indifferent"),
        ([0.9] * (MIN_STEPS - 1), "unknown"),
    ],
)
def test_what_a_pair_is_called(cosines: list[float], kind: str) -> None:
    assert pair_of(cosines).kind == kind


def test_a_step_in_which_a_task_has_no_gradient_does_not_count() -> None:
    lines = [line([[1, 0], at(0.5), at(-0.5)]) for _ in range(6)] + [line([[1, 0], [0, 0], at(-0.5)])] * 6
    found = relations(lines)
    assert found is not None
    assert (found.steps, found.tasks) == (12, NAMES)
    assert (found.between(0, 1).steps, found.between(1, 2).steps, found.between(2, 0).steps) == (6, 6, 12)
    assert found.between(0, 1).mean == pytest.approx(0.5), "twelve steps would halve it"
    assert found.between(2, 0).mean == pytest.approx(-0.5)


def test_a_pull_is_the_share_of_the_own_step() -> None:
    # A step along (4, 0) lowers the loss of (1.2, 1.6) by 4.8; its own step lowers it by 4. Back: 4.8 of 16.
    found = relations([line([[4, 0], [1.2, 1.6], [0, 0]])])
    assert found is not None
    assert found.pulls[0][1] == pytest.approx(4.8 / 4)
    assert found.pulls[1][0] == pytest.approx(4.8 / 16)
    assert found.pulls[0][0] == pytest.approx(1)
    assert found.pulls[0][2] is None
    assert found.pulls[2][0] is None


def test_one_wild_step_does_not_decide_a_pull() -> None:
    calm, wild = (line([[1, 0], other], names=["a", "b"]) for other in (at(0.5), at(-0.9, 1e-6)))
    found = relations([*[calm] * 6, wild])
    assert found is not None
    assert found.pulls[0][1] == pytest.approx(0.5), "a mean would be beyond −100,000"


def test_lines_of_another_set_of_tasks_and_broken_ones_are_left_out() -> None:
    good = line([[1, 0], at(0.5), at(0.2)])
    other = line([[1, 0], at(-1.0)], names=["rating", "like"])
    found = relations([other, {**good, "cosines": [[1.0]]}, {**good, "cosines": None}, good])
    assert found is not None
    assert (found.tasks, found.steps) == (NAMES, 1)
    assert found.between(0, 1).mean == pytest.approx(0.5)


def test_numbers_that_are_none_and_lines_without_lengths() -> None:
    lost = line([[1, 0], at(0.5), at(0.2)])
    lost["cosines"][0][1] = float("nan")
    del lost["norms"]
    found = relations([lost])
    assert found is not None
    assert found.between(0, 1).mean is None
    assert found.between(0, 2).mean == pytest.approx(0.2)
    assert {value for row in found.pulls for value in row} == {None}
