"""The report: everything it is given appears, nothing it is given can harm, and what is missing stays readable."""

import copy
import html
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtrec.evaluation.report import report_html, write_report
from tests.unit.evaluation.report_sample import (
    BETTER_LOW,
    LINEAGE,
    TASKS,
    sample_evaluation,
    sample_gate,
    sample_losses,
    sample_validation,
)


def render(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "evaluation": sample_evaluation(),
        "losses": sample_losses(),
        "gate": sample_gate(),
        "validation": sample_validation(),
        "lineage": LINEAGE,
    }
    return report_html(**{**arguments, **changes})


class Page(HTMLParser):
    """Checks nesting, and collects elements, attributes and text."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def numbers(self) -> set[float]:
        return {float(a["value"]) for a in self.all("data")}


def floats_of(value: Any) -> set[float]:
    if isinstance(value, dict):
        return {x for v in value.values() for x in floats_of(v)}
    if isinstance(value, list):
        return {x for v in value for x in floats_of(v)}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {float(value)}
    return set()


# ------------------------------------------------------------------------------------------------- content


def test_every_number_of_the_evaluation_appears() -> None:
    evaluation = sample_evaluation()
    page = Page(render(evaluation=evaluation))
    for task in evaluation["tasks"].values():
        if task["confusion"]:
            counts = task.pop("confusion")["counts"]
            for count in sorted({n for row in counts for n in row if n}):
                assert str(count) in page.words, f"confusion count {count}"
        if task["comparison"]:
            assert "95 %" in page.text
            del task["comparison"]["confidence"]
        del task["improvement"]  # the gate's reasons tell it in words
    assert floats_of(evaluation) - page.numbers == set()


def test_every_rule_and_number_of_the_gate_appears() -> None:
    gate = sample_gate(passed=False)
    page = Page(render(gate=gate))
    assert floats_of(gate["rules"]) - page.numbers == set()
    for rule in gate["rules"]:
        assert rule["rule"] in page.text
        assert rule["why"] in page.text


def test_losses_validation_and_lineage_appear() -> None:
    losses, validation = sample_losses(), sample_validation()
    page = Page(render(losses=losses, validation=validation))
    valid = [
        {key: line[key] for key in ("step", "epoch", "score", "metrics")}
        for line in losses
        if line["kind"] == "valid"
    ]
    assert floats_of(valid) - page.numbers == set()
    assert floats_of(validation) - page.numbers == set()
    for text in ["dangling item_id", "expect_column_values_to_not_be_null(title)", *validation["warnings"]]:
        assert text in page.text
    for value in LINEAGE.values():
        assert value is None or value in page.text
    assert "not recorded" in page.text


def test_verdict_stands_on_top_with_its_reasons() -> None:
    passed, failed = Page(render()), Page(render(gate=sample_gate(passed=False)))
    assert "This model is ready for review. All 15 rules of the gate are met." in passed.text
    assert "Fine-tuning improved 7 of 7 tasks." in passed.text
    assert "Against the champion it is better on 4, worse on 1, no clear difference on 2." in passed.text
    assert "This model should not be promoted. 1 of 15 rules of the gate is not met." in failed.text
    before_overview = failed.text.partition("Before and after fine-tuning")[0]
    assert "tags.micro_f1 must not be more than 2 % worse than the champion : 3.1 % worse" in before_overview
    assert "<title>Fail" in render(gate=sample_gate(passed=False))


@pytest.mark.parametrize("name", list(TASKS))
def test_bars_are_drawn_to_scale_and_say_their_direction(name: str) -> None:
    page = Page(render())
    metrics = TASKS[name][2]
    primary = next(iter(metrics))
    place = next(i for i, (_, a) in enumerate(page.elements) if a.get("aria-label", "").startswith(f"{name}, "))
    label = page.elements[place][1]["aria-label"]
    assert ("lower is better" if primary in BETTER_LOW else "higher is better") in label
    fills = [a["style"] for _, a in page.elements[place + 1 : place + 15] if a.get("class", "").startswith("fill ")]
    widths = [float(re.search(r"width:([\d.]+)%", style).group(1)) for style in fills]  # type: ignore[union-attr]
    values = metrics[primary]
    assert widths == pytest.approx([100 * v / max(values) for v in values], abs=0.01)


def test_forest_turns_every_task_so_that_right_is_better() -> None:
    page = Page(render())
    points = {}
    for place, (_, attributes) in enumerate(page.elements):
        found = re.match(r"(\w+): .* differs by", attributes.get("aria-label", ""))
        if found:
            point = next(a for _, a in page.elements[place:] if a.get("class", "").startswith("point"))
            points[found.group(1)] = float(re.search(r"left:([\d.]+)%", point["style"]).group(1))  # type: ignore[union-attr]
    assert set(points) == set(TASKS)
    assert points["rating"] > 50, "a lower RMSE is better"
    assert points["next_item"] > 50
    assert points["tags"] < 50
    assert all(0 <= x <= 100 for x in points.values())


def test_no_difference_to_the_champion_is_a_sentence() -> None:
    evaluation = sample_evaluation()
    for task in evaluation["tasks"].values():
        task["comparison"]["verdict"] = "same"
    page = Page(render(evaluation=evaluation))
    assert "Against the champion there is no clear difference on 7 tasks." in page.text


def test_calibration_in_words() -> None:
    text = Page(render()).text
    assert "very well calibrated" in text
    assert "1.7 percentage points" in text
    assert "Before temperature scaling the ECE was 0.0518." in text
    assert re.search(r"before temperature scaling\s+0\.0518\s*, temperature\s+1\.42", text), text
    evaluation = sample_evaluation()
    reliability = evaluation["tasks"]["purchase"]["reliability"]
    reliability["ece"] = 0.2
    for b in reliability["bins"]:
        b["observed"] = max(0.0, b["predicted"] - 0.2)
    text = Page(render(evaluation=evaluation)).text
    assert "poorly calibrated" in text
    assert "Overall they are too high." in text


def test_what_a_metric_leaves_out_is_said_in_words() -> None:
    text = Page(render()).text
    for words in (
        "17 test examples are of classes that training never saw. They count as wrong",
        "1 test example is of a class that training never saw. It counts as wrong",
        "41 test examples carry none or all of the labels. No order of their labels could be wrong, so LRAP leaves",
        "1,234 label values of the test examples are unknown here",
    ):
        assert words in text, words
    assert "0 label values" not in text
    evaluation = sample_evaluation()  # a task of which nothing could be measured says why
    evaluation["tasks"]["tags"].update(metrics={}, slices=[], comparison=None, num_examples=0)
    assert "41 test examples carry none or all of the labels" in Page(render(evaluation=evaluation)).text


@pytest.mark.parametrize(
    ("positives", "negatives", "words"),
    [
        (1, 169, "Only 1 positive among 170 test rows, so AUC and its interval rest on very little."),
        (1200, 9, "Only 9 negatives among 1,209 test rows, so AUC and its interval rest on very little."),
        (0, 170, "No positive among 170 test rows, so AUC cannot be measured."),
        (10, 10, ""),
    ],
)
def test_few_of_a_class_are_told(positives: int, negatives: int, words: str) -> None:
    evaluation = sample_evaluation()
    evaluation["tasks"]["purchase"]["counts"] = {"positives": positives, "negatives": negatives}
    text = Page(render(evaluation=evaluation)).text
    assert words in text
    assert ("test rows, so" in text) == bool(words)


def test_a_loss_within_chance_is_called_so_beside_its_badge() -> None:
    evaluation = sample_evaluation()
    rating = evaluation["tasks"]["rating"]
    rating["metrics"]["rmse"].update(before=0.7076, after=0.7132)
    rating["improvement"].update(difference=0.0056, low=-0.01, high=0.02, verdict="same")
    page = render(evaluation=evaluation)
    # In the overview, in the task's table and in the row of its slices that stands for all.
    assert page.count('0.8 % worse</span> <small class="note">(within chance)</small>') == 3
    assert "up to 0.713: 0.8 % worse (within chance)." in Page(page).text
    rating["improvement"].update(low=0.004, verdict="worse")
    text = render(evaluation=evaluation)
    assert '<span class="told worse">0.8 % worse</span>' in text
    assert "within chance" not in text


def test_what_this_test_part_cannot_measure_is_not_called_another_declaration() -> None:
    evaluation = sample_evaluation()
    purchase = evaluation["tasks"]["purchase"]
    purchase["metrics"]["auc"].update(before=None, after=None, champion=None)
    purchase.update(improvement=None, comparison=None)
    text = Page(render(evaluation=evaluation)).text
    assert "Not measurable on this test part, so without a comparison: purchase." in text
    assert "Declared differently" not in text
    assert "AUC could not be computed on this test part." in text


def test_the_whole_of_lrap_s_slices_is_what_lrap_is_measured_on() -> None:
    evaluation = sample_evaluation()
    tags = evaluation["tasks"]["tags"]
    tags.update(primary="lrap", metrics={"lrap": tags["metrics"]["micro_f1"]}, num_examples=1041)
    section = render(evaluation=evaluation).partition('<span class="name">tags</span>')[2]
    rows = section.partition('<table class="slices">')[2].partition("</table>")[0]
    assert re.search(
        r'<th scope="row">all</th><td class="n"><data value="1000">', re.sub("<small>.*?</small>", "", rows)
    )


def test_what_was_not_compared_with_the_champion_is_said_with_the_reason() -> None:
    def champion_section(evaluation: dict[str, Any]) -> str:
        return (
            Page(render(evaluation=evaluation)).text.rpartition("Against the champion")[2].partition("Lineage")[0]
        )

    evaluation = sample_evaluation()
    for words in ("which this model lacks", "New in this model", "Declared differently", "Without a test example"):
        assert words not in champion_section(evaluation)
        assert "another split" not in champion_section(evaluation)
    evaluation["champion"]["other_split"] = ["split.by is random there and time here"]
    evaluation["champion"]["tasks"] = [*list(TASKS)[2:], "region", "price"]
    for name in ("rating", "purchase", "category"):
        evaluation["tasks"][name]["comparison"] = None
    text = champion_section(evaluation)
    assert "The champion also has region and price, which this model lacks." in text
    assert "New in this model, so without a comparison: rating and purchase." in text
    assert "trained on another split (split.by is random there and time here), so it may have learned from" in text
    assert "Declared differently than in the champion, so without a comparison: category." in text
    evaluation["tasks"]["category"]["metrics"] = {}
    assert "Without a test example, so without a comparison: category." in champion_section(evaluation)
    assert "drawn from" in text


def test_glossary_explains_the_metrics_that_occur() -> None:
    page = Page(render())
    glossary = page.text.partition("Glossary")[2].partition("Glossary")[2]
    for label in ("RMSE", "AUC", "micro F1", "NDCG@10", "MRR", "coverage@10", "ECE", "cosine", "log loss"):
        assert label in glossary, label
    assert "MSE: the square" not in glossary


# ------------------------------------------------------------------------------------------------- form


def test_it_is_one_file_that_asks_nothing_of_the_network() -> None:
    text = render()
    page = Page(text)
    assert {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "base", "form", "embed"} == set()
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#").startswith("#"), tag
        assert "url(" not in attributes.get("style", "")
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in text.replace("http-equiv", "")
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_policy_allows_the_page_s_own_script() -> None:
    import base64
    import hashlib

    text = render()
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html.unescape(text)


def test_it_is_accessible() -> None:
    page = Page(render())
    assert page.all("html")[0]["lang"] == "en"
    for tag, attributes in page.elements:
        if tag == "svg" or attributes.get("role") == "img":
            assert len(attributes.get("aria-label", "")) > 10, (tag, attributes)
        if tag == "th":
            assert attributes.get("scope") in ("row", "col"), attributes
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for link in page.all("a"):
        assert link["href"][1:] in identifiers
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_same_input_gives_the_same_bytes_and_a_small_file(tmp_path: Path) -> None:
    arguments = {"losses": sample_losses(), "gate": sample_gate(), "validation": None, "lineage": LINEAGE}
    for name in ("a.html", "deep/folder/b.html"):
        write_report(tmp_path / name, evaluation=sample_evaluation(), **arguments)  # type: ignore[arg-type]
    first, second = (tmp_path / "a.html").read_bytes(), (tmp_path / "deep/folder/b.html").read_bytes()
    assert first == second
    assert len(first) < 300_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "deep"]


def test_input_is_left_as_it_was() -> None:
    evaluation, gate = sample_evaluation(), sample_gate()
    before = json.dumps([evaluation, gate])
    render(evaluation=evaluation, gate=gate)
    assert json.dumps([evaluation, gate]) == before


# ------------------------------------------------------------------------------------------------- harm

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def poison(value: Any) -> Any:
    """Every text and every key of tasks, labels and reasons becomes an attack."""
    if isinstance(value, str):
        return value + EVIL
    if isinstance(value, list):
        return [poison(v) for v in value]
    if isinstance(value, dict):
        return {key: poison(v) for key, v in value.items()}
    return value


def test_text_from_users_is_harmless() -> None:
    evaluation = poison(sample_evaluation())
    evaluation["tasks"] = {f"{name}{EVIL}": task for name, task in evaluation["tasks"].items()}
    for task in evaluation["tasks"].values():
        task["metrics"] = {f"{name}{EVIL}": row for name, row in task["metrics"].items()}
    validation = poison(sample_validation())
    validation["tables"]["items"]["reasons"] = {EVIL: 3}
    losses = sample_losses()
    for line in losses:
        line["losses"] = {EVIL: 1.0, f"rating{EVIL}": 2.0}
        line["tasks"] = [f"{name}{EVIL}" for name in TASKS]
    gate = poison(sample_gate(passed=False))
    text = render(
        evaluation=evaluation,
        losses=losses,
        gate=gate,
        validation=validation,
        lineage={**poison(LINEAGE), EVIL: EVIL},
    )
    page = Page(text)
    clean = Page(render())
    assert len(page.all("script")) == len(clean.all("script")) == 1
    assert page.all("img") == []
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert "<script>alert(1)</script>" in page.text, "the attack is shown as text"


# ------------------------------------------------------------------------------------------------- what is missing


def test_how_the_tasks_get_along_stands_behind_the_curves() -> None:
    page = Page(render())
    section = page.text.partition("Numbers of every epoch")[2].partition("How the tasks get along")[2]
    section = section.partition("Fine-tuning brought")[0]
    for words in (
        "4 pairs help each other: category and tags (mean cosine 0.56",
        "3 pairs are in conflict: rating and next_item (mean cosine −0.20",
        "10 other pairs read separate parts",
        "From the first to the last third of training purchase and next_item went from 0.00 to −0.30",
        "Measured at 24 training steps, on training batches",
        "Strongest harm: a step on next_item undoes 56 % of what rating gains by its own.",
    ):
        assert words in section.replace("\u00a0", " "), words
    maps = [place for place, (_, a) in enumerate(page.elements) if a.get("class") == "confusion relations"]
    assert len(maps) == 2
    for place in maps:
        cells = [a for tag, a in page.elements[place : place + 90] if tag == "td" and "class" in a]
        cells = cells[: len(TASKS) ** 2]
        kinds = [a["class"].split()[0] for a in cells]
        assert kinds[:: len(TASKS) + 1] == ["self"] * len(TASKS), "the diagonal is grey"
        assert {"plus", "minus", "lost"} < set(kinds)
        assert all(("--mix" in a.get("style", "")) == (a["class"].split()[0] in ("plus", "minus")) for a in cells)
    assert any(a["href"] == "#together" for a in page.all("a"))


def test_nothing_of_how_tasks_get_along_without_two_tasks_or_enough_steps() -> None:
    curves = [line for line in sample_losses() if line["kind"] != "tasks"]
    assert "not compared in this run" in Page(render(losses=curves)).text
    evaluation = sample_evaluation()
    evaluation["tasks"] = {"rating": evaluation["tasks"]["rating"]}
    alone = Page(render(evaluation=evaluation, losses=[]))
    assert "How the tasks get along" not in alone.text
    assert not any(a["href"] == "#together" for a in alone.all("a"))
    few = Page(render(losses=[*curves, *sample_losses()[:1]]))
    assert "which is too little to say how the tasks get along" in few.text
    assert "confusion relations" not in [a.get("class") for a in few.all("table")]


def test_the_facts_say_what_the_model_is_made_of_and_what_a_step_costs() -> None:
    text = Page(render()).text.partition("The main metric of each task")[0]
    assert "minilm shared bottom · static balancing" in text
    assert "best epoch 4 · 0.138 s a step" in text
    assert "Parameters by part encoder 22,565,376 ( 3,075,072 trained) items 214,016 users 171,264" in text
    assert "sharing 57,600 heads 9,806 neighbours 241,401 (a table, not learned)" in text
    evaluation = sample_evaluation()
    for key in ("balancing", "seconds_per_step", "parts", "trained_encoder", "neighbours_table"):
        del evaluation["model"][key]
    older = Page(render(evaluation=evaluation)).text
    assert "minilm shared bottom Parameters" in older
    assert "Parameters by part" not in older


def test_the_barest_input_renders() -> None:
    page = Page(report_html(evaluation={}, losses=[], gate={}, validation=None, lineage={}))
    for words in (
        "No task was evaluated",
        "no rules",
        "No training log",
        "no champion yet",
        "No validation summary",
    ):
        assert words in page.text, words
    assert "should not be promoted" in page.text


def test_no_champion() -> None:
    evaluation = sample_evaluation()
    evaluation["champion"] = None
    for task in evaluation["tasks"].values():
        task["comparison"] = None
        for row in task["metrics"].values():
            row["champion"] = None
    page = Page(render(evaluation=evaluation, gate={**sample_gate(), "champion": None}))
    assert "If this model is approved, it becomes the first one." in page.text
    assert not any("champion" in a.get("class", "") for _, a in page.elements)
    assert "interval" not in page.text.partition("Against the champion")[2].partition("Lineage")[0]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(value: float | None) -> None:
    evaluation = sample_evaluation()
    for task in evaluation["tasks"].values():
        for row in task["metrics"].values():
            row["before"] = row["after"] = row["champion"] = value
        for row in task["slices"]:
            row["before"] = row["after"] = value
        task["comparison"].update(difference=value, low=value, high=value)
    evaluation["tasks"]["purchase"]["reliability"] = {
        "ece": value,
        "bins": [{"predicted": value, "observed": value, "count": 0}],
    }
    losses = sample_losses()
    for line in losses:
        line.update(loss=value, score=value)
        if line["kind"] == "tasks":
            line.update(norms=[value] * 7, cosines=[[value] * 7] * 7, effects=[[value] * 7] * 7)
    gate = sample_gate()
    gate["rules"][0].update(value=value, threshold=value)
    text = render(evaluation=evaluation, losses=losses, gate=gate)
    page = Page(text)
    assert "could not be computed" in page.text
    assert "n/a" in page.text
    for word in ("nan", "inf", "None"):
        assert not re.search(rf"\b{word}\b", page.text), word
        assert not any(re.search(rf"\b{word}\b", a.get("style", "")) for _, a in page.elements), word
    assert not re.search(r'points="[^"]*(nan|inf)', text)


def test_one_class_has_nothing_to_confuse() -> None:
    evaluation = sample_evaluation()
    evaluation["tasks"]["category"]["confusion"] = {"labels": ["Audio"], "counts": [[120]]}
    page = Page(render(evaluation=evaluation))
    assert "Only one class occurs here" in page.text
    assert 120.0 in page.numbers


def test_forty_classes_are_folded_and_keep_their_total() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (40, 40)) + np.diag(rng.integers(1, 90, 40))
    evaluation = sample_evaluation()
    evaluation["tasks"]["category"]["confusion"] = {
        "labels": [f"class {i}" for i in range(40)],
        "counts": counts.tolist(),
    }
    text = render(evaluation=evaluation)
    assert "The 19 most frequent of 40 classes" in text
    assert "21 others" in text
    matrix = text.partition('<table class="confusion">')[2].partition("</table>")[0]
    cells = re.findall(r"<td class=[^>]*>([\d·]+)</td>", matrix)
    assert len(cells) == 20 * 20
    assert sum(int(cell) for cell in cells if cell != "·") == counts.sum()


def test_a_perfect_confusion_matrix_says_so() -> None:
    evaluation = sample_evaluation()
    evaluation["tasks"]["category"]["confusion"] = {"labels": ["a", "b"], "counts": [[3, 0], [0, 4]]}
    assert "There are no mistakes." in Page(render(evaluation=evaluation)).text


def test_very_long_names_stay_inside() -> None:
    long = "averyveryverylongname" * 12
    evaluation = sample_evaluation()
    evaluation["tasks"] = {long: evaluation["tasks"]["rating"]}
    evaluation["tasks"][long]["confusion"] = {"labels": [long, long + "2"], "counts": [[3, 1], [0, 4]]}
    evaluation["scenario"] = long
    text = render(evaluation=evaluation, lineage={"data_version": long * 10})
    assert Page(text).text.count(long) > 5
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert style.count("overflow-wrap: anywhere") > 5


def test_a_hundred_thousand_steps_stay_small() -> None:
    losses = [
        {"kind": "train", "step": step, "loss": 1 / step, "losses": {f"task{i}": 1 / step for i in range(8)}}
        for step in range(1, 100_001, 10)
    ]
    text = render(losses=losses)
    assert len(text) < 400_000


def test_losses_with_gaps_and_single_points() -> None:
    losses: list[dict[str, Any]] = [
        {"kind": "train", "step": 1, "loss": float("nan"), "losses": {"rating": float("nan")}},
        {"kind": "train", "step": 2, "loss": 3.0, "losses": {"rating": 1.0}},
        {"kind": "valid", "step": 2, "epoch": 1, "score": None, "metrics": {}},
    ]
    page = Page(render(losses=losses))
    assert len([a for a in page.all("circle") if "raw" in a["class"]]) == 2, "a lonely point is still seen"
    labels = [a["aria-label"] for a in page.all("svg")]
    assert "Learning curve of rating: training loss from 1.000 to 1.000." in labels


def test_skill_is_drawn_where_training_measures_it() -> None:
    losses: list[dict[str, Any]] = [
        {"kind": "valid", "step": step, "epoch": step, "score": 0.1, "metrics": {"rating": 0.1 * step, "rate": 0.9}}
        for step in (1, 2)
    ]
    page = Page(render(losses=losses))
    labels = [a["aria-label"] for a in page.all("svg")]
    assert "Learning curve of rating: validation skill from 0.100 to 0.200." in labels
    assert "Skill is 0 for a model that knows nothing" in page.text
    assert "Skill is 0" not in Page(render()).text


def test_metrics_that_nobody_knows_render() -> None:
    evaluation = sample_evaluation()
    row = {"higher_is_better": True, "before": -0.5, "after": 0.25, "champion": None, "protocol": ""}
    evaluation["tasks"] = {"odd": {"type": "strange", "primary": "zorkiness", "metrics": {"zorkiness": row}}}
    page = Page(render(evaluation=evaluation))
    assert "zorkiness" in page.text
    assert "brought zorkiness from −0.500 up to 0.250: 150 % better" in page.text


def test_a_task_without_test_rows_says_so() -> None:
    evaluation = sample_evaluation()
    nothing = {"metrics": {}, "slices": [], "comparison": None, "num_examples": 0}
    evaluation["tasks"]["rating"].update(nothing, histogram=None)
    page = Page(render(evaluation=evaluation))
    assert "RMSE could not be computed on this test part." in page.text
    assert "Fine-tuning improved 6 of 6 tasks." in page.text


def test_every_metric_that_mtrec_computes_has_a_meaning() -> None:
    from mtrec.evaluation import metrics
    from mtrec.evaluation.wording import metric_meaning

    rng = np.random.default_rng(0)
    yes, share = rng.integers(0, 2, 40), rng.random(40)
    many, table = rng.integers(0, 2, (40, 3)), rng.dirichlet(np.ones(3), 40)
    names = {
        *metrics.regression(share, share),
        *metrics.binary(yes, share),
        *metrics.classification(rng.integers(0, 3, 40), table),
        *metrics.multilabel(many, table),
        *metrics.ranking_of_user(np.array([1.0, 4.0])),
        "coverage@10",
        "cosine",
    }
    assert {name for name in names if metric_meaning(name) is None} == set()


def test_primary_metric_that_is_missing_falls_back() -> None:
    evaluation = sample_evaluation()
    evaluation["tasks"]["rating"]["primary"] = "not there"
    assert "brought RMSE from 1.213 down to 0.931" in Page(render(evaluation=evaluation)).text


def test_order_of_keys_does_not_matter_for_lineage() -> None:
    backwards = dict(reversed(list(copy.deepcopy(LINEAGE).items())))
    assert render() == render(lineage=backwards)
