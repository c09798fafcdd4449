"""Lists, arrays and tensors of the host arrive as they are."""

import numpy as np
import pytest
import torch

from mtrec.models.sending import sent


def test_what_is_sent_arrives_with_its_type() -> None:
    cpu = torch.device("cpu")
    assert sent([1, 2], cpu).equal(torch.tensor([1, 2]))
    assert sent(np.array([0.5], dtype=np.float32), cpu).equal(torch.tensor([0.5]))
    here = torch.ones(2)
    assert sent(here, cpu) is here


def test_a_gpu_gets_it_out_of_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinning needs a GPU, so here only the order is seen: pinned first, then copied without a wait."""
    done: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: (done.append("pinned"), self)[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: done.append((device.type, how)))
    sent([1], torch.device("cuda"))
    assert done == ["pinned", ("cuda", {"non_blocking": True})]
