"""The public data sets pass validation, and what they lose is explained."""

from pathlib import Path
from typing import Any

import pytest

from mtrec.config import load_scenario
from mtrec.data.sources import read_source
from mtrec.stages import validate

pytestmark = pytest.mark.realdata

POSTAGE = "expect_column_values_to_match_regex(item_id)"
SERVICES = "expect_column_values_to_not_match_regex(title)"
LOST = "dangling item_id (items row in quarantine)"


def run(folder: Path, scenario: str, data: Path) -> dict[str, Any]:
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    loaded = load_scenario(scenario)
    read_source(loaded, data).write(folder / "tables")
    return validate.run(
        validate.Inputs(tables=folder / "tables"),
        validate.Outputs(
            validated=folder / "validated",
            quarantine=folder / "quarantine",
            data_docs=folder / "docs",
            summary=folder / "summary.json",
        ),
        loaded,
    )


@pytest.mark.parametrize(
    ("scenario", "name", "reasons"),
    [
        ("video", "movielens-latest-small", {"users": {}, "items": {}, "interactions": {}}),
        (
            "video",
            "movietweetings-100k",
            # Twelve tweets rate a film 0 of 10, which the scale does not know.
            {"users": {}, "items": {}, "interactions": {"rating is outside 0.5 to 5": 12}},
        ),
        (
            "online-retail",
            "online-retail",
            # Postage, fees, samples and discounts are no products; their invoice lines go with them.
            {"users": {}, "items": {POSTAGE: 12, SERVICES: 2}, "interactions": {LOST: 1629}},
        ),
    ],
)
def test_public_data(
    scenario: str, name: str, reasons: dict[str, dict[str, int]], tmp_path: Path, real_data: Path
) -> None:
    summary = run(tmp_path, scenario, real_data / name)
    assert summary["success"]
    assert {table: counts["reasons"] for table, counts in summary["tables"].items()} == reasons
    assert all(counts["repaired"] == 0 for counts in summary["tables"].values())
    assert all(expectation["success"] for expectation in summary["expectations"])
