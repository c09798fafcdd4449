"""mtrec drift: check beside a real champion, replay over simulated time, and errors in one line."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml

from mtrec.data.dataset import prepare
from mtrec.models.store import new_model, save_model
from pipelines import cli
from tests.unit.champions import register_champion
from tests.unit.tiny_shop import DIALS, save_bert, shop_scenario, shop_tables, words

LONG = ["--set", "retraining.window_days=30", "--set", "retraining.min_rows=100"]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(["drift", *arguments])
    output = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with an untrained champion of the tiny shop, its scenario and its tables."""
    folder = tmp_path_factory.mktemp("shop")
    tables = shop_tables(DIALS)[0]
    texts = [*tables.items["title"].drop_nulls(), *tables.items["description"].drop_nulls()]
    scenario = shop_scenario(save_bert(folder / "bert", words(texts)))
    dataset, encoding = prepare(tables, scenario)
    bundle, _, catalogue = new_model(dataset, encoding, scenario)
    save_model(folder / "model", bundle, dataset, catalogue, {"epochs": 0})
    tables.write(folder / "tables")
    uri = f"sqlite:///{folder}/.mtrec/mlflow.db"
    register_champion(scenario, folder / "model", folder / "tables", uri=uri, dvc=folder / ".mtrec" / "dvc")
    (folder / "shop.yaml").write_text(yaml.safe_dump(scenario.as_dict()))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_check_prints_every_rule_and_what_to_do(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, err = call(capsys, "check", "--scenario", "shop.yaml", "--data", "tables", *LONG)
    assert (code, err) == (0, "")
    for rule in (
        "the new data passes its checks",
        "enough new interactions",
        "rest after the last attempt",
        "drift in 2",
    ):
        assert rule in out
    assert "skip: 0 new interactions, at least 100 are needed" in out
    assert ".mtrec/drift/tiny-shop/drift.html" in out
    told = json.loads((shop / ".mtrec/drift/tiny-shop/decision.json").read_text())
    assert told["data"]["version"] == told["champion"]["data_version"]  # nothing new: the same data


def test_check_of_a_drop_that_is_not_there_or_not_sound_ends_with_an_exit_code(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(shop, tmp_path / "shop", ignore=shutil.ignore_patterns("drift"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, err = call(capsys, "check", "--scenario", "shop.yaml", "--data", "nowhere", *LONG)
    assert (code, out, err) == (2, "", "mtrec: --data nowhere: no such file or folder\n")
    assert not (folder / ".mtrec/drift/tiny-shop/decision.json").exists(), "no look was made"

    rows = pl.read_parquet(folder / "tables/interactions.parquet").drop("event")
    rows.write_parquet(folder / "tables/interactions.parquet")
    code, out, err = call(capsys, "check", "--scenario", "shop.yaml", "--data", "tables", *LONG)
    assert (code, err) == (2, "")
    assert "skip: 1 critical failure of the data: " in out
    assert "column 'event' is missing" in out


def test_square_brackets_are_no_markup(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (shop / "drops[" / "b]").mkdir(parents=True)
    code, out, err = call(capsys, "check", "--scenario", "shop.yaml", "--data", "drops[/b]", *LONG)
    assert (code, err) == (2, "")
    assert out.count("drops[/b]: ") == 2  # in the table and in the verdict


def test_check_needs_a_champion(here: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(shop / "shop.yaml", here)
    code, _, err = call(capsys, "check", "--scenario", "shop.yaml", "--data", str(shop / "tables"))
    assert code == 2
    assert err == "mtrec: scenario tiny-shop has no champion yet to compare with; train one with mtrec run\n"
    assert not (here / ".mtrec").exists()


def test_replay_shows_decisions_as_table_page_and_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dials = "{num_users: 150, num_items: 60, num_interactions: 4000, drift: 5}"
    code, out, err = call(
        capsys, "replay", "--from", "2025-03-01", "--to", "2025-06-30", "--set", f"source.options={dials}",
        "--set", "retraining.window_days=20", "--set", "retraining.min_rows=100",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "2025-03-21" in out
    assert "2025-06-29" in out
    assert "1 of 6 decisions: retrain" in out
    assert "drift in 2 of the last" in out
    assert (here / ".mtrec/drift/ecommerce/replay.html").read_text().startswith("<!DOCTYPE html>")
    assert (here / ".mtrec/drift/ecommerce/replay.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--from", "soon"], "--from soon: not an ISO date or time, e.g. 2026-01-31"),
        (["--from", "2020-01-01"], "--from 2020-01-01: the data runs from 2025-01-0"),
        (["--from", "2025-05-01", "--to", "2025-04-01"], "give a time after its beginning and before --to"),
        (["--from", "2025-03-01", "--data", "nowhere"], "nowhere: no such folder"),
        (
            ["--from", "2025-03-01", "--to", "2025-03-05"],
            "no complete window of 7 days between 2025-03-01 and 2025-03-05: give an earlier --from or a later",
        ),
        (["--from", "2025-03-01", "--out", "x.svg"], "--out x.svg: the page is HTML; give e.g. --out x.html"),
        (["--from", "2025-03-01", "--out", "page"], "--out page: the page is HTML; give e.g. --out page.html"),
    ],
)
def test_replay_says_in_one_line_what_is_wrong(
    here: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    dials = "source.options={num_users: 30, num_items: 24, num_interactions: 400}"
    code, _, err = call(capsys, "replay", *given, "--set", dials)
    assert code == 2
    assert err.startswith("mtrec: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(here.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which takes no files")
def test_replay_says_in_one_line_where_it_cannot_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dials = "source.options={num_users: 30, num_items: 24, num_interactions: 400}"
    code, _, err = call(capsys, "replay", "--from", "2025-05-01", "--out", "/proc/x.html", "--set", dials)
    assert code == 2
    assert err == "mtrec: cannot write /proc/x.html: no file can be made there; give another path\n"
