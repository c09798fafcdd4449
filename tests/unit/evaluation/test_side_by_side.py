"""Which of two models is better, metric by metric."""

from typing import Any

import pytest

from mtrec.evaluation.side_by_side import differing_basis, side_by_side


def evaluation(**tasks: dict[str, float | None]) -> dict[str, Any]:
    lower = {"rmse", "mae"}
    return {
        "dataset": {"num_interactions": 300, "num_test": 30, "last": "2026-02-01"},
        "protocol": {"split": "time", "ranking": "full"},
        "tasks": {
            task: {
                "primary": next(iter(metrics), None),
                "metrics": {m: {"after": v, "higher_is_better": m not in lower} for m, v in metrics.items()},
            }
            for task, metrics in tasks.items()
        },
    }


@pytest.mark.parametrize(
    ("metric", "one", "other", "better"),
    [
        ("rmse", 0.9, 1.0, 0),
        ("rmse", 1.0, 0.9, 1),
        ("auc", 0.9, 1.0, 1),
        ("auc", 1.0, 0.9, 0),
        ("auc", 0.5, 0.5, None),
        ("auc", None, 0.5, None),
    ],
)
def test_lower_and_higher(metric: str, one: float | None, other: float, better: int | None) -> None:
    (row,) = side_by_side(evaluation(t={metric: one}), evaluation(t={metric: other}))
    assert (row.better, row.values, row.higher_is_better) == (better, (one, other), metric == "auc")


def test_every_task_and_metric_of_both_the_primary_one_first() -> None:
    one = evaluation(rating={"rmse": 1.0, "mae": 0.5}, empty={})
    other = evaluation(next={"ndcg": 0.1}, rating={"rmse": 0.9, "r2": 0.2})
    rows = side_by_side(one, other)
    assert [(row.task, row.metric, row.primary, row.values) for row in rows] == [
        ("rating", "rmse", True, (1.0, 0.9)),
        ("rating", "mae", False, (0.5, None)),
        ("rating", "r2", False, (None, 0.2)),
        ("next", "ndcg", True, (None, 0.1)),
    ]


def test_other_data_is_told() -> None:
    one, other = evaluation(), evaluation()
    assert differing_basis(one, other) == []
    other["dataset"]["num_interactions"] = 400
    other["protocol"]["split"] = "random"
    assert differing_basis(one, other) == ["interactions 300 and 400", "split time and random"]
