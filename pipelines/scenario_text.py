"""A scenario as the pipeline's parameter."""

import json

from mtrec.config import Scenario
from mtrec.errors import ConfigError

MOST = 100_000
"""Characters: a workflow keeps its parameters in one object of limited size."""


def scenario_text(scenario: Scenario) -> str:
    """The whole scenario as JSON text.

    Raises:
        ConfigError: it is larger than a workflow takes.
    """
    text = json.dumps(scenario.as_dict(), separators=(",", ":"))
    if len(text) > MOST:
        raise ConfigError(f"scenario {scenario.name}: {len(text)} characters as JSON, at most {MOST}")
    return text
