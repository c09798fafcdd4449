from typing import Any

from mtrec.training.cost import seconds_per_step


def train(step: int, seconds: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "seconds": seconds}


def test_what_happens_between_epochs_is_not_part_of_a_step() -> None:
    lines = [
        train(0, 0.0),
        {"kind": "tasks", "step": 0},
        train(5, 1.0),
        {"kind": "valid", "step": 8, "seconds": 100.0},
        train(10, 100.5),
        {"kind": "tasks", "step": 10},
        train(15, 102.5),
    ]
    assert seconds_per_step(lines) == (1.0 + 2.0) / 10


def test_epochs_shorter_than_the_record_tell_nothing() -> None:
    assert seconds_per_step([]) is None
    assert seconds_per_step([train(0, 0.0), {"kind": "valid", "step": 4, "seconds": 9.0}, train(5, 9.5)]) is None
