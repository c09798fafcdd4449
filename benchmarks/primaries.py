"""The primary metric of every task on the test part, judged as the product judges."""

from __future__ import annotations

from typing import Any

from mtrec.config import Scenario
from mtrec.data.dataset import Dataset, Encoding
from mtrec.data.splits import TEST
from mtrec.evaluation.judge import Answers, Judged, judge
from mtrec.evaluation.predict import predict
from mtrec.evaluation.slices import make_slices
from mtrec.training.loop import Trainer


def primaries(
    trainer: Trainer, dataset: Dataset, encoding: Encoding, scenario: Scenario
) -> dict[str, dict[str, Any]]:
    """Task → its primary metric on the test part, and whether more is better."""
    rows, rankings = predict(
        trainer.model.eval(),
        trainer.view,
        trainer.data.catalogue,
        scenario.tasks,
        TEST,
        scenario.model.history,
    )
    return primaries_of(Answers(rows=rows, rankings=rankings), dataset, encoding, scenario)


def primaries_of(
    given: Answers, dataset: Dataset, encoding: Encoding, scenario: Scenario
) -> dict[str, dict[str, Any]]:
    """The same of answers to the test part."""
    judged = judge(
        Judged(before=given, after=given, champion=None),
        scenario,
        encoding.labels,
        make_slices(dataset),
        dataset.items.height,
    )
    return {
        name: {
            "metric": task["primary"],
            "value": task["metrics"][task["primary"]]["after"],
            "higher_is_better": task["metrics"][task["primary"]]["higher_is_better"],
        }
        for name, task in judged.items()
        if task["metrics"]
    }
