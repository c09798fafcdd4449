from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from mtrec.config import Scenario


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_equal_steps_give_equal_gradients_on_two_threads(small: Scenario, two_threads: None) -> None:
    """Indexing's gradient adds up in the order in which threads arrive; the model must not index shared rows."""
    from mtrec.data.cleaning import clean
    from mtrec.data.dataset import prepare
    from mtrec.data.sources import read_source
    from mtrec.models.store import new_model
    from mtrec.training.loop import Trainer
    from mtrec.training.step import task_losses

    sizes = {"num_users": 100, "num_items": 60, "num_interactions": 6000}
    larger = small.model_copy(update={"source": small.source.model_copy(update={"options": sizes})})
    tables, _ = clean(read_source(larger, None))
    dataset, encoding = prepare(tables, larger)
    bundle, view, catalogue = new_model(dataset, encoding, larger)
    trainer = Trainer(bundle, view, catalogue, validate=lambda *a: {"rating": 0.0})
    rows_BT = next(iter(trainer.batches.epoch(0)))
    for parameter in bundle.model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))

    def gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        bundle.model.train()
        bundle.model.zero_grad()
        stale = replace(trainer.data.catalogue, text_NE=catalogue.text_NE.clone())
        data = replace(trainer.data, catalogue=stale)
        sum(task_losses(bundle.model, data, rows_BT).values()).backward()  # type: ignore[union-attr]
        return {n: p.grad.clone() for n, p in bundle.model.named_parameters() if p.grad is not None}

    first = gradients()
    assert len(first) > 20
    for _ in range(5):
        again = gradients()
        different = [name for name in first if not torch.equal(first[name], again[name])]
        assert different == []
