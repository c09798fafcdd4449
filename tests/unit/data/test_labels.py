"""Labels of every task type."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtrec.config import Task, parse_scenario
from mtrec.data.labels import MAX_CLASSES, Label, event_label, fit_labels, label_array
from mtrec.errors import DataError

TASKS: dict[str, dict[str, Any]] = {
    "rating": {"type": "regression", "on": "pair", "label": "interactions.rating"},
    "like": {"type": "binary", "on": "pair", "label": "interactions.rating", "threshold": 4},
    "buys": {"type": "binary", "on": "pair", "exposure": ["view"], "positive": ["purchase"]},
    "active": {"type": "binary", "on": "user", "label": "users.active"},
    "category": {"type": "classification", "on": "item", "label": "items.category"},
    "tags": {"type": "multilabel", "on": "item", "label": "items.tags", "min_count": 1},
    "profile": {"type": "profile", "on": "user", "label": "items.tags"},
    "next_item": {"type": "next_item"},
}
INTERACTIONS = pl.DataFrame(
    {
        "user_id": ["a", "a", "a", "b", "b", "b"],
        "item_id": ["x", "x", "y", "x", "y", "y"],
        "event": ["view", "purchase", "view", "view", "view", "purchase"],
        "rating": [3.0, 4.0, None, 5.0, None, 4.0],
        "part": [0, 0, 0, 0, 0, 2],
    }
)
ROWS = {
    "users": pl.DataFrame({"user_id": ["a", "b"], "active": [True, None]}),
    "items": pl.DataFrame(
        {
            "item_id": ["x", "y", "z", "w"],
            "category": ["Audio", None, "Audio", "Books"],
            "tags": [["new", "red"], ["new"], None, []],
        }
    ),
    "interactions": INTERACTIONS,
}


def tasks() -> dict[str, Task]:
    return parse_scenario({"name": "test", "tasks": TASKS}).tasks


def fit(given: dict[str, dict[str, Any]], rows: dict[str, pl.DataFrame]) -> dict[str, Label]:
    scenario = parse_scenario({"name": "test", "tasks": given})
    event = event_label(tasks()["buys"], rows["interactions"])  # type: ignore[arg-type]
    interactions = rows["interactions"].with_columns(pl.Series("label_buys", event))
    return fit_labels(scenario, {**rows, "interactions": interactions})


@pytest.fixture(scope="module")
def labels() -> dict[str, Label]:
    return fit(TASKS, ROWS)


def test_priors_are_means_and_shares_of_the_training_rows(labels: dict[str, Label]) -> None:
    assert labels["rating"].prior == [4.0]
    assert labels["rating"].scale == pytest.approx(np.sqrt(0.5))
    assert labels["rating"].limits == [3.0, 5.0]
    # Only numbers have a scale and limits.
    assert labels["like"] == Label(values=[], prior=[0.75])
    # Four views; only a's view of x has a purchase of the same user and item in the same part.
    assert labels["buys"].prior == [0.25]
    assert labels["active"].prior == [1.0]
    assert labels["category"].values == ["Audio", "Books"]
    assert labels["category"].prior == pytest.approx([2 / 3, 1 / 3])
    assert labels["profile"].values == ["new", "red"]
    assert labels["profile"].prior == pytest.approx([2 / 3, 1 / 3])
    assert labels["next_item"] == Label(values=[], prior=[])


def test_rare_labels_are_left_out() -> None:
    rows = {
        **ROWS,
        "items": pl.DataFrame({"item_id": ["x", "y"], "tags": [["new", "red", "once"], ["new", "red"]]}),
    }
    assert fit({"tags": {**TASKS["tags"], "min_count": 2}}, rows)["tags"].values == ["new", "red"]


def test_arrays_of_every_type() -> None:
    declared = tasks()
    column = pl.Series([4.0, None, 3.5])
    assert label_array(declared["rating"], Label(values=[], prior=[]), column).tolist()[::2] == [4.0, 3.5]
    assert np.isnan(label_array(declared["rating"], Label(values=[], prior=[]), column)[1])
    like = label_array(declared["like"], Label(values=[], prior=[]), column)
    assert like[[0, 2]].tolist() == [1, 0]
    assert np.isnan(like[1])
    category = label_array(
        declared["category"],
        Label(values=["Audio", "Books"], prior=[]),
        pl.Series(["Books", None, "Toys", "Audio"]),
    )
    assert category[[0, 3]].tolist() == [1, 0]
    assert np.isnan(category[1:3]).all()
    tags = label_array(
        declared["tags"], Label(values=["new", "red"], prior=[]), pl.Series([["red", "odd"], [], None])
    )
    assert tags[:2].tolist() == [[0, 1], [0, 0]]
    assert np.isnan(tags[2]).all()
    truth = label_array(declared["active"], Label(values=[], prior=[]), pl.Series([True, False, None]))
    assert truth[:2].tolist() == [1, 0]
    assert np.isnan(truth[2])
    assert {a.dtype for a in (like, category, tags, truth)} == {np.dtype(np.float32)}


def test_a_column_of_single_values_serves_a_multilabel_task() -> None:
    found = label_array(tasks()["tags"], Label(values=["new", "red"], prior=[]), pl.Series(["red", None]))
    assert found[0].tolist() == [0, 1]
    assert np.isnan(found[1]).all()


def test_purchases_count_for_exposures_of_the_same_user_item_and_part() -> None:
    found = event_label(tasks()["buys"], INTERACTIONS)  # type: ignore[arg-type]
    assert np.isnan(found).tolist() == [False, True, False, False, False, True]
    # b buys y in the test part alone, so the training view of y stays a no.
    assert found[[0, 2, 3, 4]].tolist() == [1, 0, 0, 0]
    # A view after the purchase leads to none: its history already holds the answer.
    again = INTERACTIONS.with_columns(event=pl.Series(["view", "purchase", "view", "view", "view", "purchase"]))
    again = again.with_columns(item_id=pl.Series(["x", "x", "x", "x", "y", "y"]))
    assert event_label(tasks()["buys"], again)[[0, 2]].tolist() == [1, 0]  # type: ignore[arg-type]
    moved = INTERACTIONS.with_columns(part=pl.Series([0, 0, 0, 0, 2, 2]))
    assert event_label(tasks()["buys"], moved)[4] == 1  # type: ignore[arg-type]


@given(
    users=st.lists(st.sampled_from("ab"), min_size=3, max_size=40),
    seed=st.integers(0, 1000),
)
def test_the_label_of_a_part_is_that_of_its_rows_alone(users: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = pl.DataFrame(
        {
            "user_id": sorted(users),
            "item_id": rng.choice(["x", "y"], len(users)),
            "event": rng.choice(["view", "purchase", "cart"], len(users)),
            "part": rng.choice([0, 0, 1, 2], len(users)),
        }
    ).sort("user_id", "part", maintain_order=True)
    task: Any = tasks()["buys"]
    whole = event_label(task, rows)
    for part in (0, 1, 2):
        alone = event_label(task, rows.filter(pl.col("part") == part))
        np.testing.assert_array_equal(whole[rows["part"].to_numpy() == part], alone)
    # Written out: a view is a yes when a purchase of the same user and item follows in its part.
    for n, (user, item, event, part) in enumerate(rows.rows()):
        follows = any(row == (user, item, "purchase", part) for row in rows.rows()[n + 1 :])
        assert np.isnan(whole[n]) if event != "view" else whole[n] == follows


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"type": "regression", "on": "item", "label": "items.weight"}, "label column 'items.weight' is missing"),
        (
            {"type": "classification", "on": "user", "label": "users.active"},
            "has 1 distinct values in the training rows; a classification task needs 2 to 1000",
        ),
        ({"type": "binary", "on": "item", "label": "items.category"}, "must be a number or true/false, found text"),
        ({"type": "regression", "on": "item", "label": "items.nothing"}, "no training row has a usable label"),
        ({"type": "multilabel", "on": "item", "label": "items.tags", "min_count": 9}, "has 0 distinct values"),
        ({"type": "classification", "on": "item", "label": "items.many"}, f"has {MAX_CLASSES + 1} distinct values"),
    ],
)
def test_unusable_labels_are_refused_by_name(task: dict[str, Any], said: str) -> None:
    many = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(MAX_CLASSES + 1)],
            "category": ["Audio"] * (MAX_CLASSES + 1),
            "tags": [["new"], *[None] * MAX_CLASSES],
            "nothing": pl.Series([None] * (MAX_CLASSES + 1), dtype=pl.Float64),
            "many": [f"v{n}" for n in range(MAX_CLASSES + 1)],
        }
    )
    with pytest.raises(DataError) as caught:
        fit({"wrong": task}, {**ROWS, "items": many})
    assert said in str(caught.value)
    assert "wrong" in str(caught.value) or task["label"] in str(caught.value)


def test_labels_survive_json(labels: dict[str, Label]) -> None:
    for label in labels.values():
        assert Label(**json.loads(json.dumps(label.as_dict()))) == label
