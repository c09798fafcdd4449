"""The shared bottom: one trunk, the same for every task, each example on its own."""

import torch

from mtrec.models.sharing.shared_bottom import SharedBottom


def test_examples_are_independent_and_of_the_given_width() -> None:
    torch.manual_seed(0)
    bottom = SharedBottom(6, 10, dropout=0.5).eval()
    inputs = torch.randn(4, 3, 6)
    found = bottom(inputs)
    assert found.shape == (4, 3, 10)
    torch.testing.assert_close(found[2, 1], bottom(inputs[2, 1]))


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    bottom = SharedBottom(6, 200, dropout=0.5)
    inputs = torch.randn(1, 6)
    assert not bottom(inputs).equal(bottom(inputs))
    bottom.eval()
    assert bottom(inputs).equal(bottom(inputs))
