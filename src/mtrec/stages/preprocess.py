"""Preprocess: validated tables → a dataset split without leakage, with encodings fitted on training rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrec.config import Scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.dataset import card_of, prepare, write_dataset


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the stage reads."""

    tables: Path
    """Validated contract tables."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What the stage writes."""

    dataset: Path
    """Folder that `mtrec.data.dataset.Dataset.read` opens."""


def run(inputs: Inputs, outputs: Outputs, scenario: Scenario) -> dict[str, Any]:
    """Clean, split and encode.

    Returns:
        The dataset card: counts of users, items, interactions and of each part, first and last day, and what
        cleaning changed.

    Raises:
        DataError: a part of the split or a label would be empty.
    """
    tables, changed = clean(Tables.read(inputs.tables))
    dataset, encoding = prepare(tables, scenario)
    card = card_of(dataset.users, dataset.items, dataset.interactions.lazy(), changed)
    write_dataset(outputs.dataset, dataset, encoding, card)
    return card
