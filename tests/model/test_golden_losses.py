"""Loss curves of a small run with a fixed seed. A change that moves them says why and renews them: make golden."""

import json
import sys
from pathlib import Path

import pytest

from mtrec.data.cleaning import clean
from mtrec.data.dataset import prepare
from mtrec.models.store import new_model
from mtrec.stages.fine_tune import validation
from mtrec.training.loop import Trainer
from tests.unit.tiny_shop import DIALS, shop_scenario, shop_tables

GOLDEN = Path("tests/golden/losses.json")
RUNS = {
    "shared bottom, static weights": {},
    "ple, pcgrad": {"sharing": "ple", "balancing": "pcgrad"},
}
TOLERANCE = 0.01
"""Relative: processors multiply in different orders, and steps let the difference grow."""


def curves(sharing: str = "shared_bottom", balancing: str = "static") -> dict[str, list[float]]:
    """Training loss and skill of every task, in the order of the run."""
    scenario = shop_scenario("minilm")
    model = scenario.model.model_copy(update={"sharing": sharing})
    training = scenario.training.model_copy(update={"balancing": balancing})
    scenario = scenario.model_copy(update={"model": model, "training": training})
    dataset, encoding = prepare(clean(shop_tables(DIALS)[0])[0], scenario)
    bundle, view, catalogue = new_model(dataset, encoding, scenario)
    found: dict[str, list[float]] = {}
    for line in Trainer(bundle, view, catalogue, validate=validation(scenario, encoding)).fit().lines:
        kind = {"train": "losses", "valid": "metrics"}.get(line["kind"])
        for name, value in line.get(kind, {}).items():
            found.setdefault(f"{line['kind']}/{name}", []).append(round(value, 5))
    return found


@pytest.mark.parametrize("run", RUNS)
def test_the_curves_are_the_golden_ones(run: str, repository: Path) -> None:
    golden = json.loads((repository / GOLDEN).read_text(encoding="utf-8"))[run]
    found = curves(**RUNS[run])
    assert found.keys() == golden.keys()
    for name, values in golden.items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE, abs=TOLERANCE), f"{run}: {name}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(
        json.dumps({name: curves(**given) for name, given in RUNS.items()}, indent=1) + "\n"
    )
