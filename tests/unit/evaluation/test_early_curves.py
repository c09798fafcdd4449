"""Curves of what was learned before the tasks."""

from mtrec.evaluation.curves import learning_curves
from mtrec.evaluation.early_curves import early_curves

PRETRAIN = [
    {"kind": "pretrain", "step": step, "epoch": epoch, "loss": loss, "held_out": held_out, "seconds": 1.0}
    for step, epoch, loss, held_out in ((5, 0, None, 7.0), (10, 1, 6.5, 6.25), (15, 2, 6.0, 5.75))
]
MATCH = [
    {"kind": "match", "step": n, "epoch": n, "loss": loss, "seconds": 1.0} for n, loss in enumerate((0.4, 0.1))
]


def test_one_drawing_each() -> None:
    first, second = early_curves([*PRETRAIN, *MATCH])
    assert first["name"] == "Pretraining on the texts"
    assert "Loss of masked words from 7.000 to 5.750." in first["svg"]
    assert "held-out texts" in first["svg"]
    assert "from the teacher&#39;s from 0.400 to 0.100." in second["svg"]
    assert "held-out texts" not in second["svg"]


def test_they_come_before_the_tasks_and_not_without_lines() -> None:
    train = {"kind": "train", "step": 0, "loss": 1.0, "losses": {"rating": 1.0}}
    names = [plot["name"] for plot in learning_curves([*PRETRAIN, train], {"rating": {}}, None)["plots"]]
    assert names == ["Pretraining on the texts", "All tasks together", "rating"]
    assert early_curves([train]) == []
