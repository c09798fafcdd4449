"""Task conditioning by hand."""

import torch

from mtrec.models.sharing.conditioning import TaskConditioning


def test_it_starts_as_the_identity() -> None:
    shared = torch.randn(4, 3)
    conditioning = TaskConditioning(2, 3)
    assert conditioning(shared, 0).equal(shared)
    assert conditioning(shared, 1).equal(shared)


def test_scale_and_shift_by_hand() -> None:
    conditioning = TaskConditioning(2, 2)
    with torch.no_grad():
        conditioning.embedding.zero_()
        conditioning.embedding[1, 0] = 2.0
        conditioning.modulation.weight[:, 0] = torch.tensor([0.5, -1.0, 3.0, 0.0])
    shared = torch.tensor([[1.0, 10.0]])
    assert conditioning(shared, 0).tolist() == [[1.0, 10.0]]
    assert conditioning(shared, 1).tolist() == [[1 * (1 + 1.0) + 6.0, 10 * (1 - 2.0) + 0.0]]
