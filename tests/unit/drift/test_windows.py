"""A window names what drifted, the farthest first, and becomes plain JSON types."""

import json
from datetime import UTC, datetime

from mtrec.drift.windows import Statistic, Window


def statistic(name: str, value: float, drifted: bool, by_chance: float = 0.1) -> Statistic:
    return Statistic(
        name=name,
        value=value,
        by_chance=by_chance,
        probability=None,
        limit=0.05,
        drifted=drifted,
        why="because",
    )


def test_drifted_names_the_farthest_beyond_chance_first() -> None:
    window = Window(
        start=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2026, 1, 8, tzinfo=UTC),
        num_rows=7,
        statistics=[
            statistic("near", 0.2, True),
            statistic("by chance", 0.9, False),
            statistic("noisy", 0.5, True, by_chance=0.45),
            statistic("far", 0.4, True),
        ],
    )
    assert window.drifted == ["far", "near", "noisy"]
    told = json.loads(json.dumps(window.as_dict()))
    assert told["drifted"] == ["far", "near", "noisy"]
    assert told["start"] == "2026-01-01T00:00:00+00:00"
    assert told["num_rows"] == 7
    assert told["statistics"][0] == {
        "name": "near", "value": 0.2, "by_chance": 0.1, "probability": None, "limit": 0.05, "drifted": True,
        "why": "because",
    }  # fmt: skip
