"""What the report says of a student."""

from typing import Any

from mtrec.evaluation.report import report_html
from mtrec.evaluation.student_facts import student_facts
from tests.unit.evaluation.report_sample import sample_evaluation, sample_losses

STUDENT: dict[str, Any] = {
    "teacher": "ecommerce version 3",
    "layers": {"teacher": 6, "student": 2},
    "parameters": {"teacher": 22565376, "student": 15467904},
    "texts_per_second": {"teacher": 120.0, "student": 300.0},
    "skills": {"rating": {"teacher": 0.5, "student": 0.495}, "profile": {"teacher": 0.0, "student": 0.1}},
}


def test_layers_speed_size_and_what_is_kept() -> None:
    assert student_facts(STUDENT) == [
        ("Student of", "ecommerce version 3", "2 of 6 encoder layers", False),
        ("Encoding speed", "2.500 ×", "300.0 texts a second, teacher 120.0", False),
        ("Encoder's parameters", "15,467,904", "teacher 22,565,376", False),
        ("Kept of the teacher's skill on the validation part", "rating 99.0 %", "", True),
    ]


def test_a_model_that_is_no_student() -> None:
    assert student_facts(None) == []
    assert [fact[0] for fact in student_facts({"teacher": "models/a"})] == ["Student of"]


def test_they_are_on_the_page_and_escaped() -> None:
    evaluation = sample_evaluation()
    evaluation["model"]["distillation"] = STUDENT | {"teacher": "<models>"}
    page = report_html(evaluation=evaluation, losses=sample_losses(), gate={}, validation=None, lineage={})
    assert "&lt;models&gt;" in page
    assert "2 of 6 encoder layers" in page
    assert "rating 99.0 %" in page
