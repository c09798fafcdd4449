"""Ids that training hardly met count little."""

import pytest
import torch

from mtrec.models.trust import Trust


def test_trust_grows_with_the_number_of_rows() -> None:
    trust = Trust([1, 20, 380], shrinkage=20.0)
    assert trust(torch.tensor([0, 1, 2, 3])).squeeze(1).tolist() == pytest.approx([0, 1 / 21, 0.5, 0.95])


def test_without_shrinkage_every_known_id_counts_in_full() -> None:
    assert Trust([1, 5], shrinkage=0.0)(torch.tensor([2, 0, 1])).squeeze(1).tolist() == [1, 0, 1]


def test_it_is_computed_from_the_encoding_and_not_stored() -> None:
    assert Trust([1, 2], shrinkage=3.0).state_dict() == {}
