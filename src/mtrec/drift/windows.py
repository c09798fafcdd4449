"""Windows of new interactions, each with what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One number about one window."""

    name: str
    """Such as `items.category`, `text`, `new_users`, `prediction.rating` or `quality.rating`."""
    value: float
    """Bounded: a distance or a share in [0, 1], or a relative loss of quality in [−1, 1]."""
    by_chance: float
    """The value that a window without drift has on average."""
    probability: float | None
    """How often such a window is as far away; None where the threshold alone decides."""
    limit: float
    """Values above it matter: what chance gives, and the setting's threshold beyond it."""
    drifted: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Window:
    """Interactions after `start`, until `end` (included)."""

    start: datetime
    end: datetime
    num_rows: int
    statistics: list[Statistic]

    @property
    def drifted(self) -> list[str]:
        """Names of the statistics that drifted, the most distant first."""
        found = [s for s in self.statistics if s.drifted]
        return [s.name for s in sorted(found, key=lambda s: s.by_chance - s.value)]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        about = {"start": self.start.isoformat(), "end": self.end.isoformat(), "num_rows": self.num_rows}
        return {**about, "drifted": self.drifted, "statistics": [vars(s) for s in self.statistics]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Window:
        """What `as_dict` gave."""
        return cls(
            start=datetime.fromisoformat(given["start"]),
            end=datetime.fromisoformat(given["end"]),
            num_rows=given["num_rows"],
            statistics=[Statistic(**statistic) for statistic in given["statistics"]],
        )
