"""Which registered models hold forgotten users: their own data's, their members' and their teacher's."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.data.contract import Tables
from mtrec.data.forgetting import forget
from mtrec.data.forgotten import read_forgotten
from mtrec.data.purging import purge
from mtrec.data.versioning import push
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
        for kind in kinds:
            tags = {**first.tags, "data_version": after, **kind}
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


def test_users_are_counted_for_people() -> None:
    one = {"a": "2026-01-02T03:04:05+00:00"}
    assert tracking.count_users(one) == "1 user who was forgotten on 2026-01-02"
    both = one | {"b": "2026-03-02T03:04:05+00:00"}
    assert tracking.count_users(both) == "2 users who were forgotten between 2026-01-02 and 2026-03-02"
