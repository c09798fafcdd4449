"""The chain from data to promotion: whole as registered, and each link broken in turn."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mtrec import tracking
from mtrec.config import Scenario
from mtrec.data.versioning import push
from mtrec.tracking import promotion
from mtrec.tracking.connection import connected
from tests.unit.stocked import NEWER, OTHER, VALIDATION, stock

NAMES = ["data version", "validation", "run", "model", "gate", "promotion"]


@pytest.fixture(scope="module")
def made(
    prepared_store: Path, tiny_model: Path, scenario: Scenario, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A champion and a candidate, and the data version that both name."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "tables").mkdir()
    for name in ("users", "items"):
        (folder / "tables" / f"{name}.csv").write_text(f"{name}\n1\n")
    version = push(folder / "tables", folder / "dvc")
    stock(folder, prepared_store, tiny_model, scenario, number=2, data_version=version)
    return folder


@pytest.fixture
def home(uri: str, made: Path, tmp_path: Path) -> Path:
    """The same in a place of its own: artifacts are named by absolute paths, so the store's text is changed too."""
    home = tmp_path / ".mtrec"
    shutil.rmtree(home)
    shutil.copytree(made, home)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(made), str(home)))
        connection.commit()
    return home


def verify(reference: str, home: Path) -> dict[str, str]:
    """What is broken."""
    _, links = tracking.verify(reference, dvc_root=home / "dvc")
    assert [link.name for link in links] == NAMES
    return {link.name: link.what for link in links if not link.ok}


def one(home: Path, name: str, kind: str = "*") -> Path:
    return next(path for path in sorted((home / "mlartifacts").glob(f"{kind}/**/{name}")) if path.is_file())


def of_run(home: Path, reference: str, name: str) -> Path:
    run = tracking.show_model(reference).run_id
    return home / "mlartifacts" / run / "artifacts" / "evaluation" / name


def model_file(home: Path, reference: str, name: str) -> Path:
    with connected(f"sqlite:///{home}/mlflow.db") as client:
        model, _, version = reference.partition("/")
        place = client.get_model_version_download_uri(model, version)
    return next(path for path in sorted(Path(place.removeprefix("file://")).rglob(name)))


def test_an_untouched_chain_holds(home: Path) -> None:
    label, links = tracking.verify("ecommerce", dvc_root=home / "dvc")
    assert label == "ecommerce/1"
    told = {link.name: link.what for link in links}
    assert all(link.ok for link in links), told
    assert told["data version"].endswith(".dir, its 2 files are whole in DVC's remote")
    assert told["validation"] == "passed; 3 rows of 2 tables quarantined"
    assert "finished, code 0" in told["run"]
    assert "files are those that were registered" in told["model"]
    assert told["gate"] == "pass, 1 rules, champion then: none"
    assert told["promotion"].startswith("champion, first by mtrec on 20")
    assert verify(NEWER, home) == {}
    assert tracking.verify(NEWER)[1][5].what == "awaiting review"
    tracking.approve(NEWER, who="ada")
    assert verify("ecommerce/2", home) == verify("ecommerce/1", home) == {}
    assert tracking.verify(NEWER)[1][5].what == "champion, as ecommerce/2"
    assert "approve by ada on 20" in tracking.verify("ecommerce")[1][5].what


def test_loading_the_model_breaks_nothing(home: Path, uri: str) -> None:
    import mlflow

    from mtrec.tracking.connection import as_global

    with as_global(uri):
        mlflow.pyfunc.load_model("models:/ecommerce@champion").predict([{"num_items": 2}])
    assert verify("ecommerce", home) == {}


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


FILES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "weights": (
        lambda home: append(model_file(home, NEWER, "model.safetensors")),
        "model",
        "changed: artifacts/model/model.safetensors",
    ),
    "code": (
        lambda home: append(model_file(home, NEWER, "predictor.py")),
        "model",
        "changed: code/mtrec/serving/pre",
    ),
    "missing": (
        lambda home: model_file(home, NEWER, "training.json").unlink(),
        "model",
        "missing: artifacts/model/",
    ),
    "added": (
        lambda home: model_file(home, NEWER, "MLmodel").with_name("evil.py").write_text("pass"),
        "model",
        "added: evil.py",
    ),
    "model gone": (lambda home: shutil.rmtree(model_file(home, NEWER, "MLmodel").parent), "model", "is gone"),
    "list": (
        lambda home: append(of_run(home, NEWER, "model_files.json")),
        "model",
        "model_files.json, the list of its files, was changed; the files are those of the registered list",
    ),
    "evaluation": (
        lambda home: append(of_run(home, NEWER, "evaluation.json")),
        "gate",
        "evaluation.json was changed since it was registered",
    ),
    "gate": (
        lambda home: rewrite(of_run(home, NEWER, "gate.json"), verdict="fail"),
        "gate",
        "gate.json was changed since it was registered",
    ),
    "report": (lambda home: append(of_run(home, NEWER, "report.html")), "gate", "report.html was changed since"),
    "report gone": (
        lambda home: of_run(home, NEWER, "report.html").unlink(),
        "gate",
        "evaluation/report.html is not among the artifacts of MLflow run ",
    ),
    "validation": (
        lambda home: rewrite(of_run(home, NEWER, "validation.json"), **VALIDATION, warnings=[]),
        "validation",
        "validation.json was changed since it was registered",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_was_tampered_with(home: Path, kind: str) -> None:
    tamper, link, message = FILES[kind]
    tamper(home)
    broken = verify(NEWER, home)
    assert list(broken) == [link]
    assert message in broken[link]
    assert verify("ecommerce/1", home) == {}, "the other model has its own files"
    with pytest.raises(tracking.Refused, match=f"^{NEWER}: {link} is broken: .*; see 'mtrec lineage {NEWER}', or"):
        tracking.approve(NEWER, who="ada")


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_data_that_was_tampered_with(home: Path, damage: str) -> None:
    objects = [path for path in (home / "dvc-remote").rglob("*") if path.is_file() and path.suffix != ".dir"]
    objects[0].chmod(0o644)
    append(objects[0]) if damage == "changed" else objects[0].unlink()
    assert list(verify(NEWER, home)) == ["data version"]
    assert not [link for link in tracking.verify(NEWER)[1] if not link.ok], "without a remote there is no look"


TAGS = {
    "data_version": ("data version", "the version says data_version x, its MLflow run says"),
    "code_revision": ("run", "the version says code_revision x, its MLflow run says 1"),
    "parameters_hash": ("run", "the version says parameters_hash x"),
    "image": ("run", "the version says image x"),
    "teacher": ("run", "do not give the hash in its tag lineage"),
    "started_from_sha256": ("run", "do not give the hash in its tag lineage"),
    "lineage": ("run", "do not give the hash in its tag lineage"),
    "gate": ("gate", "gate.json says pass, its tag gate says x"),
    "champion_compared": ("gate", "is against champion ecommerce/1, its tag champion_compared says x"),
    "sha256.model": ("model", "model_files.json, the list of its files, was changed; the files are not those"),
    "sha256.report": ("gate", "report.html was changed"),
}


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_that_was_tampered_with(home: Path, uri: str, tag: str) -> None:
    with connected(uri) as client:
        client.set_model_version_tag("ecommerce-candidate", "2", tag, "x")
    broken = verify(NEWER, home)
    link, message = TAGS[tag]
    assert message in broken[link]
    assert set(broken) - {link} <= {"run"}
    with pytest.raises(tracking.Refused, match=f"^{NEWER}: (its gate says x|{'|'.join(broken)} is broken)"):
        tracking.approve(NEWER, who="ada")


def test_a_run_that_is_gone(home: Path, uri: str) -> None:
    with connected(uri) as client:
        client.delete_run(tracking.show_model(NEWER).run_id)
    assert {"data version", "run"} <= set(verify(NEWER, home))
    with pytest.raises(tracking.Refused, match=f"^{NEWER}: data version is broken: its MLflow run .* was deleted"):
        tracking.approve(NEWER, who="ada")


def test_files_that_were_tampered_with_are_not_gone_back_to(home: Path) -> None:
    tracking.approve(NEWER, who="ada")
    append(model_file(home, "ecommerce/1", "model.safetensors"))
    with pytest.raises(
        tracking.Refused, match=r"^ecommerce/1: its model is broken: changed: artifacts/model/model"
    ):
        tracking.rollback("ecommerce", who="ada", why="slower", force=True)
    assert tracking.show_model("ecommerce@champion").version == "2"


def test_promotions_that_were_tampered_with(home: Path, uri: str) -> None:
    tracking.approve(NEWER, who="ada")
    with connected(uri) as client:
        client.set_registered_model_alias("ecommerce", "champion", "1")
        assert (
            "the history ends with ecommerce/2: the alias was moved by hand"
            in verify("ecommerce/1", home)["promotion"]
        )
        client.set_registered_model_alias("ecommerce", "champion", "2")
        client.set_model_version_tag("ecommerce", "2", "sha256.gate", "x")
        assert "its tags sha256.gate are not those of its candidate" in verify("ecommerce/2", home)["promotion"]
        client.delete_model_version_tag("ecommerce", "2", "copied_from")
        assert "it has no tag copied_from" in verify("ecommerce/2", home)["promotion"]
        client.set_model_version_tag("ecommerce", "1", "copied_from", OTHER)
        assert f"the candidate {OTHER} that it was copied from is gone" in verify("ecommerce/1", home)["promotion"]


def test_a_history_that_was_tampered_with(home: Path, uri: str) -> None:
    tracking.approve(NEWER, who="ada")
    key = "mtrec.history.0002"
    with connected(uri) as client:
        own = client.get_registered_model("ecommerce").tags[key]
        client.set_registered_model_tag("ecommerce", key, own.replace("ada", "eve"))
        broken = (
            "the history was changed: mtrec.history.0002 of ecommerce/2, mtrec.history.0002 of ecommerce/1 is not"
        )
        for reference in ("ecommerce/1", "ecommerce/2", NEWER):
            assert verify(reference, home)["promotion"].startswith(broken)
        client.delete_registered_model_tag("ecommerce", key)
        client.set_registered_model_alias("ecommerce", "champion", "1")
        assert verify("ecommerce/1", home)["promotion"].startswith(broken)
        client.set_registered_model_tag("ecommerce", key, own)
        client.set_registered_model_alias("ecommerce", "champion", "2")
        assert verify("ecommerce/1", home) == {}
        client.delete_model_version_tag("ecommerce", "2", key)
        assert "mtrec.history.0002 of ecommerce/2 is not" in verify("ecommerce/1", home)["promotion"]


def test_a_clock_that_was_set_back_is_no_tampering(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def long_ago(action: str, **facts: Any) -> tracking.Change:
        return tracking.Change(action=action, when="2020-01-01T00:00:00.000+00:00", **facts)

    monkeypatch.setattr(promotion, "new_change", long_ago)
    tracking.approve(NEWER, who="ada")
    assert [change.action for change in tracking.history("ecommerce")] == ["first", "approve"]
    assert verify("ecommerce/2", home) == {}


def test_a_version_without_digests_gets_them_when_it_is_registered_again(
    home: Path, uri: str, tiny_model: Path, scenario: Scenario
) -> None:
    with connected(uri) as client:
        for name in ("model", "evaluation", "gate", "report", "validation"):
            client.delete_model_version_tag("ecommerce-candidate", "2", f"sha256.{name}")
    assert list(verify(NEWER, home)) == ["validation", "model", "gate"]
    tags = tracking.show_model(NEWER).tags
    lineage = {key: tags[key] for key in ("data_version", "code_revision", "parameters_hash", "image")}
    done = tracking.register(
        tiny_model,
        scenario=scenario,
        lineage=lineage | {"pipeline_run": "again"},
        **{name: home / f"{name}.json" for name in ("evaluation", "gate", "validation")},
        report=home / "report.html",
    )
    assert not done.created
    assert verify(NEWER, home) == {}


def test_what_was_approved_keeps_the_judgement_it_was_approved_on(
    home: Path, uri: str, tiny_model: Path, scenario: Scenario
) -> None:
    """A run that was cut off after registering is taken up under its name, and judges its own champion again."""
    tracking.approve(NEWER, who="ada")
    rewrite(home / "evaluation.json", champion={"name": "ecommerce", "version": "2"})
    tags = tracking.show_model(NEWER).tags
    lineage = {key: tags[key] for key in ("data_version", "code_revision", "parameters_hash", "image")}
    files = {name: home / f"{name}.json" for name in ("evaluation", "gate", "validation")}
    for run in (tags["pipeline_run"], "another"):
        tracking.register(
            tiny_model,
            scenario=scenario,
            lineage=lineage | {"pipeline_run": run},
            **files,
            report=home / "report.html",
        )
        compared = "ecommerce/1" if run != "another" else "ecommerce/2"
        assert tracking.show_model(NEWER).tags["champion_compared"] == compared
        assert verify(NEWER, home) == verify("ecommerce/2", home) == {}
