"""From predictions to an evaluation: the numbers are those of the metrics, on the rows they name."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtrec.config import Scenario, Split
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.labels import Label
from mtrec.evaluation import metrics
from mtrec.evaluation.calibration import logits_of
from mtrec.evaluation.judge import MIN_SLICE, Answers, Judged, align, judge, protocol
from mtrec.evaluation.predict import Predictions, Ranked
from mtrec.evaluation.slices import Slices
from mtrec.models.inputs import View
from mtrec.models.recommender import Catalogue
from mtrec.models.store import Bundle, new_model
from tests.unit.tiny_shop import TASKS, shop_scenario

Start = tuple[Bundle, View, Catalogue]
USERS, ITEMS, ROWS = 30, 40, 300
LABELS = {
    "rating": Label(values=[], prior=[3.0]),
    "purchase": Label(values=[], prior=[0.3]),
    "category": Label(values=["Audio", "Books", "Toys"], prior=[0.5, 0.3, 0.2]),
    "tags": Label(values=["new", "red"], prior=[0.5, 0.3]),
    "profile": Label(values=["new", "red"], prior=[0.5, 0.3]),
}
NAMES = [*LABELS, "next_item"]


def answers(seed: int, skill: float) -> Answers:
    """What a model of some skill (0 to 1) says; the rows and targets are the same for every model."""
    same, own = np.random.default_rng(0), np.random.default_rng(seed)
    user, item = same.integers(1, USERS, ROWS), same.integers(0, ITEMS, ROWS)
    nobody = np.full(ROWS, -1)
    rating, yes = same.normal(3, 1, ROWS), (same.random(ROWS) < 0.4).astype(np.float32)
    classes, many = same.integers(0, 3, ROWS).astype(np.float32), (same.random((ROWS, 2)) < 0.5).astype(np.float32)
    mixed = skill * np.eye(3)[classes.astype(int)] + (1 - skill) * own.dirichlet(np.ones(3), ROWS)

    def rows(user: np.ndarray, item: np.ndarray, target: np.ndarray, predicted: np.ndarray) -> Predictions:
        return Predictions(user=user, item=item, target=target, predicted=predicted)

    ranked = []
    for u in range(USERS):
        relevant = np.sort(same.choice(ITEMS, 3, replace=False))
        scores = own.random(ITEMS) + skill * np.isin(np.arange(ITEMS), relevant)
        allowed = np.ones(ITEMS, dtype=bool)
        ranks = metrics.mean_ranks(scores, allowed, relevant)
        ranked.append(Ranked(user=u, relevant=relevant, ranks=ranks, top=np.argsort(-scores)[:10]))
    return Answers(
        rows={
            "rating": rows(user, item, rating, skill * rating + (1 - skill) * 3 + 0.1 * own.normal(size=ROWS)),
            "purchase": rows(user, item, yes, skill * yes + (1 - skill) * own.random(ROWS)),
            "category": rows(nobody, item, classes, mixed),
            "tags": rows(nobody, item, many, skill * many + (1 - skill) * own.random((ROWS, 2))),
            "profile": rows(user, nobody, many, skill * many + (1 - skill) * own.random((ROWS, 2))),
        },
        rankings={"next_item": ranked},
    )


def slices() -> Slices:
    item, user = np.arange(ITEMS), np.arange(USERS)
    return Slices(
        items={"cold items": item >= 30, "long tail": (item >= 10) & (item < 30), "head": item < 10},
        users={"cold users": user == 0, "light users": (user > 0) & (user < 20)},
    )


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return shop_scenario("unused", tasks={name: TASKS[name] for name in NAMES})


def judged(scenario: Scenario, champion: Answers | None = None, after: Answers | None = None) -> dict[str, Any]:
    models = Judged(before=answers(1, 0.1), after=after or answers(2, 0.7), champion=champion)
    return judge(models, scenario, LABELS, slices(), ITEMS)


@pytest.fixture(scope="module")
def alone(scenario: Scenario) -> dict[str, Any]:
    return judged(scenario)


def test_the_shape_is_the_promised_one(alone: dict[str, Any], scenario: Scenario) -> None:
    assert json.loads(json.dumps(alone, allow_nan=False)) == alone
    assert list(alone) == NAMES
    for name, task in alone.items():
        declared = scenario.tasks[name]
        assert (task["type"], task["on"]) == (declared.type, declared.on)
        assert task["primary"] == metrics.PRIMARY[declared.type]
        assert task["primary"] in task["metrics"]
        assert task["num_examples"] == (USERS if name == "next_item" else ROWS)
        assert task["comparison"] is None
        for metric, value in task["metrics"].items():
            assert set(value) == {"higher_is_better", "before", "after", "champion", "protocol"}
            assert value["higher_is_better"] == metrics.higher_is_better(metric)
            assert value["champion"] is None
            ranked = ", seen=excluded, ties=mean rank" if name == "next_item" else ""
            assert value["protocol"] == "split=time" + ranked


def test_numbers_are_those_of_the_metrics(alone: dict[str, Any], scenario: Scenario) -> None:
    before, after = answers(1, 0.1), answers(2, 0.7)
    for name in LABELS:
        for when, model in (("before", before), ("after", after)):
            rows = model.rows[name]
            wanted = metrics.compute(scenario.tasks[name], rows.target, rows.predicted)
            found = {metric: value[when] for metric, value in alone[name]["metrics"].items()}
            assert found == pytest.approx(wanted)
    found = {metric: value["after"] for metric, value in alone["next_item"]["metrics"].items()}
    wanted = metrics.ranking([u.metrics for u in after.rankings["next_item"]])
    shown = {int(i) for u in after.rankings["next_item"] for i in u.top}
    assert found == pytest.approx(wanted | {"coverage@10": len(shown) / ITEMS})
    assert {"hr@10", "ndcg@10", "mrr", "recall@10", "recall@50"} <= set(found)


def test_slices_are_the_metric_on_their_rows(alone: dict[str, Any], scenario: Scenario) -> None:
    after, members = answers(2, 0.7), slices()
    for name in LABELS:
        rows = after.rows[name]
        for found in alone[name]["slices"]:
            if found["slice"] in members.items:
                inside = (rows.item >= 0) & members.items[found["slice"]][rows.item]
            else:
                inside = (rows.user >= 0) & members.users[found["slice"]][rows.user]
            inside &= metrics.measured_rows(scenario.tasks[name], rows.target)
            assert found["num_examples"] == inside.sum() >= MIN_SLICE
            wanted = metrics.compute(scenario.tasks[name], rows.target[inside], rows.predicted[inside])
            assert found["after"] == pytest.approx(wanted[found["metric"]])
    of = {name: {found["slice"] for found in task["slices"]} for name, task in alone.items()}
    assert of["rating"] == {"cold items", "long tail", "head", "light users"}  # the cold user has no rows
    assert of["category"] == {"cold items", "long tail", "head"}
    assert of["profile"] == {"light users"}


def test_slices_of_a_ranking_look_at_the_relevant_items_of_the_slice(alone: dict[str, Any]) -> None:
    found = {s["slice"]: s for s in alone["next_item"]["slices"]}
    users = answers(2, 0.7).rankings["next_item"]
    cold = slices().items["cold items"]
    gains = [metrics.ranking_of_user(u.ranks[cold[u.relevant]])["ndcg@10"] for u in users if cold[u.relevant].any()]
    assert found["cold items"]["num_examples"] == len(gains)
    assert found["cold items"]["after"] == pytest.approx(np.mean(gains))
    assert found["light users"]["num_examples"] == 19
    assert found["light users"]["after"] == pytest.approx(np.mean([u.metrics["ndcg@10"] for u in users[1:20]]))
    assert "cold users" not in found


def test_curves_belong_to_their_types(alone: dict[str, Any]) -> None:
    present = {
        name: {curve for curve in ("reliability", "confusion", "histogram") if task[curve] is not None}
        for name, task in alone.items()
    }
    assert present == {
        "rating": {"histogram"},
        "purchase": {"reliability"},
        "category": {"reliability", "confusion"},
        "tags": {"reliability"},
        "profile": set(),
        "next_item": set(),
    }
    histogram = alone["rating"]["histogram"]
    assert sum(histogram["target"]) == sum(histogram["predicted"]) == ROWS
    assert len(histogram["edges"]) == len(histogram["target"]) + 1
    for name, decisions in {"purchase": ROWS, "category": ROWS, "tags": 2 * ROWS}.items():
        bins = alone[name]["reliability"]["bins"]
        assert sum(b["count"] for b in bins) == decisions
        assert "temperature" not in alone[name]["reliability"]
        assert alone[name]["reliability"]["ece"] == pytest.approx(alone[name]["metrics"]["ece"]["after"])
    counts = np.array(alone["category"]["confusion"]["counts"])
    assert alone["category"]["confusion"]["labels"] == ["Audio", "Books", "Toys"]
    assert counts.sum() == ROWS
    assert counts.trace() / ROWS == pytest.approx(alone["category"]["metrics"]["accuracy"]["after"])
    rows = answers(2, 0.7).rows["category"]
    assert counts.sum(1).tolist() == [int((rows.target == c).sum()) for c in range(3)]


@pytest.mark.parametrize("name", ["purchase", "category", "tags"])
def test_calibration_is_measured_with_and_without_the_temperature(scenario: Scenario, name: str) -> None:
    after = answers(2, 0.7)
    plain = after.rows[name]
    logits = logits_of(scenario.tasks[name], plain.predicted) / 3
    odds = np.exp(logits)
    scaled = odds / odds.sum(1, keepdims=True) if name == "category" else odds / (1 + odds)
    after.rows[name] = replace(plain, predicted=scaled, temperature=3.0)
    judged = Judged(before=answers(1, 0.1), after=after, champion=None)
    found = judge(judged, scenario, LABELS, slices(), ITEMS)[name]
    assert found["reliability"]["temperature"] == 3
    assert found["reliability"]["ece"] == found["metrics"]["ece"]["after"]
    wanted = metrics.compute(scenario.tasks[name], plain.target, plain.predicted)["ece"]
    assert found["reliability"]["uncalibrated_ece"] == pytest.approx(wanted, abs=1e-5)
    assert found["reliability"]["ece"] > 1.5 * wanted


def test_the_champion_is_compared_on_the_same_rows(scenario: Scenario) -> None:
    worse, better, equal = (
        judged(scenario, champion=champion, after=answers(2, 0.25))
        for champion in (answers(3, 0.0), answers(3, 0.99), answers(2, 0.25))
    )
    for name in NAMES:
        primary = worse[name]["primary"]
        for found, verdict in ((worse, "better"), (better, "worse"), (equal, "same")):
            comparison = found[name]["comparison"]
            assert comparison["verdict"] == verdict, name
            assert comparison["metric"] == primary
            values = found[name]["metrics"][primary]
            assert comparison["difference"] == pytest.approx(values["after"] - values["champion"], abs=1e-6)
            assert comparison["confidence"] == scenario.gate.confidence


def test_users_are_drawn_and_of_item_tasks_items(scenario: Scenario) -> None:
    found = judged(scenario, champion=answers(3, 0.5))
    rows = answers(2, 0.7).rows
    drawn = {name: (task["comparison"]["drawn"], task["comparison"]["groups"]) for name, task in found.items()}
    assert drawn == {
        "rating": ("users", len(set(rows["rating"].user))),
        "purchase": ("users", len(set(rows["purchase"].user))),
        "category": ("items", len(set(rows["category"].item))),
        "tags": ("items", len(set(rows["tags"].item[metrics.ranked_rows(rows["tags"].target)]))),
        "profile": ("users", len(set(rows["profile"].user))),
        "next_item": ("users", USERS),
    }


def with_rows(given: Answers, name: str, **changes: Any) -> Answers:
    return replace(given, rows={**given.rows, name: replace(given.rows[name], **changes)})


def test_lrap_of_every_model_is_over_the_same_ranked_rows(scenario: Scenario) -> None:
    models = [answers(1, 0.1), answers(2, 0.7), answers(3, 0.5)]
    found = judge(Judged(before=models[0], after=models[1], champion=models[2]), scenario, LABELS, slices(), ITEMS)[
        "tags"
    ]
    ranked = metrics.ranked_rows(models[0].rows["tags"].target)
    assert found["counts"] == {"unranked": int((~ranked).sum())}
    assert found["num_examples"] == ROWS
    for when, model in zip(("before", "after", "champion"), models, strict=True):
        rows = model.rows["tags"]
        wanted = metrics.multilabel(rows.target[ranked], rows.predicted[ranked])["lrap"]
        assert found["metrics"]["lrap"][when] == pytest.approx(wanted)
    difference = found["metrics"]["lrap"]["after"] - found["metrics"]["lrap"]["champion"]
    assert found["comparison"]["difference"] == pytest.approx(difference)


def test_a_task_without_a_row_to_rank_is_not_measured(scenario: Scenario) -> None:
    empty = np.zeros((ROWS, 2), dtype=np.float32)
    models = [with_rows(answers(seed, 0.5), "tags", target=empty) for seed in (1, 2, 3)]
    found = judge(Judged(before=models[0], after=models[1], champion=models[2]), scenario, LABELS, slices(), ITEMS)[
        "tags"
    ]
    assert (found["num_examples"], found["metrics"], found["comparison"]) == (0, {}, None)
    assert found["counts"] == {"unranked": ROWS}


def with_target(name: str, target: np.ndarray) -> Judged:
    models = [
        with_rows(answers(seed, skill), name, target=target) for seed, skill in ((1, 0.1), (2, 0.7), (3, 0.5))
    ]
    return Judged(before=models[0], after=models[1], champion=models[2])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_has_no_auc_and_is_compared_with_nothing(scenario: Scenario, value: float) -> None:
    models = with_target("purchase", np.full(ROWS, value, dtype=np.float32))
    found = judge(models, scenario, LABELS, slices(), ITEMS)["purchase"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    values = found["metrics"]["auc"]
    assert (values["before"], values["after"], values["champion"]) == (None, None, None)
    assert found["metrics"]["log_loss"]["after"] is not None
    assert (found["improvement"], found["comparison"]) == (None, None)
    assert found["num_examples"] == ROWS
    assert found["counts"] == {"positives": int(value) * ROWS, "negatives": ROWS - int(value) * ROWS}
    assert found["slices"]
    assert {(row["before"], row["after"]) for row in found["slices"]} == {(None, None)}


def test_a_slice_of_one_class_is_not_measured_and_the_others_are(scenario: Scenario) -> None:
    rows = answers(2, 0.7).rows["purchase"]
    target = np.where(rows.item < 10, 0, rows.target)
    found = judge(with_target("purchase", target), scenario, LABELS, slices(), ITEMS)["purchase"]
    measured = {row["slice"]: row["after"] is not None for row in found["slices"]}
    assert measured == {"cold items": True, "long tail": True, "head": False, "light users": True}
    assert found["improvement"]["verdict"] == "better"


def test_profiles_without_a_direction_are_left_out_and_counted(scenario: Scenario) -> None:
    target = answers(2, 0.7).rows["profile"].target
    none = int((target == 0).all(1).sum())
    assert none > 10
    found = judge(with_target("profile", target), scenario, LABELS, slices(), ITEMS)["profile"]
    assert found["counts"] == {"no_direction": none}
    assert found["num_examples"] == ROWS
    predicted = answers(2, 0.7).rows["profile"].predicted[target.any(1)]
    assert found["metrics"]["cosine"]["after"] == pytest.approx(
        metrics.cosine(target[target.any(1)], predicted).mean()
    )
    (light,) = found["slices"]
    assert light["num_examples"] < ROWS - none
    empty = judge(with_target("profile", np.zeros_like(target)), scenario, LABELS, slices(), ITEMS)["profile"]
    assert (empty["num_examples"], empty["metrics"], empty["counts"]) == (0, {}, {"no_direction": ROWS})


def test_unseen_classes_count_as_wrong_and_are_counted(scenario: Scenario, alone: dict[str, Any]) -> None:
    def without(given: Answers) -> Answers:
        target = given.rows["category"].target.copy()
        target[:60] = metrics.UNSEEN
        return with_rows(given, "category", target=target)

    models = [without(answers(seed, skill)) for seed, skill in ((1, 0.1), (2, 0.7), (3, 0.5))]
    found = judge(Judged(before=models[0], after=models[1], champion=models[2]), scenario, LABELS, slices(), ITEMS)[
        "category"
    ]
    assert found["counts"] == {"unseen_class": 60}
    assert alone["category"]["counts"] == {"unseen_class": 0}
    assert found["num_examples"] == ROWS
    rows = answers(2, 0.7).rows["category"]
    right = rows.predicted.argmax(1) == rows.target
    assert found["metrics"]["accuracy"]["after"] == pytest.approx(right[60:].sum() / ROWS)
    counts = np.array(found["confusion"]["counts"])
    assert counts.sum() == ROWS - 60
    assert counts.trace() == right[60:].sum()
    assert sum(b["count"] for b in found["reliability"]["bins"]) == ROWS


def test_values_outside_the_labels_are_counted(scenario: Scenario) -> None:
    outside = np.zeros(ROWS, dtype=np.int64)
    outside[[3, 5]] = 2, 1
    after = with_rows(with_rows(answers(2, 0.7), "tags", outside=outside), "profile", outside=outside)
    found = judged(scenario, after=after)
    assert found["tags"]["counts"]["outside_values"] == 3
    assert found["profile"]["counts"]["outside_values"] == 3
    assert found["next_item"]["counts"] == found["rating"]["counts"] == {}


def test_a_champion_without_a_task_is_not_compared_on_it(scenario: Scenario) -> None:
    champion = answers(3, 0.5)
    partly = Answers(rows={"rating": champion.rows["rating"]}, rankings={})
    found = judged(scenario, champion=partly)
    assert found["rating"]["comparison"] is not None
    for name in NAMES[1:]:
        assert found[name]["comparison"] is None
        assert {value["champion"] for value in found[name]["metrics"].values()} == {None}


def test_a_task_without_examples_has_an_empty_row(scenario: Scenario) -> None:
    full = answers(2, 0.7)
    none = {
        name: Predictions(user=p.user[:0], item=p.item[:0], target=p.target[:0], predicted=p.predicted[:0])
        for name, p in full.rows.items()
    }
    empty = Answers(rows=none, rankings={"next_item": []})
    found = judge(Judged(before=empty, after=empty, champion=None), scenario, LABELS, slices(), ITEMS)
    for name in NAMES:
        assert found[name]["num_examples"] == 0
        assert found[name]["metrics"] == {}
        assert found[name]["slices"] == []
        assert found[name]["comparison"] is None


@pytest.mark.parametrize(
    ("by", "history"),
    [
        ("time", "history ends where it begins"),
        ("random", "history is their interactions outside it"),
        ("leave_last_out", "begins where the last new item appears, and the history is all before it"),
        ("cold_items", "which no training interaction names"),
    ],
)
def test_the_protocol_says_how_it_was_measured(by: str, history: str, shop_start: Start) -> None:
    found = protocol(Split.model_validate({"by": by}), shop_start[0].model)
    assert found["split"] == by
    assert found["seen_items"] == "excluded"
    assert found["ranking"] == "full"
    assert found["tie_order"] == "mean rank of ties"
    assert history in found["text"]
    assert "1,000 draws of whole users" in found["text"]
    assert "Intervals, against the model before fine-tuning and against the champion" in found["text"]


SHARES = ", user tasks at the shares of what the user took"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {},
            f"{SHARES}, posteriors of ratings in closed form, user and item biases fitted in closed form and "
            "counted item neighbours.",
        ),
        (
            {"neighbours": 0, "posterior_factors": 0},
            f"{SHARES} and user and item biases fitted in closed form.",
        ),
        ({"user_ids": False}, f"{SHARES}, posteriors of ratings in closed form and counted item neighbours."),
        ({"item_ids": False}, "."),
    ],
)
def test_the_protocol_says_what_the_model_knows_before_fine_tuning(
    settings: dict[str, Any], words: str, shop: Scenario, shop_data: tuple[Dataset, Encoding]
) -> None:
    scenario = shop.model_copy(update={"model": shop.model.model_copy(update=settings)})
    start = new_model(*shop_data, scenario)[0].model
    text = protocol(scenario.split, start)["text"]
    assert text.endswith(f"means: the pretrained encoder with heads at the averages of the training rows{words}")


def test_columns_of_another_vocabulary_are_brought_into_order() -> None:
    predicted = np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]])
    found = align(predicted, ["a", "b", "c"], ["c", "new", "a"])
    assert found.tolist() == [[0.7, 0, 0.1], [0.1, 0, 0.6]]
    assert align(predicted, ["a", "b", "c"], ["a", "b", "c"]).tolist() == predicted.tolist()
    assert align(predicted[:0], ["a", "b", "c"], ["a"]).shape == (0, 1)
