"""What the report says and colours of how tasks get along."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest

from mtrec.evaluation.relations import MIN_STEPS, Relation, Relations
from mtrec.evaluation.relations_panel import reach, reading, together, two
from tests.unit.evaluation.report_sample import TASKS, sample_comparisons


def relation(first: str, second: str, **changes: Any) -> Relation:
    given = {"kind": "indifferent", "steps": 20, "mean": 0.0, "above": 0.5, "below": 0.5, "start": 0.0, "end": 0.0}
    return Relation(first=first, second=second, **given | changes)  # type: ignore[arg-type]


HELP = {"kind": "helps", "mean": 0.42, "above": 0.95, "below": 0.05, "start": 0.6, "end": 0.28}
FIGHT = {"kind": "conflicts", "mean": -0.2, "above": 0.1, "below": 0.9, "start": -0.2, "end": -0.2}


def relations_of(*names: str, pulls: Any = None, **pairs: Mapping[str, Any]) -> Relations:
    """Relations of the named tasks; `a_b={…}` changes that pair."""
    made = [relation(a, b, **pairs.get(f"{a}_{b}", {})) for a, b in combinations(names, 2)]
    empty: list[list[float | None]] = [[None] * len(names) for _ in names]
    return Relations(tasks=list(names), steps=20, pairs=made, pulls=pulls or empty)


def told(found: Relations) -> dict[str, str]:
    return {sentence["kind"]: sentence["text"].replace("\u00a0", " ") for sentence in reading(found)}


def test_one_pair_of_each_kind_in_words() -> None:
    lost = {"kind": "unknown", "mean": None, "start": None, "end": None}
    found = relations_of("a", "b", "c", "d", a_b=HELP, a_c=FIGHT, a_d={"kind": "apart"}, b_d=lost)
    assert told(found) == {
        "helps": "a and b help each other (mean cosine 0.42, 95 % of the steps above 0).",
        "conflicts": "a and c are in conflict (mean cosine −0.20, 90 % of the steps below 0).",
        "others": "2 other pairs have no steady direction, 1 other pair reads separate parts of the shared "
        "representation, where its gradients cannot meet and 1 other pair met in too few steps to say.",
        "change": "From the first to the last third of training a and b went from 0.60 to 0.28, the largest "
        "change; the mean over all pairs that meet went from 0.10 to 0.02.",
    }


def test_many_pairs_are_named_from_the_clearest_and_counted() -> None:
    strong = {f"a_{other}": {**HELP, "mean": 0.1 * k} for k, other in enumerate("bcdef", start=1)}
    fights = {f"b_{other}": {**FIGHT, "mean": -0.1 * k} for k, other in enumerate("cd", start=1)}
    found = told(relations_of(*"abcdef", **strong, **fights))
    assert found["helps"] == (
        "5 pairs help each other: a and f (mean cosine 0.50, 95 % of the steps above 0), a and e (0.40, 95 %), "
        "a and d (0.30, 95 %) and 2 other pairs."
    )
    assert found["conflicts"] == (
        "2 pairs are in conflict: b and d (mean cosine −0.20, 90 % of the steps below 0) and b and c (−0.10, 90 %)."
    )


def test_only_help_and_nothing_at_all() -> None:
    assert told(relations_of("a", "b", "c", a_b=HELP))["conflicts"] == "No two tasks are in steady conflict."
    assert told(relations_of("a", "b", a_b=FIGHT))["helps"] == "No two tasks steadily help each other."
    assert told(relations_of("a", "b", "c")) == {
        "helps": "No two tasks steadily help each other, and none are in steady conflict.",
        "others": "3 pairs have no steady direction.",
        "change": "From the first to the last third of training this changed little: no mean cosine by more than "
        "0.00.",
    }


def test_tasks_that_never_meet_have_no_change_to_tell() -> None:
    assert "change" not in told(relations_of("a", "b", a_b={"kind": "apart"}))


def test_a_single_pair_has_no_mean_over_pairs() -> None:
    assert told(relations_of("a", "b", a_b=HELP))["change"] == (
        "From the first to the last third of training a and b went from 0.60 to 0.28."
    )


def test_names_with_brackets_and_percent_signs_stay_as_they_are() -> None:
    found = relations_of("share (in %)", "b")
    pair = relation("share (in %)", "b", **HELP)
    odd = Relations(tasks=found.tasks, steps=20, pairs=[pair], pulls=found.pulls)
    assert told(odd)["helps"] == (
        "share (in %) and b help each other (mean cosine 0.42, 95 % of the steps above 0)."
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (-0.4, "Strongest harm: a step on a undoes 40 % of what c gains by its own."),
        (-2.5, "Strongest harm: a step on a more than undoes what c gains by its own."),
        (-0.01, ""),
    ],
)
def test_the_strongest_help_and_harm(harm: float, words: str) -> None:
    pulls = [[1.0, 0.3, harm], [0.8, 1.0, -9.0], [harm / 2, 9.0, 1.0]]
    said = reach(relations_of("a", "b", "c", pulls=pulls, a_b=HELP, a_c=FIGHT)).replace("\u00a0", " ")
    best = "Strongest help: a step on b lowers the loss of a by 80 % of what its own step does."
    assert said == f"{best} {words}".strip(), "b and c have no steady direction, so their pull says nothing"


def test_too_few_steps_say_so() -> None:
    lines = sample_comparisons()
    assert "not compared" in together([], ["a", "b"])["too_few"]  # type: ignore[index]
    few = together(lines[: MIN_STEPS - 1], list(TASKS))
    assert few is not None
    assert few.keys() == {"too_few"}
    assert f"at {MIN_STEPS - 1} training steps only" in few["too_few"]
    assert "training.compare_every" in few["too_few"]
    enough = together(lines[:MIN_STEPS], list(TASKS))
    assert enough is not None
    assert enough["too_few"] == ""


def test_a_single_task_has_nobody_to_get_along_with() -> None:
    assert together([], ["rating"]) is None
    assert together([], []) is None


def test_the_maps_hold_the_numbers_and_are_coloured_by_sign() -> None:
    panel = together(sample_comparisons(), list(TASKS))
    assert panel is not None
    cosines, pulls = panel["cosines"], panel["pulls"]
    by_name = {name: i for i, name in enumerate(panel["names"])}
    rating, ranking, tags = by_name["rating"], by_name["next_item"], by_name["tags"]
    for i, row in enumerate(cosines):
        assert (row[i]["style"], row[i]["text"], pulls[i][i]["style"]) == ("self", "", "self")
        for j, cell in enumerate(row):
            assert cell["text"] == cosines[j][i]["text"], "the cosine of two tasks is one number"
    assert cosines[rating][ranking]["style"] == "minus"
    assert cosines[rating][ranking]["text"].startswith("−0.")
    assert "in conflict" in cosines[rating][ranking]["title"]
    assert cosines[rating][by_name["purchase"]]["style"] == "plus"
    assert (cosines[rating][tags]["text"], cosines[rating][tags]["style"]) == ("·", "lost")
    assert pulls[rating][tags]["text"] == "·"
    there, back = (int(pulls[i][j]["text"].strip("−")) for i, j in ((ranking, rating), (rating, ranking)))
    assert there > 3 * back, "the task with the longer gradient moves the other one more"
    strong, weak = cosines[by_name["category"]][tags], cosines[rating][by_name["profile"]]
    assert float(strong["mix"]) > float(weak["mix"]) > 0
    assert [pair["mean"] for pair in panel["pairs"][:11]] == sorted(
        (pair["mean"] for pair in panel["pairs"][:11]), reverse=True
    )
    assert {pair["kind"] for pair in panel["pairs"][11:]} == {"apart"}


def test_pulls_beyond_three_digits_stay_inside_their_cell() -> None:
    lines = sample_comparisons()
    for line in lines:
        line["norms"][list(TASKS).index("next_item")] *= 1e5
    panel = together(lines, list(TASKS))
    assert panel is not None
    row = panel["pulls"][list(TASKS).index("next_item")]
    assert row[0]["text"] == "<−999"
    assert {cell["mix"] for cell in row} <= {"", "100"}


def test_without_lengths_there_is_one_map() -> None:
    lines = [{key: value for key, value in line.items() if key != "norms"} for line in sample_comparisons()]
    panel = together(lines, list(TASKS))
    assert panel is not None
    assert panel["pulls"] == []
    assert panel["reach"] == ""
    assert panel["cosines"]


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (-0.5, "−0.50"), (-0.001, "0.00"), (1.0, "1.00")])
def test_cosines_have_two_decimals(value: float, text: str) -> None:
    assert two(value) == text
