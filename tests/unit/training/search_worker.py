"""A process that works on a study with a made-up objective: python search_worker.py '{"url": …}'.

The skills of a point are a formula, so that a trial takes as long as it is told to. What it trained it writes, a
line of JSON per trial, to the file `log`.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.training.search import search
from mtrec.training.storage import Storage
from mtrec.training.study import Attempt, Skills, Study
from tests.unit.tiny_shop import TASKS, shop_scenario

EPOCHS = 3
FREE = {
    "training.lr": {"low": 0.0001, "high": 1.0, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.5},
    "tasks.rating.weight": {"low": 0.1, "high": 3.0, "log": True},
}
POINTS = {
    "training.lr": {"choices": [0.001, 0.002, 0.01]},
    "model.dropout": {"low": 0.0, "high": 0.3, "step": 0.1},
}


def searching(space: dict[str, Any], **section: Any) -> Scenario:
    """A scenario of two tasks that searches the space."""
    tasks = {name: TASKS[name] for name in ("rating", "category")}
    return shop_scenario("unused", tasks=tasks, search={"space": space, "pruner": "none", **section})


def skills_at(point: dict[str, Any], epoch: int = EPOCHS) -> Skills:
    """The skills after an epoch: best at lr 0.03 and without dropout."""
    far = abs(math.log10(point["training.lr"] / 0.03))
    full = {"rating": 0.4 - 0.1 * far, "category": 0.8 - 0.1 * far - 0.5 * point["model.dropout"]}
    return {task: skill * epoch / EPOCHS for task, skill in full.items()}


def study_at(url: str, name: str, space: dict[str, Any], **section: Any) -> Study:
    """Open a study."""
    return Study(Storage(url), name, searching(space, **section), "v1")


def train(attempt: Attempt, seconds: float = 0.0) -> Skills:
    """Train a trial."""
    for epoch in range(1, EPOCHS + 1):
        time.sleep(seconds)
        attempt.report(skills_at(attempt.point, epoch), last=epoch == EPOCHS)
    return skills_at(attempt.point)


def main() -> None:
    """Work until the study has enough trials, or die on the way."""
    wish = json.loads(sys.argv[1])
    study = study_at(wish["url"], wish["study"], wish["space"], **wish.get("search", {}))
    Path(wish["log"]).with_suffix(".ready").touch()
    while "go" in wish and not Path(wish["go"]).exists():
        time.sleep(0.005)

    def objective(attempt: Attempt) -> Skills:
        if attempt.number == wish.get("die_at"):
            attempt.report(skills_at(attempt.point, 1), last=False)
            os.kill(os.getpid(), signal.SIGKILL)
        skills = train(attempt, wish.get("seconds", 0.0))
        with Path(wish["log"]).open("a") as log:
            log.write(json.dumps(attempt.point) + "\n")
        return skills

    search(study, objective, trials=wish.get("trials"))


if __name__ == "__main__":
    main()
