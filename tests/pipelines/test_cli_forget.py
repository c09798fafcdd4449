"""mtrec data forget, forgotten, purge: from a champion that knows a user to a registry and a remote without."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.data.cleaning import clean
from mtrec.data.contract import Tables
from mtrec.data.dataset import prepare
from mtrec.data.forgotten import users_in
from mtrec.data.versioning import known_versions, push
from mtrec.lease import holding
from mtrec.models.store import new_model, save_model
from mtrec.stages import ingest, monitor
from mtrec.tracking.connection import connected
from pipelines import cli
from pipelines.following import Following
from pipelines.preparing import prepare as prepare_data
from tests.unit.conftest import EVALUATION, GATE
from tests.unit.stocked import VALIDATION
from tests.unit.tiny_shop import DIALS, save_bert, shop_scenario, shop_tables, words

Main = Callable[..., tuple[int, str, str]]
NAME = "tiny-shop"


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        output = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), output.out, output.err

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def scenario(here: Path) -> Scenario:
    """Written to shop.yaml, its data to the folder raw."""
    tables = shop_tables(DIALS)[0]
    tables.write(here / "raw")
    texts = [*tables.items["title"].drop_nulls(), *tables.items["description"].drop_nulls()]
    scenario = shop_scenario(save_bert(here / "bert", words(texts)))
    (here / "shop.yaml").write_text(yaml.safe_dump(scenario.as_dict()))
    return scenario


def ingested(here: Path, scenario: Scenario, run: str) -> str:
    """The data version of the raw data."""
    outputs = ingest.Outputs(tables=here / run / "tables", summary=here / run / "ingest.json")
    said = ingest.run(ingest.Inputs(data=here / "raw", dvc_root=here / ".mtrec" / "dvc"), outputs, scenario)
    return str(said["data_version"])


def registered(here: Path, scenario: Scenario, run: str) -> str:
    """Ingest the raw data, make an untrained model of it and register it; the data version."""
    work = here / run
    version = ingested(here, scenario, run)
    dataset, encoding = prepare(clean(Tables.read(work / "tables"))[0], scenario)
    bundle, _, catalogue = new_model(dataset, encoding, scenario)
    save_model(work / "model", bundle, dataset, catalogue, {"epochs": 0})
    for name, content in {"evaluation": EVALUATION, "gate": GATE, "validation": VALIDATION}.items():
        (work / f"{name}.json").write_text(json.dumps(content))
    (work / "report.html").write_text("<p>A report.</p>")
    lineage = {"data_version": version, "parameters_hash": "x", "image": "x", "pipeline_run": run}
    tracking.register(
        work / "model",
        scenario=scenario,
        lineage=lineage | {"code_revision": "x"},
        **{name: work / f"{name}.json" for name in ("evaluation", "gate", "validation")},
        report=work / "report.html",
    )
    return version


def remembers(model: Path, user: str) -> bool:
    return user in pl.read_parquet(model / "memory" / "interactions.parquet")["user_id"].to_list()


def shown(output: str) -> set[str]:
    """The models and data versions that a table lists."""
    lines = (line.split() for line in output.splitlines())
    return {words[1 if words[0] == "model" else 2] for words in lines if words and words[0] in ("model", "data")}


def test_from_a_champion_that_knows_a_user_to_nothing_that_does(here: Path, scenario: Scenario, main: Main) -> None:
    user = shop_tables(DIALS)[0].users["user_id"][0]
    before = registered(here, scenario, "first")
    assert remembers(here / "first" / "model", user)
    assert main("data", "forgotten", "-s", "shop.yaml")[1].startswith("Scenario tiny-shop forgot nobody")

    code, out, err = main("data", "forget", user, "-s", "shop.yaml")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("1 user forgotten: 1 row of users, ")
    assert lines[0].endswith(f"rows of interactions left out of {before}")
    after = lines[1].split()[0]
    assert user not in out
    text = (here / ".mtrec" / "dvc" / "data" / "forgotten.jsonl").read_text()
    assert user not in text

    code, out, err = main("data", "forgotten", "-s", "shop.yaml")
    assert (code, err) == (0, "")
    assert out.startswith("scenario tiny-shop: 1 user who was forgotten on 20")
    assert shown(out) == {"tiny-shop/1", "tiny-shop-candidate/1", before}
    code, out, err = main("lineage", NAME)
    assert (code, err) == (0, "")
    assert "note  deletion      contains 1 user who was forgotten on 20" in out

    assert registered(here, scenario, "second") == after, "the raw data still has the user"
    assert not remembers(here / "second" / "model", user)
    assert shown(main("data", "forgotten", "-s", "shop.yaml")[1]) == {
        "tiny-shop/1",
        "tiny-shop-candidate/1",
        before,
    }
    code, out, _ = main("lineage", "tiny-shop-candidate/2")
    assert code == 0
    assert "ok  deletion      holds no user who was forgotten" in out

    assert main("models", "approve", NAME, "--force", "--why", "compared with none")[0] == 0
    code, _, err = main("models", "rollback", NAME, "--why", "faster")
    assert (code, err.count("\n")) == (1, 1)
    assert "tiny-shop/1: contains 1 user who was forgotten on 20" in err

    with holding(tracking.training_lease(NAME, tracking.resolve_uri()), "training of tiny-shop"):
        code, _, err = main("data", "purge", before)
    assert (code, err.count("\n")) == (1, 1)
    assert f"mtrec: {before}: training of tiny-shop (" in err
    code, _, err = main("data", "purge", before)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{before}: the registered model tiny-shop/1 was made from it; delete that model first" in err
    with connected(tracking.resolve_uri()) as client:
        for name in (NAME, f"{NAME}-candidate"):
            client.delete_model_version(name, "1")
    assert shown(main("data", "forgotten", "-s", "shop.yaml")[1]) == {before}
    assert main("data", "purge", before[:10])[1].startswith(f"{before} is deleted, ")
    assert known_versions(here / ".mtrec" / "dvc") == [after]
    out = main("data", "forgotten", "-s", "shop.yaml")[1]
    assert out.splitlines()[-1] == "No registered model and no data version contains them."


def test_the_monitor_leaves_them_out_of_what_it_would_retrain_on(
    here: Path, scenario: Scenario, main: Main
) -> None:
    registered(here, scenario, "first")
    tables = shop_tables(DIALS)[0]
    one, other = tables.users["user_id"].to_list()[:2]
    (here / "ids.txt").write_text(f"{one}\n\n  {other} \n")
    code, out, _ = main("data", "forget", "--file", "ids.txt", "-s", "shop.yaml")
    assert (code, out.split()[0]) == (0, "2")
    outputs = {name: here / "out" / name for name in ("observed", "tables", "validation")}
    inputs = monitor.Inputs(drop=here / "raw", dvc_root=here / ".mtrec" / "dvc", now="2025-11-01T00:00:00")
    told = monitor.run(inputs, monitor.Outputs(**outputs), scenario)
    assert told["data"]["problems"] == []
    assert users_in(Tables.read(here / "out" / "tables")) == users_in(tables) - {one, other}


def test_a_search_learns_nothing_of_them_and_notices_a_change(here: Path, scenario: Scenario, main: Main) -> None:
    from rich.console import Console

    dvc = here / ".mtrec" / "dvc"
    before = push(here / "raw", dvc)
    view = Following(Console(quiet=True))

    def prepared() -> tuple[str, set[str]]:
        version = prepare_data(scenario, here / "raw", here / "work", view, dvc)
        return version, set(pl.read_parquet(here / "work" / "dataset" / "users.parquet")["user_id"])

    user = shop_tables(DIALS)[0].users["user_id"][0]
    assert user in prepared()[1]
    code, out, _ = main("data", "forget", user, "-s", "shop.yaml", "--version", before)
    assert code == 0
    version, users = prepared()
    assert user not in users
    assert version == out.splitlines()[1].split()[0]
    code, out, _ = main("data", "forget", "--undo", user, "-s", "shop.yaml")
    assert (code, out) == (0, "1 user taken off the list; their rows come back with the next data that has them\n")
    assert user in prepared()[1]


def test_a_version_of_another_scenario_is_not_looked_into(here: Path, scenario: Scenario, main: Main) -> None:
    """Equal ids of two scenarios are two users."""
    before = registered(here, scenario, "first")
    (here / "other.yaml").write_text(yaml.safe_dump(scenario.as_dict() | {"name": "other"}))
    user = shop_tables(DIALS)[0].users["user_id"][0]
    after = main("data", "forget", user, "-s", "other.yaml", "--version", before)[1].splitlines()[1].split()[0]
    out = main("data", "forgotten", "-s", "other.yaml")[1]
    assert out.splitlines()[-1] == "No registered model and no data version contains them."
    assert "deletion" not in main("lineage", NAME)[1]
    assert set(known_versions(here / ".mtrec" / "dvc")) == {before, after}
    assert ingested(here, scenario, "second") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forget"], "whom? Give user ids, or --file"),
        (["forget", "--file", "nowhere.txt"], "--file nowhere.txt: not a readable text file"),
        (["forget", "--file", "empty.txt"], "--file empty.txt: holds no user id"),
        (["forget", "u1"], "scenario ecommerce has no champion yet; name the data version with --version"),
        (["forget", "u1", "--version", "abcd"], ".mtrec/dvc: not a DVC repository"),
        (["forget", "--undo", "u1"], "nobody was forgotten there"),
        (["purge", "abcd"], "there is nothing to delete"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    here: Path, main: Main, arguments: list[str], message: str
) -> None:
    (here / "empty.txt").write_text("\n")
    code, out, err = main("data", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [path.name for path in here.iterdir()] == ["empty.txt"]
