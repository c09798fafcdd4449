from pathlib import Path

from mtrec.tracking.card import model_card

LINEAGE = {
    "data_version": "5d41402abc4b2a76b9719d911017c592.dir",
    "code_revision": "abc",
    "parameters_hash": "123",
    "image": "local",
    "pipeline_run": "monday",
}
EVALUATION = {
    "description": "A shop.",
    "dataset": {
        "num_users": 20,
        "num_items": 12,
        "num_interactions": 300,
        "first": "2026-01-01",
        "last": "2026-02-01",
    },
    "protocol": {"text": "Every item is ranked."},
    "tasks": {
        "rating": {
            "primary": "rmse",
            "num_examples": 12,
            "metrics": {
                "mae": {"higher_is_better": False, "before": 1.0, "after": 0.75, "champion": None},
                "rmse": {"higher_is_better": False, "before": 1.21, "after": 0.931, "champion": 0.95},
            },
            "slices": [{"slice": "cold items", "num_examples": 31, "metric": "rmse", "after": 1.1}],
        },
        "tags": {"primary": "lrap", "metrics": {}},
    },
}
RULES = [
    {"rule": "rating.rmse must be at most 0.9", "verdict": "fail", "why": "0.931 > 0.9"},
    {"rule": "rating.rmse must not be worse than before", "verdict": "pass", "why": "0.931 < 1.21"},
]


def card(**changes: object) -> str:
    given = {
        "name": "shop",
        "evaluation": EVALUATION,
        "gate": {"verdict": "fail", "rules": RULES},
        "lineage": LINEAGE,
        "artifacts": "evaluation/report.html",
    } | changes
    return model_card(**given)  # type: ignore[arg-type]


def test_a_reviewer_reads_numbers_reasons_and_origin() -> None:
    text = card()
    lines = text.splitlines()
    assert lines[0] == "# shop: refused by the gate"
    assert "| rating | rmse ↓ | 1.21 | 0.931 | 0.95 | 12 |" in lines
    assert "| tags | no test examples | – | – | – | 0 |" in lines
    assert "mae" not in text, "the report has the other metrics"
    assert "1 of 2 rules hold." in lines
    assert "- **refused**: rating.rmse must be at most 0.9: 0.931 > 0.9" in lines
    assert "- Data version (DVC): `5d41402abc4b2a76b9719d911017c592.dir`" in lines
    assert "- rating, cold items: rmse 1.1 on 31 examples" in lines
    assert "- How it was measured: Every item is ranked." in lines
    assert "`evaluation/report.html`" in text


def test_the_engine_is_one_line_each() -> None:
    model = {
        "encoder": "minilm",
        "parameters": 150,
        "trained_parameters": 90,
        "parts": {"encoder": 100, "items": 30, "heads": 20},
        "trained_encoder": 40,
        "neighbours_table": 7,
        "sharing": "mmoe",
        "balancing": "famo",
        "seconds": 88.2,
        "seconds_per_step": 0.1382,
    }
    lines = card(evaluation=EVALUATION | {"model": model}).splitlines()
    assert "- Model: encoder minilm, 150 parameters, 90 of them trained" in lines
    assert (
        "- Parameters by part: encoder 100 (40 trained), items 30, heads 20, neighbours' table 7 (not learned)"
        in lines
    )
    assert "- Tasks: sharing mmoe, balancing famo" in lines
    assert "- Training: 88.2 s, 0.1382 s a step" in lines


def test_a_student_is_told_beside_its_teacher() -> None:
    student = {
        "teacher": "shop version 3",
        "layers": {"teacher": 6, "student": 2},
        "parameters": {"teacher": 200, "student": 120},
        "texts_per_second": {"teacher": 70.5, "student": 190.0},
    }
    lines = card(evaluation=EVALUATION | {"model": {"encoder": "minilm", "distillation": student}}).splitlines()
    assert (
        "- Student of shop version 3: 2 of 6 encoder layers, 120 of 200 encoder parameters; "
        "encodes 190.0 texts a second, its teacher 70.5 beside it"
    ) in lines


def test_a_model_of_before_these_numbers_has_none_of_these_lines() -> None:
    text = card(
        evaluation=EVALUATION | {"model": {"encoder": "minilm", "seconds_per_step": None, "sharing": "ple"}}
    )
    assert "- Model: encoder minilm" in text
    for words in ("by part", "- Tasks:", "- Training:"):
        assert words not in text


def test_a_passed_gate_says_so() -> None:
    assert card(gate={"verdict": "pass", "rules": []}).startswith("# shop: passed the gate\n")


def test_a_long_card_fits_into_mlflow(tmp_path: Path) -> None:
    many = {f"task_{n}": EVALUATION["tasks"]["rating"] for n in range(100)}  # type: ignore[index]
    text = card(evaluation=EVALUATION | {"tasks": many})
    assert 4000 < len(text) <= 5000
    assert text.endswith("\n\n*(shortened)*\n")


def test_an_evaluation_with_little_in_it() -> None:
    text = card(evaluation={}, gate={"verdict": "pass"})
    assert "0 of 0 rules hold." in text
