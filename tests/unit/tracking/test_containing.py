"""Which registered models hold forgotten users: their own data's, their members' and their teacher's."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.forgetting import forget
from mtrec.data.forgotten import read_forgotten
from mtrec.data.purging import purge
from mtrec.data.versioning import push
from mtrec.tracking import containing, promotion
from mtrec.tracking.connection import as_global, connected
from mtrec.tracking.stored import file_digest
from tests.unit.stocked import stock


@pytest.fixture(scope="module")
def made(
    prepared_store: Path, tiny_model: Path, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, str]:
    """A registry whose candidates learned from the data before and after u1 was forgotten; both data versions."""
    folder = tmp_path_factory.mktemp("made")
    users = pl.DataFrame({"user_id": ["u1", "u2"]})
    goods = pl.DataFrame({"item_id": ["a"], "title": ["Apple"]})
    Tables(users=users, items=goods, interactions=users.with_columns(item_id=pl.lit("a"))).write(folder / "tables")
    before = push(folder / "tables", folder / "dvc")
    stock(folder, prepared_store, tiny_model, scenario, number=1, data_version=before)
    after = forget(["u1"], scenario=scenario.name, version=before, root=folder / "dvc").version
    kinds = [
        {},
        {"members": "ecommerce-candidate/1, ecommerce-candidate/2"},
        {"teacher": file_digest(tiny_model / "model.safetensors")},
        {"teacher": "0" * 64},
        {"started_from": "ecommerce/1"},
    ]
    with connected(uri_of(folder)) as client, as_global(uri_of(folder)):
        first = client.get_model_version("ecommerce-candidate", "1")
        for number, kind in enumerate(kinds):
            tags = {**first.tags, "data_version": after, "lineage": str(number), **kind}
            client.create_model_version("ecommerce-candidate", first.source, run_id=first.run_id, tags=tags)
    return folder, before, after


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def test_models_hold_what_their_data_held(made: tuple[Path, str, str], scenario: Scenario) -> None:
    folder, before, after = made
    found = {one.name: one for one in tracking.holders(scenario.name, folder / "dvc", uri_of(folder))}
    known = read_forgotten(folder / "dvc", scenario.name)
    data = {name: one.data_versions for name, one in found.items()}
    assert data == {
        "ecommerce/1": (before,),
        "ecommerce-candidate/1": (before,),
        "ecommerce-candidate/2": (after,),
        "ecommerce-candidate/3": (after, before),
        "ecommerce-candidate/4": (after, before),
        "ecommerce-candidate/5": (after,),
        "ecommerce-candidate/6": (after, before),
    }
    holding = {name for name, one in found.items() if one.users}
    assert holding == {name for name, versions in data.items() if before in versions}
    assert all(one.users == known.when for one in found.values() if one.users)
    assert found["ecommerce/1"].status == "champion"
    assert {name for name, one in found.items() if one.unknown} == {"ecommerce-candidate/5"}
    assert found["ecommerce-candidate/5"].unknown == "its teacher is not among the registered models"


def deletion(folder: Path, reference: str, dvc_root: Path | None = None) -> tracking.Link | None:
    _, links = tracking.verify(reference, tracking_uri=uri_of(folder), dvc_root=dvc_root or folder / "dvc")
    return next((link for link in links if link.name == "deletion"), None)


def test_lineage_says_it_in_a_line(made: tuple[Path, str, str], scenario: Scenario, tmp_path: Path) -> None:
    folder = made[0]
    when = next(iter(read_forgotten(folder / "dvc", scenario.name).when.values()))[:10]
    told = f"contains 1 user who was forgotten on {when}; retrain, then reject or delete this version"
    assert deletion(folder, "ecommerce") == tracking.Link(name="deletion", ok=True, what=told, note=True)
    clean = deletion(folder, "ecommerce-candidate/2")
    assert clean == tracking.Link(name="deletion", ok=True, what="holds no user who was forgotten")
    student = deletion(folder, "ecommerce-candidate/5")
    assert student is not None
    assert student.note
    assert student.what == "cannot be told of all its data: its teacher is not among the registered models"
    for name in ("dvc", "dvc-remote"):
        shutil.copytree(folder / name, tmp_path / name)
    (tmp_path / "dvc" / "data" / "forgotten.key").unlink()
    lost = deletion(folder, "ecommerce", tmp_path / "dvc")
    assert lost is not None
    assert not lost.ok
    assert "cannot be recognised" in lost.what
    (tmp_path / "dvc" / "data" / "forgotten.jsonl").unlink()
    assert deletion(folder, "ecommerce", tmp_path / "dvc") is None, "nobody was forgotten there"
    assert tracking.holders(scenario.name, tmp_path / "dvc", uri_of(folder))[0].users == {}


def test_what_is_gone_is_not_known(made: tuple[Path, str, str], scenario: Scenario, tmp_path: Path) -> None:
    folder, before, _ = made
    for name in ("dvc", "dvc-remote", "mlflow.db"):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)
    purge(before, tmp_path / "dvc")
    with connected(uri_of(tmp_path)) as client:
        client.delete_model_version("ecommerce-candidate", "2")
    found = {one.name: one for one in tracking.holders(scenario.name, tmp_path / "dvc", uri_of(tmp_path))}
    assert f"{before}: no such data version" in found["ecommerce/1"].unknown
    assert found["ecommerce/1"].users == {}
    assert "ecommerce-candidate/2, of which it is made, is no longer" in found["ecommerce-candidate/3"].unknown


@pytest.fixture
def reviewed(made: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Decide in a copy of the registry, where only the rule about the forgotten counts."""
    shutil.copy(made[0] / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setattr(promotion, "_check", lambda *given: None)

    def decide(action: Callable[..., tracking.Decision], reference: str, **given: Any) -> tracking.Decision:
        places = {"tracking_uri": uri_of(tmp_path), "dvc_root": made[0] / "dvc"}
        return action(reference, **{"who": "ada", "why": "a test"} | places | given)

    return decide


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (
            "ecommerce-candidate/3",
            r": contains 1 user who was forgotten on 20.*; train anew, or approve .* --force",
        ),
        (
            "ecommerce-candidate/5",
            r": may contain users who were forgotten: its teacher is not among the .*; train",
        ),
    ],
)
def test_what_may_hold_them_is_approved_by_force_only(
    reviewed: Callable[..., Any], candidate: str, message: str
) -> None:
    with pytest.raises(tracking.Refused, match=f"^{candidate}{message}"):
        reviewed(tracking.approve, candidate)
    assert reviewed(tracking.approve, candidate, force=True).changed


def test_going_back_to_what_holds_them_takes_force(reviewed: Callable[..., Any], tmp_path: Path) -> None:
    assert reviewed(tracking.approve, "ecommerce-candidate/2").champion == "ecommerce/2"
    with pytest.raises(
        tracking.Refused, match=r"^ecommerce/1: contains 1 user .*; train anew, or go back .* --force$"
    ):
        reviewed(tracking.rollback, "ecommerce")
    assert reviewed(tracking.rollback, "ecommerce", force=True).champion == "ecommerce/1"
    assert tracking.history("ecommerce", uri_of(tmp_path))[-1].forced


def test_a_list_that_cannot_be_read_stops_a_decision(
    made: tuple[Path, str, str], reviewed: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(made[0] / "dvc", tmp_path / "dvc")
    (tmp_path / "dvc" / "data" / "forgotten.key").unlink()
    with pytest.raises(tracking.Refused, match=r"^ecommerce-candidate/2: may contain .*forgotten\.key: missing"):
        reviewed(tracking.approve, "ecommerce-candidate/2", dvc_root=tmp_path / "dvc")


def test_where_nobody_was_forgotten_no_decision_looks_into_data(
    reviewed: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containing, "_look", lambda *given: pytest.fail("looked"))
    assert reviewed(tracking.approve, "ecommerce-candidate/3", dvc_root=tmp_path / "dvc").changed
    assert reviewed(tracking.rollback, "ecommerce", dvc_root=tmp_path / "dvc").changed


def test_users_are_counted_for_people() -> None:
    one = {"a": "2026-01-02T03:04:05+00:00"}
    assert tracking.count_users(one) == "1 user who was forgotten on 2026-01-02"
    both = one | {"b": "2026-03-02T03:04:05+00:00"}
    assert tracking.count_users(both) == "2 users who were forgotten between 2026-01-02 and 2026-03-02"
