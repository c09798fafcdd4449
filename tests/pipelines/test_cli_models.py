"""`mtrec models`: what people read and write when they review, on a real registry."""

import getpass
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtrec.config import Scenario, load_scenario
from mtrec.tracking.connection import connected
from pipelines import cli
from tests.unit.stocked import NEWER, OTHER, stock
from tests.unit.tiny_shop import DIALS, save_bert, shop_scenario, shop_tables, words

LINKS = ["data version", "validation", "run", "model", "gate", "promotion"]
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("stocked")
    with connected(f"sqlite:///{folder}/empty.db") as client:
        client.search_experiments()
    scenario = load_scenario(repository / "scenarios" / "ecommerce.yaml")
    return stock(folder, folder / "empty.db", _model(folder), scenario)


def _model(folder: Path) -> Path:
    from mtrec.data.dataset import prepare
    from mtrec.models.store import new_model, save_model

    items = shop_tables(DIALS)[0].items
    vocabulary = words([*items["title"].drop_nulls(), *items["description"].drop_nulls()])
    scenario: Scenario = shop_scenario(save_bert(folder / "bert", vocabulary))
    dataset, encoding = prepare(shop_tables(DIALS)[0], scenario)
    bundle, _, catalogue = new_model(dataset, encoding, scenario)
    save_model(folder / "model", bundle, dataset, catalogue, {"epochs": 0})
    return folder / "model"


@pytest.fixture
def main(
    stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Main:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".mtrec").mkdir()
    shutil.copy(stocked, tmp_path / ".mtrec" / "mlflow.db")

    def call(*arguments: str) -> tuple[int, str, str]:
        code: Any = 0
        try:
            cli.main(arguments if arguments[0] == "lineage" else ["models", *arguments])
        except SystemExit as error:
            code = error.code or 0
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def rows(output: str) -> list[list[str]]:
    assert max(len(line.rstrip()) for line in output.splitlines()) <= 100
    return [line.split() for line in output.splitlines()]


def test_the_list_says_what_became_of_every_version(main: Main) -> None:
    code, output, _ = main("list")
    assert code == 0
    shown = {(row[0], row[1]): " ".join(row[2:-3]) for row in rows(output)[1:]}
    assert shown == {
        ("ecommerce", "1"): "champion champion pass",
        ("ecommerce-candidate", "4"): "refused by the gate candidate fail",
        ("ecommerce-candidate", "3"): "awaiting review pass",
        ("ecommerce-candidate", "2"): "awaiting review pass",
        ("ecommerce-candidate", "1"): "champion pass",
    }


def test_a_review_from_end_to_end(main: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    said = main("approve", NEWER, "--why", "better ratings")
    assert said == (0, "ecommerce-candidate/2 is the champion now: ecommerce/2, before: ecommerce/1\n", "")
    assert main("approve", NEWER) == (0, "ecommerce-candidate/2 is the champion already: ecommerce/2\n", "")
    code, output, error = main("approve", OTHER)
    assert (code, output) == (1, "")
    assert error.startswith(
        "mtrec: ecommerce-candidate/3: it was compared with ecommerce/1, and the champion is eco"
    )
    assert error.count("\n") == 1
    assert main("reject", OTHER, "--why", "slower", "--who", "ben")[1] == "ecommerce-candidate/3 is rejected\n"
    assert main("reject", OTHER, "--why", "slower")[1] == "ecommerce-candidate/3 was rejected already\n"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    said = main("rollback", "ecommerce", "--why", "prices were wrong")
    assert said == (0, "ecommerce/1 is the champion again, before: ecommerce/2\n", "")
    table = rows(main("history", "ecommerce")[1])
    assert [" ".join(row[2:]) for row in table[1:]] == [
        "mtrec first candidate/1 none → 1 the first candidate that passed the gate",
        f"{getpass.getuser()} approve candidate/2 1 → 2 better ratings",
        "ben reject candidate/3 2 stays slower",
        "ada rollback 2 → 1 prices were wrong",
    ]
    shown = main("show", "ecommerce/2")[1]
    assert ["status", "former", "champion"] in [line.split() for line in shown.splitlines()]
    assert "approve by" in shown
    assert "rollback by ada on 20" in shown
    assert "mtrec.history" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["approve", "nothing"], 2, "nothing-candidate@candidate: no such registered model (known: ecommerce, "),
        (["approve", NEWER, "--force"], 2, "--force needs a reason: give --why"),
        (["reject", NEWER, "--why", ""], 2, "rejecting needs a reason: give --why"),
        (["reject", "ecommerce-candidate/1", "--why", "x"], 1, "is the champion; take it back with"),
        (["rollback", "ecommerce", "--why", "x"], 1, "nothing was champion before ecommerce/1"),
        (["approve", NEWER, "--dvc-root", "nowhere"], 2, "--dvc-root nowhere: not a DVC repository"),
        (["history", "nothing"], 2, "nothing: no such registered model"),
        (
            ["history", "ecommerce-candidate"],
            2,
            "ecommerce-candidate: candidates have no history of their own; give the serving model's name",
        ),
        (
            ["compare", "ecommerce/1", "ecommerce/7"],
            2,
            "ecommerce/7: no such version (known: ecommerce/1@champion)",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(main: Main, arguments: list[str], code: int, message: str) -> None:
    found, output, error = main(*arguments)
    assert (found, output) == (code, "")
    assert error.startswith("mtrec: ")
    assert message in error
    assert error.count("\n") == 1


def test_what_people_wrote_is_printed_as_it_is(main: Main) -> None:
    why = "[bold]new[/x] data :fire: [link=x]"
    assert main("approve", NEWER, "--who", "ada[/b]", "--why", why)[0] == 0
    code, output, error = main("history", "ecommerce")
    assert (code, error) == (0, "")
    assert output.splitlines()[-1].split()[2:] == ["ada[/b]", "approve", "candidate/2", "1", "→", "2", *why.split()]
    code, output, error = main("show", "ecommerce/2")
    assert (code, error) == (0, "")
    assert f": {why}" in output
    assert "by ada[/b] on" in output


def test_a_model_without_decisions_says_so(main: Main, tmp_path: Path) -> None:
    with connected(f"sqlite:///{tmp_path}/.mtrec/mlflow.db") as client:
        client.create_registered_model("shop")
    assert main("history", "shop") == (0, "Nothing has been decided about shop yet.\n", "")


def test_a_reason_is_required(main: Main) -> None:
    for arguments in (["reject", NEWER], ["rollback", "ecommerce"]):
        told = f"mtrec: Missing option '--why'; see mtrec models {arguments[0]} --help\n"
        assert main(*arguments) == (2, "", told)


def test_two_versions_side_by_side(main: Main) -> None:
    code, output, _ = main("compare", "ecommerce-candidate/1", OTHER)
    assert code == 0
    table = rows(output)
    assert table[0] == ["task", "metric", "ecommerce-candidate/1", OTHER, "better"]
    assert table[1] == ["rating", "rmse", "↓", "0.9310", "0.9110", "←", "second"]
    assert table[2] == ["mae", "↓", "0.7500", "0.7500"]
    assert table[3] == ["next_item", "ndcg@10", "↑", "0.2000", "0.2000"]
    assert "Not measured on the same data" not in output


def test_the_chain_is_printed_and_a_broken_link_is_exit_code_1(main: Main, stocked: Path) -> None:
    code, output, error = main("lineage", "ecommerce")
    assert (code, error) == (0, "")
    first, *links = output.splitlines()
    assert first == "ecommerce/1"
    assert [tuple(re.split(" {2,}", line)[:2]) for line in links if line[0] != " "] == [
        ("ok", name) for name in LINKS
    ]
    (gate,) = (
        path
        for path in (stocked.parent / "mlartifacts").glob("*/artifacts/evaluation/gate.json")
        if json.loads(path.read_text())["verdict"] == "fail"
    )
    text = gate.read_text()
    gate.write_text(text.replace("fail", "pass"))
    try:
        code, output, error = main("lineage", "ecommerce-candidate/4")
    finally:
        gate.write_text(text)
    assert code == 1
    assert re.search("^broken +gate +gate.json was changed since it was registered", output, re.M)
    assert len(re.findall("^ok ", output, re.M)) == 5
    assert error.startswith("mtrec: ecommerce-candidate/4: broken: gate; what it should be is in its tags")


def test_without_a_registry_nothing_is_made(main: Main, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / ".mtrec")
    for arguments in (
        ["approve", "x"],
        ["reject", "x", "--why", "y"],
        ["rollback", "x", "--why", "y"],
        ["history", "x"],
        ["compare", "x", "y"],
        ["lineage", "x"],
    ):
        code, _, error = main(*arguments)
        assert code == 2
        assert "x: no such registered model (known: none); 'mtrec run' registers one" in error
    assert list(tmp_path.iterdir()) == []
