"""The shared bottom."""

import torch

from mtrec.models.sharing.shared_bottom import SharedBottom


def test_one_trunk_serves_every_task() -> None:
    bottom = SharedBottom(["a", "b"], 6, 10, dropout=0.5).eval()
    x = torch.randn(2, 3, 6)
    found = bottom(x)
    assert found["a"].shape == (2, 3, 10)
    assert found["a"].equal(found["b"]), "until a task's conditioning has learned something"
    assert found["a"].equal(bottom.layers(x))


def test_dropout_only_in_training() -> None:
    bottom = SharedBottom(["a"], 6, 200, dropout=0.5)
    x = torch.randn(1, 6)
    assert (bottom.train()(x)["a"] == 0).float().mean() > 0.2
    assert (bottom.eval()(x)["a"] == 0).float().mean() < 0.05
