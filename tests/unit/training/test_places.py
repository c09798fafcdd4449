"""Places made on the host are those that masks mean."""

import numpy as np
import torch

from mtrec.training.places import Places, first_times

CPU = torch.device("cpu")


def test_places_take_what_a_mask_takes_in_the_same_order() -> None:
    draws = np.random.default_rng(0)
    mask_BT = draws.random((4, 6)) < 0.5
    states = torch.randn(4, 7, 3)
    events = Places.where(mask_BT, CPU)
    assert len(events) == mask_BT.sum() > 5
    assert events.before(states).equal(states[:, :-1][torch.from_numpy(mask_BT)])
    values_BT = torch.arange(24).view(4, 6)
    assert events.of(values_BT).equal(values_BT[torch.from_numpy(mask_BT)])
    some = events.chosen(torch.tensor([4, 0]))
    assert some.of(values_BT).tolist() == [int(events.of(values_BT)[4]), int(events.of(values_BT)[0])]
    assert len(Places.where(np.zeros((2, 3), dtype=bool), CPU).before(states)) == 0


def test_only_the_first_time_that_a_window_takes_an_item_counts() -> None:
    draws = np.random.default_rng(1)
    for _ in range(20):
        taken_BT, item_BT = draws.random((5, 8)) < 0.7, draws.integers(0, 4, (5, 8))
        found = first_times(taken_BT, item_BT)
        for window in range(5):
            for time in range(8):
                before = item_BT[window, :time][taken_BT[window, :time]]
                wanted = taken_BT[window, time] and item_BT[window, time] not in before
                assert found[window, time] == wanted
    assert not first_times(np.zeros((2, 3), dtype=bool), np.zeros((2, 3), dtype=int)).any()
    assert first_times(np.zeros((0, 3), dtype=bool), np.zeros((0, 3), dtype=int)).shape == (0, 3)
