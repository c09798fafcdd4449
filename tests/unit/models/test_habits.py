"""User tasks start from what the user's items carry: shrunken shares, of training labels alone."""

import torch

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST, TRAIN
from mtrec.evaluation import metrics
from mtrec.evaluation.predict import predict
from mtrec.models.habits import Habit
from mtrec.models.store import new_model


def habit_of(shop: Scenario, name: str, kappa: float) -> Habit:
    """Slots 1 and 2 carry values 0 and 1; slot 3 has no label; the prior is 3 to 1."""
    habit = Habit(shop.tasks[name], 4, 2)
    habit.values[1, 0] = habit.values[2, 1] = 1.0
    habit.known[1:3] = 1.0
    habit.prior.copy_(torch.tensor([0.75, 0.25]))
    habit.kappa.fill_(kappa)
    habit.sharpness.fill_(1.0)
    return habit


def test_shares_by_hand(shop: Scenario) -> None:
    habit = habit_of(shop, "preferred_category", 2.0)
    sums = habit.sums(torch.tensor([[1, 3, 2, 1, 0]]))
    assert sums[0].tolist() == [[0, 0, 0], [1, 0, 1], [1, 0, 1], [1, 1, 2], [2, 1, 3], [2, 1, 3]]
    share = habit.answer(sums)[0].exp()
    torch.testing.assert_close(share[0], torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(share[-1], torch.tensor([(2 + 1.5) / 5, (1 + 0.5) / 5]))


def test_a_profile_is_the_share_at_unit_length(shop: Scenario) -> None:
    habit = habit_of(shop, "profile", 4.0)
    answer = habit.answer(torch.tensor([[2.0, 0.0, 2.0]]))
    share = torch.tensor([2 + 3.0, 0 + 1.0])
    torch.testing.assert_close(answer[0], share / share.norm())


def test_before_training_habits_beat_the_mean_of_all_users(
    shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    dataset, encoding = shop_data
    bundle, view, catalogue = new_model(dataset, encoding, shop)
    tasks = {"profile": shop.tasks["profile"]}
    habits, _ = predict(bundle.model.eval(), view, catalogue, tasks, TEST, shop.model.history)
    for name, habit in bundle.model.habits.items():
        habit.kappa.fill_(1e9)  # nobody's own items count
        assert bundle.model.head(name).linear.bias.abs().max() == 0
    mean, _ = predict(bundle.model, view, catalogue, tasks, TEST, shop.model.history)
    task = tasks["profile"]
    better, worse = (
        metrics.compute(task, found["profile"].target, found["profile"].predicted)["cosine"]
        for found in (habits, mean)
    )
    assert better is not None
    assert worse is not None
    assert better > worse


def test_labels_of_held_out_items_are_not_read(shop: Scenario, shop_data: tuple[Dataset, Encoding]) -> None:
    dataset, encoding = shop_data
    bundle, view, _ = new_model(dataset, encoding, shop)
    held_out = view.items.ids[torch.from_numpy((dataset.items["part"] != TRAIN).to_numpy())]
    assert (held_out > 0).any()
    for _, habit in bundle.model.habits.items():
        assert habit.known[held_out].sum() == 0
        assert habit.values[held_out].abs().sum() == 0
        assert habit.known.sum() > 0


def test_a_model_saved_before_there_were_habits_answers_without(
    shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    bundle, _, _ = new_model(*shop_data, shop)
    old = {name: value for name, value in bundle.model.state_dict().items() if not name.startswith("habits.")}
    bundle.model.load_state_dict(old)
    sums = torch.rand(5, bundle.model.habits.width)
    outputs = {name: torch.randn(5, len(habit.prior)) for name, habit in bundle.model.habits.items()}
    for name, added in bundle.model.habits.add_to(outputs, sums).items():
        torch.testing.assert_close(added, outputs[name])
