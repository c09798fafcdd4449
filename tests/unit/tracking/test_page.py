"""A candidate's page in MLflow, in a real browser: what a reviewer needs is there to be read."""

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtrec.config import Scenario
from tests.mlflow_server import Server
from tests.unit.stocked import LINEAGE, stock

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def server(prepared_store: Path, tiny_model: Path, scenario: Scenario, tmp_path: Path) -> Iterator[Server]:
    stock(tmp_path, prepared_store, tiny_model, scenario, number=2).rename(tmp_path / "server.db")
    found = Server(tmp_path)
    found.start()
    yield found
    found.stop()


@pytest.mark.slow
def test_the_page_of_a_candidate_says_what_a_reviewer_needs(server: Server, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser: looked for {', '.join(BROWSERS)}")
    picture = tmp_path / "page.png"
    page = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'browser'}",
            "--virtual-time-budget=30000",
            "--window-size=1300,1600",
            f"--screenshot={picture}",
            "--dump-dom",
            f"{server.uri}/#/models/ecommerce-candidate/versions/2",
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    ).stdout
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    for fact in (
        "ecommerce: passed the gate",
        "task metric before fine-tuning after champion",
        "rating rmse ↓",
        "Gate 1 of 1 rules hold.",
        f"Data version (DVC): {LINEAGE['data_version']}",
        "Code revision: 1",
        f"Parameters hash: {LINEAGE['parameters_hash']}",
        "champion_compared ecommerce/1",
        "gate pass",
        "@ candidate",
        "evaluation/report.html",
    ):
        assert fact in text, f"'{fact}' is not on the page: {text[:4000]}"
    assert picture.stat().st_size > 50_000, "the page is drawn"
